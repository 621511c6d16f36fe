"""The dashboard as lines: a screen full of them for a terminal, one a look for a pipe. It writes nothing.

What a line says never hangs on its colors alone. Texts are made safe before they are measured and cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from fabfile.report.dashboard import Dashboard, Happening, Mood, Watched, latency, remarks, servings, standing
from fabfile.report.text import clock_time, count, duration, fit, one_line, sparkline, width

#: A piece of a line and its style.
Span = tuple[str, str]
Line = tuple[Span, ...]

_MARKS = {Mood.BAD: "✗", Mood.LOST: "?", Mood.BUSY: "▲", Mood.WAITING: "…", Mood.GOOD: "●"}
_STYLES = {Mood.BAD: "bold red", Mood.LOST: "bold red", Mood.BUSY: "yellow", Mood.WAITING: "dim", Mood.GOOD: "green"}
_GAP = "  "
_NOW, _SEEN = 8, 6
_LONGEST_NAME, _NARROWEST, _WIDEST_SPARKLINE = 20, 40, 60
#: The lines above and between the hosts and the happenings, and how many happenings are worth more than details.
_FRAME, _EVENTS = 5, 5


@dataclass(frozen=True)
class View:
    """What the lines are made for: the size of the screen, the time, and how a text is made safe."""

    columns: int
    rows: int
    now: float
    safe: Callable[[str], str]
    zone: tzinfo | None = None

    def text(self, text: str) -> str:
        """The text on one line and safe to show."""
        return one_line(self.safe(text))

    def time(self, at: float) -> str:
        """The time of day."""
        return clock_time(at, self.zone)

    def standing(self, one: Watched) -> tuple[Mood, str]:
        """How the host stands now."""
        mood, said = standing(one, self.now, self.zone)
        return mood, self.text(said)


def screen(board: Dashboard, view: View) -> list[Line]:
    """As many lines as the screen has rows, or fewer; details give way before hosts, and hosts that are well first."""
    room = view.rows - _FRAME
    blocks = _blocks(board, view, max(room, 1))
    lines = [_title(board, view), (), _heads(board, view), *blocks]
    left = view.rows - len(lines) - 2
    if left > 0:
        lines += [(), (("EVENTS", "bold"),), *_events(board, view, left)]
    return [_cut(line, view.columns) for line in lines[: view.rows]]


def _cut(line: Line, columns: int) -> Line:
    """The line, or what of it a terminal narrower than any layout has room for."""
    kept: list[Span] = []
    for text, style in line:
        left = columns - sum(width(piece) for piece, _ in kept)
        kept.append((text if width(text) <= left else fit(text, left), style))
    return tuple(kept)


def _title(board: Dashboard, view: View) -> Line:
    moods = [view.standing(one)[0] for one in board.hosts]
    unwell = sum(mood in (Mood.BAD, Mood.LOST) for mood in moods)
    verdict = f"{unwell} NOT WELL" if unwell else "all well" if Mood.WAITING not in moods else "looking"
    name = f"{view.text(board.environment)}: {count(len(moods), 'host')}, "
    end = f"{view.time(view.now)}  Ctrl-C ends it"
    style = _STYLES[Mood.BAD if unwell else Mood.GOOD]
    gap = max(view.columns - width(name) - width(verdict) - width(end), 2)
    return (
        (name, "bold"),
        (verdict, style),
        (" " * gap, ""),
        (fit(end, view.columns - gap - width(name + verdict)), "dim"),
    )


@dataclass(frozen=True)
class _Columns:
    name: int
    standing: int
    sparkline: int


def _columns(board: Dashboard, view: View) -> _Columns:
    """The widths of the columns: what name, time and age leave belongs to the standing and the sparkline, 2 to 1."""
    name = min(max((width(view.text(one.host)) for one in board.hosts), default=4), _LONGEST_NAME)
    name = max(name, len("HOST"))
    left = max(view.columns, _NARROWEST) - len("● ") - name - _NOW - _SEEN - 4 * len(_GAP)
    drawn = min(max(left // 3, 0), _WIDEST_SPARKLINE)
    return _Columns(name, max(left - drawn, 4), drawn)


def _heads(board: Dashboard, view: View) -> Line:
    columns = _columns(board, view)
    cells = (
        fit("HOST", columns.name),
        fit("STATUS", columns.standing),
        fit("LATENCY", columns.sparkline),
        "NOW".rjust(_NOW),
        "SEEN".rjust(_SEEN),
    )
    return ((f"  {_GAP.join(cells)}", "dim"),)


def _blocks(board: Dashboard, view: View, room: int) -> list[Line]:
    """The hosts' lines with as much detail as there is room for, and a few events beside it: of all, of the unwell."""
    columns = _columns(board, view)
    moods = [view.standing(one)[0] for one in board.hosts]
    heads = [[_head(one, columns, view)] for one in board.hosts]
    full = [
        [*head, *_service_lines(one, columns, view), *_detail_lines(one, columns, view)]
        for head, one in zip(heads, board.hosts, strict=True)
    ]
    unwell = [full[at] if mood is not Mood.GOOD else heads[at] for at, mood in enumerate(moods)]
    events = min(len(board.happenings), _EVENTS)
    for blocks, spare in ((full, events), (unwell, events), (unwell, 1), (heads, 0)):
        if sum(map(len, blocks)) + spare <= room:
            return [line for block in blocks for line in block]
    order = sorted(range(len(heads)), key=lambda at: moods[at].value)
    shown = sorted(order[: room - 1])
    more: Line = ((f"  … and {count(len(heads) - len(shown), 'more host')}", "dim"),)
    return [*(heads[at][0] for at in shown), more]


def _head(one: Watched, columns: _Columns, view: View) -> Line:
    mood, said = view.standing(one)
    newest = one.latencies[-1] if one.latencies else None
    return (
        (f"{_MARKS[mood]} ", _STYLES[mood]),
        (fit(view.text(one.host), columns.name) + _GAP, "bold"),
        (fit(said, columns.standing) + _GAP, _STYLES[mood]),
        (fit(sparkline(one.latencies, columns.sparkline), columns.sparkline) + _GAP, "cyan"),
        ((f"{newest} ms" if newest is not None else "-").rjust(_NOW) + _GAP, ""),
        (_age(one, view.now).rjust(_SEEN), "dim"),
    )


def _age(one: Watched, now: float) -> str:
    """How long ago the newest answer came."""
    if one.report is None:
        return "never"
    seconds = max(int(now - one.looked_at), 0)
    return f"{seconds}s" if seconds < 60 else duration(seconds)


def _service_lines(one: Watched, columns: _Columns, view: View) -> list[Line]:
    """What each service serves with, as it was seen last."""
    texts = []
    for serving in servings(one.report) if one.report is not None else ():
        restarts = f", {count(serving.container.restarts, 'restart')}" if serving.container else ""
        texts.append(view.text(f"{serving.service} {serving}{restarts}"))
    indent = len("● ") + columns.name + len(_GAP)
    return [((f"{' ' * indent}{text}", "dim"),) for text in _wrapped(texts, view.columns - indent)]


def _wrapped(texts: Iterable[str], columns: int) -> list[str]:
    """The texts side by side, on as many lines as they need."""
    lines: list[str] = []
    for text in texts:
        if lines and width(f"{lines[-1]} · {text}") <= columns:
            lines[-1] = f"{lines[-1]} · {text}"
        else:
            lines.append(fit(text, columns).rstrip())
    return lines


def _detail_lines(one: Watched, columns: _Columns, view: View) -> list[Line]:
    """Why a host is not reached, what each failing check found, or a standing that is too long for its column."""
    mood, said = view.standing(one)
    texts: Sequence[str] = ()
    if one.lost_at is not None:
        texts = (one.why,)
    elif mood is Mood.BAD and one.report is not None:
        checks = [f"{check.name}: {check.detail}" for check in one.report.failed]
        texts = [*remarks(one.report.state), *checks]
    elif width(said) > columns.standing:
        texts = (said,)
    indent = len("● ") + columns.name + len(_GAP)
    room = view.columns - indent
    return [((" " * indent, ""), (fit(view.text(text), room).rstrip(), _STYLES[mood])) for text in texts]


def _events(board: Dashboard, view: View, room: int) -> list[Line]:
    shown = board.happenings[-room:]
    if not shown:
        return [(("none so far", "dim"),)]
    name = min(max((width(view.text(one.host)) for one in shown), default=0), _LONGEST_NAME)
    return [_event(one, name, view) for one in shown]


def _event(one: Happening, name: int, view: View) -> Line:
    begin = f"{view.time(one.at)}  {fit(view.text(one.host), name)}  "
    mark = f"{_MARKS[one.mood]} "
    room = max(view.columns - width(begin) - width(mark), 1)
    return (begin, ""), (mark, _STYLES[one.mood]), (fit(view.text(one.what), room).rstrip(), "")


def look_lines(one: Watched, fresh: Sequence[Happening], view: View) -> list[str]:
    """One look at one host for a reader without a terminal: a line for each thing that changed, and one of the host."""
    begin = f"{view.time(view.now)} {view.text(one.host)}  "
    mood, said = view.standing(one)
    parts = [said]
    if mood is Mood.LOST:
        parts[0] = f"{said} ({one.why})" if one.why else said
    elif one.report is not None:
        milliseconds = latency(one.report)
        parts += [f"{milliseconds} ms"] if milliseconds is not None else []
        parts += [f"{serving.service} {serving}" for serving in servings(one.report)]
    events = [f"{begin}{_MARKS[happened.mood]} {view.text(happened.what)}" for happened in fresh]
    return [*events, begin + _GAP.join(view.text(part) for part in parts)]
