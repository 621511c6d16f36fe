"""The live view: looks in, rows, drawings and events out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest

from fabfile.model import Check, Color, Container, HealthReport, HostState, Image, Kind, Lock
from fabfile.report.dashboard import CALM_MILLISECONDS, Dashboard, Happening, Mood, Row, clipped, sparkline, status
from fabfile.report.output import Output
from fabfile.report.screen import FullScreen, Lines
from fabfile.report.text import width

NOW = datetime(2026, 11, 23, 18, 10, 2).astimezone().timestamp()
LOCK = Lock("t1", "ann", "laptop", 41, "deploy v2", 0, 90)
CHAIN = Check(Kind.HTTP, "full chain", True, "HTTP 200", "frontend", 12)
DISK = Check(Kind.DISK, "disk /", True, "40 % free")


def backend(tag: str = "v1", color: Color = Color.BLUE, restarts: int = 0) -> Container:
    digest = "sha256:" + tag.encode().hex().ljust(64, "0")
    name = f"memoryark-backend-{color.value}"
    return Container(name, "backend", color, True, "running", image=Image("r/b", tag, digest), restarts=restarts)


def report(*checks: Check, container: Container | None = None, lock: Lock | None = None) -> HealthReport:
    live = container or backend()
    state = HostState("web1", active=(("backend", live.color),), containers=(live,), lock=lock)
    return HealthReport(state, checks or (CHAIN, DISK))


def texts(*reports: HealthReport) -> list[str]:
    """What happened from the first look to the last."""
    row, found = Row("web1"), []
    for number, one in enumerate(reports):
        row, happenings = row.seen(one, NOW + number)
        found += [happening.text for happening in happenings]
    return found


GOOD = report()


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (GOOD, []),
        (report(CHAIN, replace(DISK, ok=False, detail="4 % free")), ["disk / FAILED: 4 % free"]),
        (report(container=backend("v2", Color.GREEN)), ["backend: blue v1 → green v2"]),
        (report(container=backend(restarts=2)), ["backend: crashed and was restarted, 2 restarts so far"]),
        (report(lock=LOCK), ["locked by ann: deploy v2"]),
    ],
)
def test_seen_tells_what_changed(after: HealthReport, expected: list[str]) -> None:
    assert texts(GOOD, after, after) == expected


def test_seen_tells_what_is_over() -> None:
    ill = report(CHAIN, replace(DISK, ok=False), lock=LOCK)

    assert texts(ill, GOOD) == ["disk / FAILED: 40 % free", "lock released", "disk / is well again"]


def test_row_that_is_lost_tells_it_once_and_that_it_is_back() -> None:
    row, _ = Row("web1").seen(GOOD, NOW)
    row, lost = row.asked(NOW + 1).missed("web1: connection\nrefused", NOW + 1)
    row, again = row.missed("web1: connection refused", NOW + 2)
    assert ([one.text for one in lost], again) == (["NOT REACHED: web1: connection refused"], ())
    assert status(row, NOW + 3) == "NOT REACHED since 18:10:03: web1: connection refused"

    row, back = row.seen(GOOD, NOW + 4)

    assert [one.text for one in back] == ["reached again"]
    assert (status(row, NOW + 5), row.latencies) == ("well", (12, None, None, 12))


def test_status_of_a_host_that_hangs_says_since_when() -> None:
    row, _ = Row("web1").seen(GOOD, NOW)

    assert status(row.asked(NOW + 30), NOW + 39) == "well"
    assert status(row.asked(NOW + 30), NOW + 75) == "no answer for 45 s"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), ""),
        ((0, 1, 2), "▁▁▁"),
        ((CALM_MILLISECONDS,), "█"),
        ((0, None, 100, 50), "▁×█▄"),
    ],
)
def test_sparkline_is_higher_for_slower_and_has_gaps(values: Sequence[int | None], expected: str) -> None:
    assert sparkline(values) == expected


def board(hosts: int, *, ill: int = 0) -> Dashboard:
    """So many hosts, the last ones of them unwell."""
    found = Dashboard("production", 30, {f"web{number}": Row(f"web{number}") for number in range(hosts)})
    for number in range(hosts):
        checks = (CHAIN, replace(DISK, ok=number < hosts - ill))
        found.put(Row(f"web{number}").seen(report(*checks), NOW)[0])
    return found


@pytest.mark.parametrize("columns", [20, 80, 160])
@pytest.mark.parametrize(("hosts", "height"), [(2, 24), (10, 24), (40, 24), (40, 4)])
def test_lines_fit_on_the_screen(columns: int, hosts: int, height: int) -> None:
    found = board(hosts, ill=1)
    found.put(found.rows["web0"], [Happening(NOW, "web0", "x" * 300)] * 50)

    lines = found.lines(columns, height, NOW)

    assert len(lines) <= height
    assert max(width(line.text) for line in lines) <= columns


def test_lines_of_two_hosts_show_all_that_is_known() -> None:
    found = board(2, ill=1)
    found.put(found.rows["web1"], [Happening(NOW, "web1", "disk / FAILED: 4 % free", Mood.BAD)])

    assert [line.text.rstrip() for line in found.lines(80, 24, NOW)] == [
        "production: 2 hosts, 1 NOT WELL · every 30 s · Ctrl-C ends it",
        "",
        "web0  ▅                           12 ms  well",
        "      backend blue v1",
        "web1  ▅                           12 ms  FAILED: disk /",
        "      backend blue v1",
        "",
        "LAST EVENTS",
        "18:10:02  web1  disk / FAILED: 4 % free",
    ]


def test_lines_without_room_leave_out_what_is_well() -> None:
    lines = [line.text for line in board(40, ill=2).lines(80, 8, NOW)]

    assert [text.split(" ")[0] for text in lines[2:4]] == ["web38", "web39"]
    assert lines[-1] == "… and 35 more hosts"


def test_clipped_cuts_by_columns_not_by_characters() -> None:
    assert [clipped("備份完成", columns) for columns in (8, 7, 4)] == ["備份完成", "備份完…", "備…"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_full_screen_shows_hostile_text_as_text() -> None:
    stream = Terminal()
    found = Dashboard("production", 30, {"web1": Row("web1")})
    found.put(*Row("web1").missed("[red]s3cret\x1b[2J", NOW))
    with FullScreen(found, Output(stream, ("s3cret",)), {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}) as screen:
        screen.draw(NOW)

    assert "[red]" in stream.getvalue()
    assert "s3cret" not in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()


def test_full_screen_draws_again_only_when_something_changed() -> None:
    stream = Terminal()
    found = board(1)
    with FullScreen(found, Output(stream), {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}) as screen:
        screen.draw(NOW)
        size = len(stream.getvalue())
        screen.draw(NOW + 1)
        assert len(stream.getvalue()) == size
        found.put(*found.rows["web0"].missed("gone", NOW + 1))
        screen.draw(NOW + 2)
        assert len(stream.getvalue()) > size


def test_lines_for_a_pipe_have_an_event_each_and_a_look_each() -> None:
    stream = io.StringIO()
    found = board(1)
    screen = Lines(found, Output(stream))
    row, happenings = found.rows["web0"].missed("gone", NOW)
    found.put(row, happenings)

    screen.looked("web0", happenings, NOW)

    assert stream.getvalue().splitlines() == [
        "18:10:02  web0  NOT REACHED: gone",
        "18:10:02  web0  -  NOT REACHED since 18:10:02: gone",
    ]
