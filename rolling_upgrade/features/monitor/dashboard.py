"""The state behind `inv monitor`: the newest check of every host, and the events between two checks.

Times are Unix seconds on this machine's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rolling_upgrade.console.screen import RowState
from rolling_upgrade.console.text import clock_time, count, duration, one_line
from rolling_upgrade.engine.model import Color, Container, HealthReport, HostState, Kind, Lock, short_digest
from rolling_upgrade.errors import RollingError

#: The number of latencies per host, and of events of all hosts, that the dashboard keeps.
KEPT_LATENCIES = 120
KEPT_EVENTS = 200
#: A report older than two intervals and this many seconds no longer counts.
STALE_SECONDS = 15.0


@dataclass(frozen=True)
class HostEvent:
    """A change on a host; `at` is when a check showed it."""

    at: float
    host: str
    title: str
    state: RowState


@dataclass(frozen=True)
class MonitoredHost:
    """One host and its newest report.

    `latencies` are in milliseconds, newest last, None for a failed check. `unreachable_since` is None
    while the host can be reached; `error` says why the newest check failed.
    """

    host: str
    interval_seconds: float
    report: HealthReport | None = None
    checked_at: float = 0.0
    unreachable_since: float | None = None
    error: str = ""
    latencies: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class ActiveVersion:
    """The active color of a service, and its container; None if the container is missing."""

    service: str
    color: Color
    container: Container | None

    @property
    def tag(self) -> str:
        """The tag of its image, or the start of the digest of an untagged image."""
        image = self.container.image if self.container else None
        return "" if image is None else image.tag or short_digest(image.digest)

    def __str__(self) -> str:
        return f"{self.color.value} {self.tag or 'without a container'}"


@dataclass(frozen=True)
class Dashboard:
    """All hosts in the order of the inventory, and the events, newest last."""

    environment: str
    hosts: tuple[MonitoredHost, ...]
    events: tuple[HostEvent, ...] = ()

    def host(self, name: str) -> MonitoredHost:
        """Return the host with that name. Raises StopIteration when there is none."""
        return next(host for host in self.hosts if host.host == name)


def update(
    board: Dashboard, host: str, result: HealthReport | RollingError, at: float
) -> tuple[Dashboard, tuple[HostEvent, ...]]:
    """Return the dashboard after one more check of a host, and the events that the check caused."""
    before = board.host(host)
    if isinstance(result, RollingError):
        after, changed = _unreachable(before, result, at), _unreachable_events(before, result)
    else:
        after, changed = _reached(before, result, at), _reached_events(before, result, at)
    new = tuple(HostEvent(at, host, title, state) for state, title in changed)
    hosts = tuple(after if other.host == host else other for other in board.hosts)
    return replace(board, hosts=hosts, events=(*board.events, *new)[-KEPT_EVENTS:]), new


def _reached(before: MonitoredHost, report: HealthReport, at: float) -> MonitoredHost:
    # A host without a service with a port has no site to ask.
    asked = [latency(report)] if any(check.kind is Kind.HTTP for check in report.checks) else []
    latencies = (*before.latencies, *asked)[-KEPT_LATENCIES:]
    return replace(before, report=report, checked_at=at, unreachable_since=None, error="", latencies=latencies)


def _unreachable(before: MonitoredHost, error: RollingError, at: float) -> MonitoredHost:
    since = at if before.unreachable_since is None else before.unreachable_since
    latencies = (*before.latencies, None)[-KEPT_LATENCIES:]
    return replace(before, unreachable_since=since, error=_cause(error, before.host), latencies=latencies)


def _cause(error: RollingError, host: str) -> str:
    """Return an error's message on one line, without the host's name in front: rows and events have it already."""
    return one_line(error.message).removeprefix(f"{host}: ")


def latency(report: HealthReport) -> int | None:
    """Return the milliseconds of a request through the full chain, or to the site if there is no chain.

    None for a failed request, because Nginx returns its own error page quickly.
    """
    requests = {check.name: check for check in report.checks if check.kind is Kind.HTTP}
    check = requests.get("full chain") or requests.get("site")
    return check.milliseconds if check is not None and check.ok else None


def active_versions(report: HealthReport) -> tuple[ActiveVersion, ...]:
    """Return the active version of each service, in the application's order."""
    state = report.state
    names = [check.service for check in report.checks if check.kind is Kind.CONTAINER]
    colors = [(name, state.active_color(name)) for name in names]
    return tuple(ActiveVersion(name, color, state.container(name, color)) for name, color in colors)


def host_status(host: MonitoredHost, now: float) -> tuple[RowState, str]:
    """Return the state of a host and the text of its row."""
    if host.unreachable_since is not None:
        return RowState.UNREACHABLE, f"UNREACHABLE since {clock_time(host.unreachable_since)}"
    if host.report is None:
        return RowState.WAITING, "connecting"
    age = now - host.checked_at
    if age > 2 * host.interval_seconds + STALE_SECONDS:
        return RowState.UNREACHABLE, f"NO ANSWER for {duration(age)}"
    failed = ", ".join(check.name for check in host.report.failed)
    text = "; ".join((*([f"FAILED: {failed}"] if failed else []), *notices(host.report.state)))
    return RowState.FAILED if failed else RowState.ATTENTION if text else RowState.HEALTHY, one_line(text) or "healthy"


def notices(state: HostState) -> tuple[str, ...]:
    """Return a text for the held lock and for the maintenance page of a host."""
    lock, page = state.held_lock, state.fact("maintenance")
    return (
        *([f"locked by {lock.owner}: {lock.reason}"] if lock else []),
        *([f"maintenance page on ({page})"] if page else []),
    )


def _unreachable_events(before: MonitoredHost, error: RollingError) -> Iterator[tuple[RowState, str]]:
    if before.unreachable_since is None:
        yield RowState.UNREACHABLE, f"unreachable: {_cause(error, before.host)}"


def _reached_events(before: MonitoredHost, report: HealthReport, at: float) -> Iterator[tuple[RowState, str]]:
    if before.unreachable_since is not None:
        yield RowState.HEALTHY, f"reachable again after {duration(at - before.unreachable_since)}"
    yield from changes(before.report, report)


def changes(before: HealthReport | None, after: HealthReport) -> Iterator[tuple[RowState, str]]:
    """Yield the changes from one report to the next; for a first report, its failed checks."""
    if before is not None:
        yield from _lock_changes(before.state.held_lock, after.state.held_lock)
        yield from _page_changes(before.state.fact("maintenance"), after.state.fact("maintenance"))
        earlier = {version.service: version for version in active_versions(before)}
        for version in active_versions(after):
            if version.service in earlier:
                yield from _version_changes(earlier[version.service], version)
    yield from _check_changes(before, after)


def _lock_changes(before: Lock | None, after: Lock | None) -> Iterator[tuple[RowState, str]]:
    if (before.token if before else None) == (after.token if after else None):
        return
    if before is not None:
        yield RowState.ATTENTION, one_line(f"{before.owner} released the lock: {before.reason}")
    if after is not None:
        yield RowState.ATTENTION, one_line(f"locked by {after.owner}: {after.reason}")


def _page_changes(before: str, after: str) -> Iterator[tuple[RowState, str]]:
    if bool(before) != bool(after):
        yield RowState.ATTENTION, one_line(f"maintenance page on ({after})") if after else "maintenance page off"


def _version_changes(before: ActiveVersion, after: ActiveVersion) -> Iterator[tuple[RowState, str]]:
    old, new = before.container, after.container
    if (before.color, before.tag) != (after.color, after.tag):
        yield RowState.ATTENTION, f"{after.service}: {before} → {after}"
    elif old is None or new is None:
        return
    elif old.release != new.release:
        yield RowState.ATTENTION, f"{after.service}: release {old.release or '-'} → {new.release or '-'}, {after}"
    elif new.restarts > old.restarts:
        yield RowState.FAILED, f"{after.service} crashed and was restarted: {count(new.restarts, 'restart')}"
    elif new.running and old.started_at != new.started_at:
        yield RowState.ATTENTION, f"{after.service} was restarted"


def _check_changes(before: HealthReport | None, after: HealthReport) -> Iterator[tuple[RowState, str]]:
    failed = {check.name for check in before.failed} if before else set()
    for check in after.checks:
        if check.name in failed and check.ok:
            yield RowState.HEALTHY, f"{check.name} recovered"
        elif check.name not in failed and not check.ok:
            yield RowState.FAILED, one_line(f"{check.name} FAILED: {check.detail}")
    if after.checks:
        for name in sorted(failed - {check.name for check in after.checks}):
            yield RowState.ATTENTION, f"{name} is no longer checked"
