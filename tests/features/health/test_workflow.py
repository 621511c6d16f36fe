"""`inv health` on two hosts, and its output as lines and as JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from rolling_upgrade.console.output import print_lines
from rolling_upgrade.engine.host import Answer, LocalHost
from rolling_upgrade.engine.model import Check, HealthReport, Kind, Lock
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import ConfigError, ExitCode, HostUnreachable
from rolling_upgrade.features.health.workflow import Reports, check_host, health, health_json, health_lines
from rolling_upgrade.features.watchdog import workflow as watchdog
from tests.support.builders import NOW, state
from tests.support.local_fleet import Machines
from tests.support.project import Project
from tests.support.sample import application
from tests.support.shell import Programs

GOOD = Check(Kind.CONTAINER, "backend container", True, "blue v1 runs, 0 restarts", "backend")
HTTP = Check(Kind.HTTP, "backend http", True, "HTTP 200, http://127.0.0.1:18080/api/health", "backend", 12)
DISK = Check(Kind.DISK, "disk /", False, "3 % of disk free on /, required 10 %")
UNANSWERED = replace(HTTP, ok=False, detail="no answer", milliseconds=5004, answered=False)
HEALTHY = HealthReport(state(), (GOOD, HTTP))
FAILING = HealthReport(state("web2"), (GOOD, UNANSWERED, DISK))
LOST = HostUnreachable("web3: cannot reach 192.0.2.3\nport 22.", next_step="check the network")
#: Every request is answered with 200.
CURL = r"""sed -n 's/^url = "\(.*\)"$/http\t\1\t200\t0.012\t\t/p'"""


def lines(reports: Reports, *, verbose: bool = False) -> list[str]:
    return health_lines(reports, "production", verbose=verbose)


def test_health_lines_healthy_host_has_one_line() -> None:
    assert lines({"web1": HEALTHY}) == ["web1  healthy, 2 checks", "", "production: 1 host, healthy"]


def test_health_lines_failed_checks_are_below_their_host_and_in_the_verdict() -> None:
    assert lines({"web1": HEALTHY, "web2": FAILING}) == [
        "web1  healthy, 2 checks",
        "web2  2 of 3 checks FAILED",
        "  FAILED  backend http  no answer                             5004 ms",
        "  FAILED  disk /        3 % of disk free on /, required 10 %",
        "",
        "production: 2 hosts, UNHEALTHY: web2: backend http, disk /",
    ]


def test_health_lines_verbose_shows_every_check_failed_ones_first() -> None:
    rows = [row.split() for row in lines({"web1": HEALTHY, "web2": FAILING}, verbose=True)]

    assert [row[0] for row in rows[1:3]] == ["ok", "ok"]
    assert [row[0] for row in rows[4:7]] == ["FAILED", "FAILED", "ok"]
    assert rows[2][-2:] == ["12", "ms"]


def test_health_lines_unreachable_host_has_one_line() -> None:
    rows = lines({"web1": HEALTHY, "web3": LOST})

    assert rows[1] == "web3  UNREACHABLE: cannot reach 192.0.2.3 port 22. Next: check the network"
    assert rows[-1] == "production: 2 hosts, UNHEALTHY: web3: unreachable"


def test_health_lines_maintenance_and_lock_are_shown_and_healthy() -> None:
    lock = Lock("t", "ann", "laptop", 1, "deploy v2", NOW, NOW + 60)
    busy = replace(HEALTHY, state=replace(HEALTHY.state, facts=(("maintenance", "operator"),), lock=lock))

    rows = lines({"web1": busy})

    assert rows[0] == "web1  healthy, 2 checks, maintenance page on (operator), locked by ann: deploy v2"
    assert rows[-1].endswith("healthy")


def test_health_lines_expired_lock_is_not_shown() -> None:
    lock = Lock("t", "ann", "laptop", 1, "deploy v2", NOW - 90, NOW - 1)

    rows = lines({"web1": replace(HEALTHY, state=replace(HEALTHY.state, lock=lock))})

    assert rows[0] == "web1  healthy, 2 checks"


def test_health_lines_hostile_text_stays_on_its_line_without_control_characters() -> None:
    dirty = replace(DISK, detail="a\nb\t\x1b[2Jsecret-word\x07")
    out = io.StringIO()

    print_lines(lines({"web1": HealthReport(state(), (dirty,))}), ("secret-word",), stream=out)

    assert len(out.getvalue().splitlines()) == 4
    assert not {"\x1b", "\x07"} & set(out.getvalue())
    assert "secret-word" not in out.getvalue()


def test_health_json_has_every_check_and_every_host() -> None:
    hosts = json.loads(
        json.dumps(to_plain(health_json({"web1": HEALTHY, "web2": FAILING, "web3": LOST}, "production")))
    )["hosts"]

    assert [(host["host"], host["ok"]) for host in hosts] == [("web1", True), ("web2", False), ("web3", False)]
    assert [check["ok"] for check in hosts[1]["checks"]] == [True, False, False]
    assert hosts[1]["checks"][1] == {
        "kind": "http",
        "name": "backend http",
        "ok": False,
        "detail": "no answer",
        "service": "backend",
        "milliseconds": 5004,
        "answered": False,
    }
    assert hosts[2]["error"] == str(LOST)


def test_health_json_names_the_failed_checks_of_each_host(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman")
    programs.add("curl", CURL)

    assert health("demo", root=project.root, json=True) is ExitCode.FAILED

    hosts = json.loads(capsys.readouterr().out)["hosts"]
    assert [host["host"] for host in hosts] == ["web1", "web2"]
    failed = {check["name"] for check in hosts[0]["checks"] if not check["ok"]}
    assert {"backend container", "frontend container"} <= failed
    assert not {"backend http", "frontend http"} & failed


def test_health_ends_after_max_failures(
    project: Project, machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    machines.unreachable |= {"web1", "web2"}

    assert health("demo", root=project.root, interval="1s", max_failures="2") is ExitCode.FAILED

    output = capsys.readouterr().out
    assert (output.count("web2  UNREACHABLE"), output.count("Next check in 1 s")) == (2, 1)


@pytest.mark.parametrize("options", [{"interval": "soon"}, {"max_failures": "0"}])
def test_health_with_an_invalid_option_contacts_no_host(project: Project, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="command line"):
        health("demo", root=project.root, **options)


def test_check_host_of_this_machine_has_every_check() -> None:
    report = check_host(LocalHost("web1"), application())

    names = {check.name for check in report.checks}
    assert {"backend container", "backend http", "full chain", "site", "memory", "clock"} <= names


def test_check_host_refuses_a_truncated_answer() -> None:
    class Mute(LocalHost):
        def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
            return Answer(127, "", "sh: not found")

    with pytest.raises(HostUnreachable, match=r"web1 is truncated.*: sh: not found"):
        check_host(Mute("web1"), application())


@pytest.mark.parametrize("installed", [ExitCode.DONE, ExitCode.REFUSED])
def test_health_with_auto_recovery_checks_only_after_the_watchdog_is_installed(
    installed: ExitCode,
    project: Project,
    machines: Machines,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[tuple[str, tuple[str, ...]]] = []

    def install(env: str, *, root: Path, hosts: tuple[str, ...]) -> ExitCode:
        calls.append((env, hosts))
        return installed

    monkeypatch.setattr(watchdog, "install", install)
    machines.unreachable.add("web1")

    code = health("demo", root=project.root, hosts=("web1",), once=True, auto_recovery=True)

    assert (code, calls) == (installed or ExitCode.FAILED, [("demo", ("web1",))])
    assert ("web1  UNREACHABLE" in capsys.readouterr().out) is (installed is ExitCode.DONE)
