"""What `inv monitor` shows: a row per host, a drawing of its latency, and what changed from look to look. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from fabfile.model import Check, Container, HealthReport
from fabfile.report.text import clock_time, count, one_line, pad, width

#: How many looks a drawing has, and how many events are remembered.
DRAWN, REMEMBERED = 24, 200
#: Milliseconds below which a drawing shows no difference.
CALM_MILLISECONDS = 20
#: How long an answer may take before the row says so.
SLOW_SECONDS = 10.0
_LEVELS, _GAP = "▁▂▃▄▅▆▇█", "×"


class Mood(Enum):
    """How a line is meant; colors only repeat what its words say."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"
    QUIET = "quiet"


@dataclass(frozen=True)
class Line:
    """One line of the screen."""

    text: str
    mood: Mood = Mood.PLAIN


@dataclass(frozen=True)
class Happening:
    """One thing that changed on a host; `at` is Unix seconds on this machine's clock."""

    at: float
    host: str
    text: str
    mood: Mood = Mood.PLAIN

    @property
    def line(self) -> str:
        """As it is shown."""
        return f"{clock_time(self.at)}  {self.host}  {self.text}"


@dataclass(frozen=True)
class Row:
    """What is known of one host: its last report, since when it is lost and why, and its latest latencies.

    `asked_at` is when a question began that has no answer yet, None between two looks.
    """

    host: str
    report: HealthReport | None = None
    looked_at: float = 0.0
    lost: str = ""
    lost_at: float = 0.0
    latencies: tuple[int | None, ...] = ()
    asked_at: float | None = None

    def asked(self, at: float) -> Row:
        """The row while it waits for an answer."""
        return replace(self, asked_at=at)

    def seen(self, report: HealthReport, at: float) -> tuple[Row, tuple[Happening, ...]]:
        """The row after a look, and what changed since the one before."""
        texts = [] if self.report is None and not self.lost else [*self._back(), *_changes(self.report, report)]
        if self.report is None:
            texts += [(f"{one.name} FAILED: {one.detail}", Mood.BAD) for one in report.failed]
        row = Row(self.host, report, at, latencies=(*self.latencies, _latency(report))[-DRAWN:])
        return row, tuple(Happening(at, self.host, one_line(text), mood) for text, mood in texts)

    def missed(self, why: str, at: float) -> tuple[Row, tuple[Happening, ...]]:
        """The row after a look that did not reach the host; only the first of several is something new."""
        row = replace(self, lost=one_line(why), latencies=(*self.latencies, None)[-DRAWN:], asked_at=None)
        if self.lost:
            return row, ()
        return replace(row, lost_at=at), (Happening(at, self.host, f"NOT REACHED: {row.lost}", Mood.BAD),)

    def _back(self) -> Iterator[tuple[str, Mood]]:
        if self.lost:
            yield "reached again", Mood.GOOD


@dataclass
class Dashboard:
    """All rows, in the order of the inventory, and the latest events."""

    environment: str
    interval_seconds: float
    rows: dict[str, Row]
    happenings: deque[Happening] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def put(self, row: Row, happenings: Sequence[Happening] = ()) -> None:
        """Take in what became of a host."""
        self.rows[row.host] = row
        self.happenings.extend(happenings)

    def lines(self, columns: int, height: int, now: float) -> list[Line]:
        """The whole screen, no line longer and no more of them than there is room for."""
        ill = sum(1 for row in self.rows.values() if not _is_well(row))
        state = f"{ill} NOT WELL" if ill else "all well"
        if any(row.report is None and not row.lost for row in self.rows.values()):
            state = "looking"
        head = f"{self.environment}: {count(len(self.rows), 'host')}, {state}"
        found = [Line(f"{head} · every {self.interval_seconds:g} s · Ctrl-C ends it"), Line("")]
        found += self._hosts(height - len(found), now)
        room = height - len(found) - 2
        if room > 0 and self.happenings:
            found += [Line(""), Line("LAST EVENTS", Mood.QUIET)]
            found += [Line(one.line, one.mood) for one in list(self.happenings)[-room:]]
        return [replace(line, text=clipped(line.text, columns)) for line in found[:height]]

    def _hosts(self, room: int, now: float) -> Iterator[Line]:
        names = max(map(width, self.rows), default=0)
        whole = 2 * len(self.rows) <= room
        # Where there is no room for all, those that are well are left out first.
        rows = sorted(self.rows.values(), key=_is_well) if len(self.rows) > room else list(self.rows.values())
        shown = rows if len(rows) <= room else rows[: max(room - 1, 0)]
        for row in shown:
            well = _is_well(row)
            text = f"{pad(row.host, names)}  {pad(sparkline(row.latencies), DRAWN)} {_took(row):>8}  {status(row, now)}"
            yield Line(text, Mood.GOOD if well else Mood.PLAIN if row.report is None and not row.lost else Mood.BAD)
            if whole:
                yield Line(f"{' ' * names}  {_services(row)}", Mood.QUIET)
        if len(shown) < len(rows):
            yield Line(f"… and {count(len(rows) - len(shown), 'more host')}", Mood.QUIET)


def status(row: Row, now: float) -> str:
    """How the host is, in words."""
    if row.asked_at is not None and now - row.asked_at > SLOW_SECONDS:
        return f"no answer for {now - row.asked_at:.0f} s"
    if row.lost:
        return f"NOT REACHED since {clock_time(row.lost_at)}: {row.lost}"
    if row.report is None:
        return "…"
    state = row.report.state
    held = f", locked by {state.lock.owner}: {state.lock.reason}" if state.lock else ""
    page = ", maintenance page up" if state.fact("maintenance") else ""
    failed = ", ".join(check.name for check in row.report.failed)
    return one_line(f"{f'FAILED: {failed}' if failed else 'well'}{page}{held}")


def sparkline(values: Sequence[int | None]) -> str:
    """A block a value, higher for slower; what had no answer is a cross. The slowest of the row fills its block."""
    top = max([CALM_MILLISECONDS, *(value for value in values if value is not None)])
    return "".join(_GAP if value is None else _LEVELS[min(value * len(_LEVELS) // (top + 1), 7)] for value in values)


def clipped(text: str, columns: int) -> str:
    """The text cut to so many columns of a terminal."""
    if width(text) <= columns:
        return text
    kept = text
    while kept and width(kept) > columns - 1:
        kept = kept[:-1]
    return f"{kept}…"


def _is_well(row: Row) -> bool:
    return row.report is not None and not row.lost and not row.report.failed


def _visitor(report: HealthReport) -> Check | None:
    """The request that goes the longest way."""
    checks = {check.name: check for check in report.checks}
    return checks.get("full chain") or checks.get("site")


def _latency(report: HealthReport) -> int | None:
    check = _visitor(report)
    return check.milliseconds if check is not None and check.answered else None


def _took(row: Row) -> str:
    last = row.latencies[-1] if row.latencies else None
    return f"{last} ms" if last is not None else "-"


def _live(report: HealthReport | None) -> Mapping[str, Container]:
    """The container of each service that its flag names."""
    if report is None:
        return {}
    state = report.state
    return {one.service: one for one in state.containers if one.color is state.active_color(one.service)}


def _tag(container: Container) -> str:
    return container.image.tag or container.image.digest[7:19]


def _services(row: Row) -> str:
    """Each service with color, tag and restarts."""
    parts = []
    for name, one in _live(row.report).items():
        restarts = f", {count(one.restarts, 'restart')}" if one.restarts else ""
        parts.append(f"{name} {one.color.value} {_tag(one)}{restarts}")
    return " · ".join(parts)


def _changes(before: HealthReport | None, after: HealthReport) -> Iterator[tuple[str, Mood]]:
    """What differs between two looks, in words."""
    if before is None:
        return
    yield from _of_containers(_live(before), _live(after))
    old, new = before.state, after.state
    if (old.lock and old.lock.token) != (new.lock and new.lock.token):
        yield (f"locked by {new.lock.owner}: {new.lock.reason}" if new.lock else "lock released"), Mood.PLAIN
    if bool(old.fact("maintenance")) != bool(new.fact("maintenance")):
        yield ("maintenance page up" if new.fact("maintenance") else "maintenance page gone"), Mood.PLAIN
    failed = {check.name for check in before.failed}
    for check in after.checks:
        if check.ok and check.name in failed:
            yield f"{check.name} is well again", Mood.GOOD
        if not check.ok and check.name not in failed:
            yield f"{check.name} FAILED: {check.detail}", Mood.BAD


def _of_containers(before: Mapping[str, Container], after: Mapping[str, Container]) -> Iterator[tuple[str, Mood]]:
    for name, one in after.items():
        old = before.get(name)
        if old is None:
            continue
        ways = [f"{each.color.value} {_tag(each)}" for each in (old, one)]
        if ways[0] != ways[1]:
            yield f"{name}: {ways[0]} → {ways[1]}", Mood.PLAIN
        elif one.name == old.name and one.restarts > old.restarts:
            yield f"{name}: crashed and was restarted, {count(one.restarts, 'restart')} so far", Mood.BAD
