"""The state of watchdogs, parsed from the output of hosts, as a table and as JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.features.watchdog.view import WatchdogStatus, watchdog_json, watchdog_lines

ANSWER = """\
installed=yes
version=0123
uptime=5000
ActiveState=active
SubState=running
NRestarts=2
ActiveEnterTimestampMonotonic=1000000000
memory_kb=15000
ticks=400
ticks_a_second=100
alive=3
memory={"boot": "b", "memory": {"recoveries": [1.5, 2.5], "given_up": false}}
last=2026-11-23 07:00:00 restart backend: done = ok
"""
WATCHDOG = WatchdogStatus(
    True, True, True, 3, 2, 0.1, 15_360_000, 2, False, "2026-11-23 07:00:00 restart backend: done = ok"
)


def test_read_answer_of_a_host() -> None:
    assert WatchdogStatus.read(ANSWER, "0123") == WATCHDOG


def test_read_another_version_is_not_current() -> None:
    assert not WatchdogStatus.read(ANSWER, "4567").current


@pytest.mark.parametrize(
    "memory", ["", "{", "[]", "null", "7", "{}", '{"memory": 7}', '{"memory": []}', '{"memory": {"given_up": null}}']
)
def test_read_malformed_memory_has_no_recoveries(memory: str) -> None:
    rows = [row if not row.startswith("memory=") else f"memory={memory}" for row in ANSWER.splitlines()]

    found = WatchdogStatus.read("\n".join(rows), "0123")

    assert found == replace(WATCHDOG, recoveries=0)


@pytest.mark.parametrize("text", ["", "installed=no\nversion=\nuptime=\nalive=-5\nmemory=\nlast=\n", "Welcome!\n"])
def test_read_host_without_a_watchdog(text: str) -> None:
    assert WatchdogStatus.read(text, "0123") == WatchdogStatus(False, False, False, 0, 0, 0.0, 0, 0, False, "")


def test_read_missing_numbers_are_zero() -> None:
    unknown = ANSWER.replace("15000", "").replace("400\n", "\n")

    found = WatchdogStatus.read(unknown, "0123")

    assert (found.memory_bytes, found.cpu_percent) == (0, 0.0)


def rows(**changes: object) -> list[str]:
    return watchdog_lines({"web1": replace(WATCHDOG, **changes)}, {}, "production")  # type: ignore[arg-type]


def test_watchdog_lines_running_watchdog_has_one_line() -> None:
    lines = rows()

    assert len(lines) == 2
    assert lines[0].split()[:3] == ["HOST", "WATCHDOG", "LAST"]
    assert [cell.strip() for cell in lines[1].split("  ") if cell] == [
        "web1",
        "running",
        "3.0s ago",
        "2",
        "2",
        WATCHDOG.last,
    ]


@pytest.mark.parametrize(
    ("changes", "state", "next_step"),
    [
        (
            {"installed": False, "runs": False},
            "not installed",
            "rolling-upgrade monitor.install --env production --hosts web1",
        ),
        ({"runs": False}, "NOT RUNNING", "rolling-upgrade monitor.install --env production --hosts web1"),
        ({"current": False}, "running", "rolling-upgrade monitor.install --env production"),
        ({"given_up": True}, "gave up", "rolling-upgrade inspect --env production --host web1"),
    ],
)
def test_watchdog_lines_failed_watchdog_has_the_next_command(
    changes: dict[str, object], state: str, next_step: str
) -> None:
    lines = rows(**changes)

    assert f"web1  {state}" in lines[1]
    assert len(lines) == 3
    assert lines[2].startswith("web1: ")
    assert lines[2].endswith(next_step)


def test_watchdog_lines_unreachable_host_has_its_error() -> None:
    assert watchdog_lines({}, {"web2": "timed out"}, "production")[-1] == "web2  UNREACHABLE: timed out"


def test_watchdog_json_has_every_host() -> None:
    found = watchdog_json({"web1": WATCHDOG}, {"web2": "timed out"}, "production")["hosts"]

    assert (found[0]["host"], found[0]["runs"], found[0]["memory_bytes"]) == ("web1", True, 15_360_000)
    assert found[1] == {"host": "web2", "error": "timed out"}
