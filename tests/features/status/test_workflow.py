"""`inv status`: the state of an environment as lines and as JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from rolling_upgrade.console.output import print_result
from rolling_upgrade.engine.model import Color, HostState, Lock, Outcome, Release
from rolling_upgrade.features.status.workflow import print_status, problems, status_json, status_lines, uptime_seconds
from tests.support.builders import NOW, Terminal, container, environment, state


def shown(states: Mapping[str, HostState], *, unreachable: Mapping[str, str] | None = None) -> str:
    out = io.StringIO()
    print_status(status_lines(environment("web1", "web2"), states, unreachable or {}), out, (), {})
    return out.getvalue()


def as_json(states: Mapping[str, HostState], *, unreachable: Mapping[str, str] | None = None) -> Any:
    out = io.StringIO()
    print_result(status_json(environment("web1", "web2"), states, unreachable or {}), stream=out)
    return json.loads(out.getvalue())


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_status_healthy_host_shows_each_service() -> None:
    text = shown({"web1": state()})

    assert ["backend", "blue", "v1.0.0", "ab12ab12ab12", "12m", "45s", "2", "running"] in rows(text)
    assert ["probe", "http://127.0.0.1:8080/api/health", "ok", "200"] in rows(text)
    assert text.splitlines()[-1] == "production: 1 host, healthy"


def test_status_omits_a_host_that_was_not_observed() -> None:
    assert "web2" not in shown({"web1": state()})


def test_status_unreachable_host_makes_the_environment_unhealthy() -> None:
    text = shown({"web1": state()}, unreachable={"web2": "timed out after 10 s"})

    assert "web2  UNREACHABLE: timed out after 10 s" in text
    assert text.splitlines()[-1] == "production: 2 hosts, UNHEALTHY: web2"


def test_status_failed_probe_is_a_problem() -> None:
    text = shown({"web1": state(ok=False)})

    assert "web1 (10.0.0.1)  UNHEALTHY" in text
    assert "  ! http://127.0.0.1:8080/api/health: 502" in text


def test_status_shows_backup_release_and_lock() -> None:
    release = Release("r1", "2026-11-23T03:00:00Z", "deploy", Outcome.UNDONE, (), owner="ann")
    good = replace(release, id="r0", outcome=Outcome.GOOD)
    lock = Lock("t", "bob", "laptop", 1, "deploy v2", NOW - 5, NOW + 100)
    held = replace(state(), facts=(("last_backup", f"{NOW - 3600}.5 app-r0.db"),), releases=(good, release), lock=lock)

    text = shown({"web1": held})

    assert "last backup   2026-11-23 02:12:45 UTC, 59m 59s ago app-r0.db" in text
    assert "last release  r1 deploy undone by ann at 2026-11-23T03:00:00Z (last good: r0)" in text
    assert "lock          held by bob on laptop (deploy v2), for 1m 40s more" in text


#: A run that ended three minutes ago, as its host reports it.
UNSEEN = {
    "unseen": '{"title": "deploy v2", "owner": "ann"}',
    "unseen_end": f'{NOW - 180} {{"end": {{"result": "upgraded", "seconds": 8.5}}}}',
}


def unseen(**facts: str) -> HostState:
    return replace(state(), facts=tuple((UNSEEN | facts).items()))


def test_status_shows_a_run_that_ended_without_its_workstation() -> None:
    assert "  deploy v2 by ann ended 3m 00s ago: upgraded (its workstation was gone)" in shown({"web1": unseen()})
    assert as_json({"web1": unseen()})["hosts"][0]["unseen_run"] == {
        "title": "deploy v2",
        "owner": "ann",
        "ended_at": NOW - 180,
        "result": "upgraded",
    }


def test_status_does_not_show_a_run_whose_workstation_has_seen_its_end() -> None:
    assert "workstation" not in shown({"web1": state()})
    assert as_json({"web1": state()})["hosts"][0]["unseen_run"] is None


@pytest.mark.parametrize(
    "facts",
    [
        {"unseen_end": f'{NOW} {{"event": {{}}}}'},
        {"unseen_end": f'{NOW} {{"end": {{"result": "splendid"}}}}'},
        {"unseen_end": f'{NOW} {{"end": {{"result": ["upgraded"]}}}}'},
        {"unseen_end": 'soon {"end": {"result": "upgraded"}}'},
        {"unseen_end": ""},
        {"unseen": "[]"},
        {"unseen": '{"title": 1, "owner": "ann"}'},
        {"unseen": '{"title": "deploy v2", "own'},
    ],
)
def test_status_ignores_a_run_that_has_not_ended_or_is_malformed(facts: dict[str, str]) -> None:
    assert "workstation" not in shown({"web1": unseen(**facts)})


def test_status_unseen_run_cannot_write_to_the_terminal() -> None:
    text = shown({"web1": unseen(unseen='{"title": "deploy \\u001b[2J\\nweb1  ok", "owner": "a\\u202eb"}')})

    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\nweb1  ok" not in text


def test_status_shows_an_expired_lock() -> None:
    lock = Lock("t", "bob", "laptop", 1, "deploy", NOW - 500, NOW - 60)

    assert "expired 1m 00s ago" in shown({"web1": replace(state(), lock=lock)})


def test_status_maintenance_is_shown_and_healthy() -> None:
    up = replace(state(), facts=(("maintenance", "setting"),))

    assert "MAINTENANCE: visitors get the maintenance page (503), turned on by MAINTENANCE_MODE" in shown({"web1": up})
    assert shown({"web1": up}).splitlines()[-1] == "production: 1 host, healthy"
    assert as_json({"web1": up})["hosts"][0]["maintenance"] == "setting"


def test_status_of_a_fresh_host_shows_none() -> None:
    text = shown({"web1": state()})

    assert ["last", "backup", "none"] in rows(text)
    assert ["last", "release", "none"] in rows(text)
    assert ["lock", "free"] in rows(text)


def test_status_masks_secrets_and_removes_escape_sequences() -> None:
    out = io.StringIO()
    dirty = replace(state(), lock=Lock("t", "ann\x1b[2J", "hunter22", 1, "x", NOW, NOW + 1))

    print_status(status_lines(environment("web1"), {"web1": dirty}, {}), out, ("hunter22",), {})

    assert "\x1b" not in out.getvalue()
    assert "held by ann on •••••• (x)" in out.getvalue()


@pytest.mark.parametrize(
    ("environ", "colored"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_status_has_colors_only_on_a_terminal_that_supports_them(environ: dict[str, str], colored: bool) -> None:
    out = Terminal()

    print_status(status_lines(environment("web1"), {"web1": state(ok=False)}, {}), out, (), environ)

    assert ("\x1b[31mUNHEALTHY\x1b[0m" in out.getvalue()) is colored


def test_status_json_healthy_host() -> None:
    status = as_json({"web1": state()})

    assert (status["environment"], status["healthy"]) == ("production", True)
    assert status["hosts"][0]["services"][0] == {
        "service": "backend",
        "color": "blue",
        "running": True,
        "status": "running",
        "tag": "v1.0.0",
        "digest": "sha256:" + "ab12" * 16,
        "release": "",
        "uptime_seconds": 765.0,
        "restarts": 2,
    }
    assert status["hosts"][0]["lock"] is None


def test_status_json_unreachable_host_is_not_healthy() -> None:
    status = as_json({}, unreachable={"web2": "refused"})

    assert status == {
        "environment": "production",
        "healthy": False,
        "hosts": [{"host": "web2", "healthy": False, "problems": ["refused"]}],
    }


@pytest.mark.parametrize(
    ("observed", "problem"),
    [
        (replace(state(), containers=()), "backend: no blue container, though blue is the live color"),
        (state(running=False), "backend: the live blue container is exited"),
        (
            replace(state(), active=(("backend", Color.GREEN),)),
            "backend: no green container, though green is the live color",
        ),
        (state(ok=False), "http://127.0.0.1:8080/api/health: 502"),
    ],
)
def test_problems_of_an_unhealthy_host(observed: HostState, problem: str) -> None:
    assert problems(environment("web1").targets[0], observed) == (problem,)


def test_problems_of_a_healthy_host_are_empty() -> None:
    assert problems(environment("web1").targets[0], state()) == ()


@pytest.mark.parametrize(
    "started_at",
    [
        "2026-11-23 03:00:00.123456789 +0000 UTC",
        "2026-11-23 03:00:00 +0000 UTC m=+0.1",
        "2026-11-23T03:00:00.123456789Z",
        "2026-11-23T04:00:00+01:00",
        str(NOW - 765),
    ],
)
def test_uptime_seconds_parses_every_time_format(started_at: str) -> None:
    assert uptime_seconds(container(started_at=started_at), NOW) == 765


@pytest.mark.parametrize("started_at", ["", "soon", "0001-01-01"])
def test_uptime_seconds_of_an_unknown_time_is_none(started_at: str) -> None:
    assert uptime_seconds(container(started_at=started_at), NOW) is None
