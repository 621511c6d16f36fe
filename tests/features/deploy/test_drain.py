"""The drain step, run under `sh` with a stand-in for `ss`: how long an old color keeps running."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Color
from rolling_upgrade.engine.progress import parse, without_progress
from tests.support.sample import application, backend, frontend
from tests.support.shell import Programs, sh
from tests.support.states import as_wanted, container, outdated, plan, text

CONNECTED = "0 0 127.0.0.1:18080 127.0.0.1:40000"


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    programs = Programs(tmp_path / "bin")
    programs.clock()
    programs.add("podman")
    return programs


def drain(programs: Programs, connections: list[str]) -> subprocess.CompletedProcess[str]:
    """Drain the blue backend; `connections` has the connections at each second, separated by `|`."""
    state = replace(as_wanted(application()), containers=(outdated(backend()), container(frontend())))
    answer = programs.sequence("ss", connections)
    programs.add(
        "ss", f'if [ "$1" = -Htln ]; then echo "LISTEN 0 9 127.0.0.1:18080"; else\n{answer} | tr "|" "\\n"\nfi'
    )
    return sh(text(plan(state), "drain"), path=programs.path)


def counts(programs: Programs) -> list[list[str]]:
    """Return the calls of `ss` that count connections."""
    return [call for call in programs.calls("ss") if "established" in call]


def stops(programs: Programs) -> list[list[str]]:
    return [call[1:] for call in programs.calls("podman") if call[1] == "stop"]


def test_drain_color_without_connections_is_checked_twice_and_stopped(programs: Programs) -> None:
    done = drain(programs, [""])

    assert (done.returncode, len(counts(programs))) == (0, 2)
    assert stops(programs) == [["stop", "--ignore", "--time", "4", "shop-backend-blue"]]


def test_drain_connection_between_two_checks_restarts_the_count(programs: Programs) -> None:
    drain(programs, ["", CONNECTED, "", ""])

    assert len(counts(programs)) == 4


def test_drain_checks_only_the_old_color(programs: Programs) -> None:
    drain(programs, [""])

    assert counts(programs)[0][-1] == "( sport = :18080 )"


def test_drain_busy_color_is_stopped_at_the_deadline_and_reported(programs: Programs) -> None:
    done = drain(programs, [CONNECTED])

    assert "backend: blue still had connections after 6 s" in done.stdout
    assert (len(counts(programs)), len(stops(programs))) == (7, 1)


def test_drain_reports_the_connections_and_the_seconds_that_are_left(programs: Programs) -> None:
    done = drain(programs, [f"{CONNECTED}|0 0 [::1]:18080 *", CONNECTED, "", CONNECTED, ""])

    assert reported(done) == [
        "backend: 2 connections, 6 s left",
        "backend: 1 connection, 5 s left",
        "backend: 0 connections, 4 s left",
        "backend: 1 connection, 3 s left",
        "backend: 0 connections, 2 s left",
    ]


def reported(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the texts of the progress."""
    return [found.text for line in done.stdout.splitlines() if (found := parse(line))]


def test_drain_stopped_color_does_not_wait(programs: Programs) -> None:
    """Nobody listens on its port."""
    state = replace(as_wanted(application()), containers=(outdated(backend()), container(frontend())))
    programs.add("ss")

    assert sh(text(plan(state), "drain"), path=programs.path).returncode == 0
    assert (counts(programs), len(stops(programs))) == ([], 1)


def both_drain(programs: Programs, connections: str) -> subprocess.CompletedProcess[str]:
    """Drain both blue colors; `connections` is a body that prints the connections of port $port."""
    services = backend(), frontend()
    app = application(*services)
    state = replace(as_wanted(app), containers=tuple(outdated(service) for service in services))
    programs.add("ss", f'case "$*" in -Htln*) echo LISTEN ;; *) port=${{5%% *}}\n{connections} ;; esac')
    programs.add("date", "echo 0")
    programs.add("sleep", "exec /bin/sleep 0.02")
    return sh(text(plan(state, app), "drain"), path=programs.path)


BACKEND, FRONTEND = (f"*{service.port(Color.BLUE)}*" for service in (backend(), frontend()))


def test_drain_waits_for_all_colors_at_once(programs: Programs) -> None:
    """The backend's connection ends once the frontend was checked: one after the other would never end."""
    done = both_drain(
        programs,
        f'case "$*" in {BACKEND}) [ -e "$here/checked" ] || echo connected ;; {FRONTEND}) : > "$here/checked" ;; esac',
    )

    assert (done.returncode, without_progress(done.stdout)) == (0, "")
    assert sorted(call[-1] for call in stops(programs)) == ["shop-backend-blue", "shop-frontend-blue"]
    assert {text.partition(":")[0] for text in reported(done)} == {"backend", "frontend"}


def test_drain_stops_a_color_while_another_one_is_still_connected(programs: Programs) -> None:
    """A drained color that kept listening could get a late upload, and would be stopped in the middle of it."""
    programs.add("podman", 'case "$*" in *backend*) : > "$here/stopped" ;; esac')

    done = both_drain(programs, f'case "$*" in {FRONTEND}) [ -e "$here/stopped" ] || echo connected ;; esac')

    assert done.returncode == 0
    assert [call[-1] for call in stops(programs)] == ["shop-backend-blue", "shop-frontend-blue"]


def test_drain_with_a_failed_stop_fails_after_all_others_are_stopped(programs: Programs) -> None:
    programs.add("podman", 'case "$*" in *backend*) exit 125 ;; esac; exec /bin/sleep 0.2')

    done = both_drain(programs, ":")

    assert done.returncode == 1
    assert sorted(call[-1] for call in stops(programs)) == ["shop-backend-blue", "shop-frontend-blue"]
