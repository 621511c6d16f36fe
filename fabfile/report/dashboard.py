"""Where every host that is watched stands, and what changed between two looks. It draws nothing and contacts nothing.

Times are Unix seconds on this machine's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import tzinfo
from enum import Enum

from fabfile.errors import RollingError
from fabfile.model import Color, Container, HealthReport, HostState, Kind, Lock
from fabfile.report.text import clock_time, count, duration, one_line, short_digest

#: How many latencies of a host, and how many happenings of all hosts, are kept.
LATENCIES = 120
HAPPENINGS = 200
#: Beyond this many seconds over two intervals, what a host said last says nothing about it any more.
PATIENCE_SECONDS = 15.0


class Mood(Enum):
    """How a host or a happening is to be taken, in the order in which a person wants to see hosts on a short screen."""

    BAD = 0
    LOST = 1
    BUSY = 2
    WAITING = 3
    GOOD = 4


@dataclass(frozen=True)
class Happening:
    """Something that changed on a host, and when it was seen."""

    at: float
    host: str
    what: str
    mood: Mood


@dataclass(frozen=True)
class Watched:
    """One host as it was seen last.

    `latencies` are milliseconds, newest last, None where there was no answer; `lost_at` is since when it could not be
    reached, None while it can, and `why` the newest reason.
    """

    host: str
    interval_seconds: float
    report: HealthReport | None = None
    looked_at: float = 0.0
    lost_at: float | None = None
    why: str = ""
    latencies: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Serving:
    """What one service serves visitors with; without a container it serves nothing."""

    service: str
    color: Color
    container: Container | None

    @property
    def tag(self) -> str:
        """The tag of its image, or the beginning of the digest where there is none."""
        image = self.container.image if self.container else None
        return "" if image is None else image.tag or short_digest(image.digest)

    def __str__(self) -> str:
        return f"{self.color.value} {self.tag or 'without a container'}"


@dataclass(frozen=True)
class Dashboard:
    """All hosts in the inventory's order, and what happened, newest last."""

    environment: str
    hosts: tuple[Watched, ...]
    happenings: tuple[Happening, ...] = ()

    def host(self, name: str) -> Watched:
        """The host of that name. Raises StopIteration when there is none."""
        return next(one for one in self.hosts if one.host == name)


def looked(
    board: Dashboard, host: str, found: HealthReport | RollingError, at: float
) -> tuple[Dashboard, tuple[Happening, ...]]:
    """The dashboard after one more look at one host, and what this look changed."""
    before = board.host(host)
    if isinstance(found, RollingError):
        after, said = _lost(before, found, at), _loss(before, found)
    else:
        after, said = _seen(before, found, at), _news(before, found, at)
    fresh = tuple(Happening(at, host, what, mood) for mood, what in said)
    hosts = tuple(after if one.host == host else one for one in board.hosts)
    return replace(board, hosts=hosts, happenings=(*board.happenings, *fresh)[-HAPPENINGS:]), fresh


def _seen(before: Watched, report: HealthReport, at: float) -> Watched:
    latencies = (*before.latencies, latency(report))[-LATENCIES:]
    return replace(before, report=report, looked_at=at, lost_at=None, why="", latencies=latencies)


def _lost(before: Watched, error: RollingError, at: float) -> Watched:
    since = at if before.lost_at is None else before.lost_at
    return replace(
        before, lost_at=since, why=reason(error, before.host), latencies=(*before.latencies, None)[-LATENCIES:]
    )


def reason(error: RollingError, host: str) -> str:
    """Why a host was not reached, on one line and without its name, which stands beside it."""
    return one_line(error.message).removeprefix(f"{host}: ")


def latency(report: HealthReport) -> int | None:
    """Milliseconds of a request through the whole chain, or of a visitor's where there is none; None for a bad answer.

    An error that Nginx answers in the application's place is fast, and says nothing of how fast that is.
    """
    timed = {check.name: check for check in report.checks if check.kind is Kind.HTTP}
    check = timed.get("full chain") or timed.get("site")
    return check.milliseconds if check is not None and check.ok else None


def servings(report: HealthReport) -> tuple[Serving, ...]:
    """What each service serves with, in the application's order."""
    state = report.state
    names = [check.service for check in report.checks if check.kind is Kind.CONTAINER]
    colors = [(name, state.active_color(name)) for name in names]
    return tuple(Serving(name, color, state.container(name, color)) for name, color in colors)


def held(state: HostState) -> Lock | None:
    """The lock that somebody holds; one whose lease is over keeps nobody out."""
    return state.lock if state.lock is not None and state.lock.expires_at > state.now else None


def standing(watched: Watched, now: float, zone: tzinfo | None = None) -> tuple[Mood, str]:
    """How the host stands, for its row."""
    if watched.lost_at is not None:
        return Mood.LOST, f"NOT REACHED since {clock_time(watched.lost_at, zone)}"
    if watched.report is None:
        return Mood.WAITING, "connecting"
    age = now - watched.looked_at
    if age > 2 * watched.interval_seconds + PATIENCE_SECONDS:
        return Mood.LOST, f"NO ANSWER for {duration(age)}"
    failed = ", ".join(check.name for check in watched.report.failed)
    said = "; ".join((*([f"FAILED: {failed}"] if failed else []), *remarks(watched.report.state)))
    return Mood.BAD if failed else Mood.BUSY if said else Mood.GOOD, one_line(said) or "well"


def remarks(state: HostState) -> tuple[str, ...]:
    """What else is going on there: somebody holds the lock, the maintenance page is up."""
    lock, page = held(state), state.fact("maintenance")
    return (
        *([f"locked by {lock.owner}: {lock.reason}"] if lock else []),
        *([f"maintenance page up ({page})"] if page else []),
    )


def _loss(before: Watched, error: RollingError) -> Iterator[tuple[Mood, str]]:
    if before.lost_at is None:
        yield Mood.LOST, f"not reached: {reason(error, before.host)}"


def _news(before: Watched, report: HealthReport, at: float) -> Iterator[tuple[Mood, str]]:
    if before.lost_at is not None:
        yield Mood.GOOD, f"reached again after {duration(at - before.lost_at)}"
    yield from changes(before.report, report)


def changes(before: HealthReport | None, after: HealthReport) -> Iterator[tuple[Mood, str]]:
    """What changed from one look to the next; of the first look, what is not well."""
    if before is not None:
        yield from _lock_changes(held(before.state), held(after.state))
        yield from _page_changes(before.state.fact("maintenance"), after.state.fact("maintenance"))
        earlier = {one.service: one for one in servings(before)}
        for serving in servings(after):
            if serving.service in earlier:
                yield from _serving_changes(earlier[serving.service], serving)
    yield from _check_changes(before, after)


def _lock_changes(before: Lock | None, after: Lock | None) -> Iterator[tuple[Mood, str]]:
    if (before.token if before else None) == (after.token if after else None):
        return
    if before is not None:
        yield Mood.BUSY, one_line(f"lock of {before.owner} released: {before.reason}")
    if after is not None:
        yield Mood.BUSY, one_line(f"locked by {after.owner}: {after.reason}")


def _page_changes(before: str, after: str) -> Iterator[tuple[Mood, str]]:
    if bool(before) != bool(after):
        yield Mood.BUSY, one_line(f"maintenance page up ({after})") if after else "maintenance page down"


def _serving_changes(before: Serving, after: Serving) -> Iterator[tuple[Mood, str]]:
    old, new = before.container, after.container
    if (before.color, before.tag) != (after.color, after.tag):
        yield Mood.BUSY, f"{after.service}: {before} → {after}"
    elif old is None or new is None:
        return
    elif old.release != new.release:
        yield Mood.BUSY, f"{after.service}: release {old.release or '-'} → {new.release or '-'}, {after}"
    elif new.restarts > old.restarts:
        yield Mood.BAD, f"{after.service} crashed and was restarted: {count(new.restarts, 'restart')}"
    elif new.running and old.started_at != new.started_at:
        yield Mood.BUSY, f"{after.service} was started again"


def _check_changes(before: HealthReport | None, after: HealthReport) -> Iterator[tuple[Mood, str]]:
    failed = {check.name for check in before.failed} if before else set()
    for check in after.checks:
        if check.name in failed and check.ok:
            yield Mood.GOOD, f"{check.name} is well again"
        elif check.name not in failed and not check.ok:
            yield Mood.BAD, one_line(f"{check.name} FAILED: {check.detail}")
    if after.checks:
        for name in sorted(failed - {check.name for check in after.checks}):
            yield Mood.BUSY, f"{name} is no longer checked"
