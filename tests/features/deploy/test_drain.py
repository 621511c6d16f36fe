"""The drain step, run under `sh`: how long an old color stays, told by a stand-in for `ss`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.running import Programs, sh
from tests.support.sample import application, backend, frontend
from tests.support.states import as_wanted, container, outdated, plan, text

CONNECTED = "0 0 127.0.0.1:18080 127.0.0.1:40000"


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    made = Programs(tmp_path / "bin")
    made.clock()
    made.add("podman")
    return made


def drain(programs: Programs, connections: list[str]) -> subprocess.CompletedProcess[str]:
    """The backend's blue ends after green took over; one line of `ss` a second, empty when nothing is connected."""
    from dataclasses import replace

    state = replace(as_wanted(application()), containers=(outdated(backend()), container(frontend())))
    programs.add("ss", programs.sequence("ss", connections))
    return sh(text(plan(state), "drain"), path=programs.path)


def stops(programs: Programs) -> list[list[str]]:
    return [call[1:] for call in programs.calls("podman") if call[1] == "stop"]


def test_drain_quiet_color_is_looked_at_twice_and_stopped(programs: Programs) -> None:
    done = drain(programs, [""])

    assert (done.returncode, len(programs.calls("ss"))) == (0, 2)
    assert stops(programs) == [["stop", "--ignore", "--time", "4", "shop-backend-blue"]]


def test_drain_connection_between_two_quiet_looks_starts_the_count_again(programs: Programs) -> None:
    drain(programs, ["", CONNECTED, "", ""])

    assert len(programs.calls("ss")) == 4


def test_drain_asks_for_the_old_color_alone(programs: Programs) -> None:
    drain(programs, [""])

    assert programs.calls("ss")[0][-1] == "( sport = :18080 )"


def test_drain_busy_color_is_stopped_at_the_deadline_and_said(programs: Programs) -> None:
    done = drain(programs, [CONNECTED])

    assert "backend: blue still had connections after 6 s" in done.stdout
    assert (len(programs.calls("ss")), len(stops(programs))) == (7, 1)


def test_drain_missing_container_is_not_waited_for(programs: Programs) -> None:
    programs.add("podman", '[ "$1 $2" != "container exists" ]')

    assert drain(programs, [CONNECTED]).returncode == 0
    assert programs.calls("ss") == []
