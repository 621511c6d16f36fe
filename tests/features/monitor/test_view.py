"""The lines of the dashboard for screens of different sizes, and without a screen."""

from __future__ import annotations

from functools import partial

import pytest

from rolling_upgrade.console.text import width
from rolling_upgrade.engine.masking import safe
from rolling_upgrade.engine.model import Color, HealthReport
from rolling_upgrade.errors import HostUnreachable, RollingError
from rolling_upgrade.features.monitor.dashboard import Dashboard, MonitoredHost, update
from rolling_upgrade.features.monitor.view import View, check_lines, screen_lines
from tests.support.builders import NOW
from tests.support.reports import report

pytestmark = pytest.mark.usefixtures("utc")
LOST = HostUnreachable("web2: cannot reach deploy@10.0.0.2:22 (timed out).")


def board(**found: HealthReport | RollingError) -> Dashboard:
    made = Dashboard("production", tuple(MonitoredHost(name, 10) for name in found))
    for name, result in found.items():
        made, _ = update(made, name, result, NOW)
    return made


def view(columns: int = 80, rows: int = 24, *secrets: str, now: float = NOW + 4) -> View:
    return View(columns, rows, now, partial(safe, secrets=secrets))


def drawn(made: Dashboard, seen: View) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in screen_lines(made, seen)]


def test_screen_lines_of_80_columns_show_everything() -> None:
    made = board(web1=report(), web2=LOST, web3=report(chain="502", restarts=2, lock="deploy v2"))

    assert drawn(made, view()) == [
        "production: 3 hosts, 2 UNHEALTHY                          03:12:49  Ctrl-C quits",
        "",
        "  HOST  STATUS                               LATENCY                 NOW    SEEN",
        "● web1  healthy                              ▁                      7 ms      4s",
        "        backend blue v1, 0 restarts",
        "? web2  UNREACHABLE since 03:12:45           ×                         -   never",
        "        cannot reach deploy@10.0.0.2:22 (timed out).",
        "✗ web3  FAILED: full chain; locked by ann:…  ×                         -      4s",
        "        backend blue v1, 2 restarts",
        "        locked by ann: deploy v2",
        "        full chain: HTTP 502",
        "",
        "EVENTS",
        "03:12:45  web2  ? unreachable: cannot reach deploy@10.0.0.2:22 (timed out).",
        "03:12:45  web3  ✗ full chain FAILED: HTTP 502",
    ]


def test_screen_lines_of_160_columns_give_the_room_to_status_and_latency() -> None:
    made = board(web1=report())
    for number in range(100):
        made, _ = update(made, "web1", report(milliseconds=number), NOW)

    row = drawn(made, view(160))[3]

    assert width(row) == 160
    assert sum(row.count(bar) for bar in "▅▆▇█") == 44
    assert row.endswith("99 ms      4s")


@pytest.mark.parametrize("columns", [1, 20, 40, 60, 80, 81, 120, 160, 300])
@pytest.mark.parametrize("rows", [1, 3, 6, 10, 24, 60])
def test_screen_lines_fit_any_size(columns: int, rows: int) -> None:
    busy = report(lock="deploy " + "long " * 40, chain="502")
    made = board(**{f"web{number}": busy if number % 3 else LOST for number in range(12)})

    lines = drawn(made, view(columns, rows))

    assert len(lines) <= rows
    assert max(map(width, lines)) <= columns


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (16, ["✗ web1", "backe", "full ", "● web2", "backe", "● web3", "backe"]),
        (12, ["✗ web1", "backe", "full ", "● web2", "● web3"]),
        (9, ["✗ web1", "● web2", "● web3"]),
    ],
)
def test_screen_lines_of_a_short_screen_lose_details_of_healthy_hosts_first(rows: int, expected: list[str]) -> None:
    made = board(web1=report(chain="502"), web2=report(), web3=report())

    lines = drawn(made, view(80, rows))

    hosts = lines[3 : lines.index("", 3)] if "" in lines[3:] else lines[3:]
    assert [line[8:13] if line[0] == " " else line[:6] for line in hosts] == expected


def test_screen_lines_without_room_for_all_hosts_show_the_unhealthy_ones() -> None:
    hosts: dict[str, HealthReport | RollingError] = {f"web{number}": report() for number in range(1, 9)}

    lines = drawn(board(**hosts | {"web7": report(chain="502"), "web8": LOST}), view(80, 9))

    assert [line[:6] for line in lines[3:]] == ["● web1", "✗ web7", "? web8", "  … an"]
    assert lines[-1] == "  … and 5 more hosts"


def test_screen_lines_wide_characters_do_not_shift_columns() -> None:
    made = board(網頁一=report(), web2=report())

    widths = {width(line) for line in drawn(made, view())[3::2][:2]}

    assert widths == {80}


def test_screen_lines_mask_secrets_and_remove_control_characters() -> None:
    made = board(web1=report(lock="[red]x[/red] hunter22\x1b[2J\x1b]0;title\x07\nnext"))

    text = "\n".join(drawn(made, view(160, 24, "hunter22")))

    assert "locked by ann: [red]x[/red] •••••• next" in text
    assert "\x1b" not in text
    assert "hunter22" not in text


def test_screen_lines_host_without_a_report_is_connecting() -> None:
    lines = drawn(Dashboard("production", (MonitoredHost("web1", 10),)), view())

    assert lines[0].startswith("production: 1 host, connecting ")
    assert lines[3].startswith("… web1  connecting ")
    assert lines[3].endswith(" -   never")


def test_check_lines_are_one_for_the_host_and_one_for_each_event() -> None:
    before = board(web1=report())
    after, fresh = update(before, "web1", report(color=Color.GREEN, tag="v2", chain="502"), NOW + 1)
    lost, loss = update(after, "web1", HostUnreachable("web1: cannot reach it."), NOW + 2)
    again, none = update(lost, "web1", HostUnreachable("web1: refused the login."), NOW + 3)

    assert check_lines(before.host("web1"), (), view(now=NOW)) == ["03:12:45 web1  healthy  7 ms  backend blue v1"]
    assert check_lines(after.host("web1"), fresh, view(now=NOW + 1)) == [
        "03:12:46 web1  ▲ backend: blue v1 → green v2",
        "03:12:46 web1  ✗ full chain FAILED: HTTP 502",
        "03:12:46 web1  FAILED: full chain  backend green v2",
    ]
    assert check_lines(lost.host("web1"), loss, view(now=NOW + 2)) == [
        "03:12:47 web1  ? unreachable: cannot reach it.",
        "03:12:47 web1  UNREACHABLE since 03:12:47 (cannot reach it.)",
    ]
    assert check_lines(again.host("web1"), none, view(now=NOW + 3)) == [
        "03:12:48 web1  UNREACHABLE since 03:12:47 (refused the login.)"
    ]
