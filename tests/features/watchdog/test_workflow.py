"""`inv monitor.install`, `uninstall`, `status` and `logs` with fake hosts: output and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.model import Environment, Target
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import ExitCode, HostUnreachable
from rolling_upgrade.features.watchdog import shell, workflow
from rolling_upgrade.ssh.fleet import Fleet
from tests.features.watchdog.test_shell import WATCHDOG
from tests.support.sample import application

ENVIRONMENT = Environment(
    "production", tuple(Target(name, f"{name}.test", "deploy", application()) for name in ("web1", "web2"))
)
ROOT = Path("/nowhere")
#: Replaces the hosts by answers, one for each host.
Hosts = Callable[..., None]


class Host:
    """A host that gives one answer to every script."""

    def __init__(self, name: str, answer: Answer | HostUnreachable) -> None:
        self.name, self._answer = name, answer

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        if isinstance(self._answer, HostUnreachable):
            raise self._answer
        return self._answer


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    monkeypatch.setattr(workflow, "config", SimpleNamespace(load=lambda *_, **__: ENVIRONMENT))

    def answer(**answers: Answer | HostUnreachable) -> None:
        monkeypatch.setattr(workflow, "opened", lambda _: fleet(answers))

    return answer


@contextmanager
def fleet(answers: Mapping[str, Answer | HostUnreachable]) -> Iterator[Fleet]:
    yield Fleet(ENVIRONMENT, cast(Any, [Host(name, answer) for name, answer in answers.items()]))


def test_install_reports_each_host(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    hosts(web1=Answer(0, "installed\n"), web2=Answer(0, "unchanged\n"))

    assert workflow.install("production", root=ROOT) is ExitCode.DONE
    assert capsys.readouterr().out.splitlines() == [
        "web1: the watchdog is installed and observes every 30 s",
        "web2: the watchdog runs already; nothing changed",
    ]


@pytest.mark.parametrize(
    ("answers", "code", "line"),
    [
        (
            {"web1": Answer(shell.NO_PYTHON_STATUS, "Python 3.9.2\n")},
            ExitCode.REFUSED,
            "web1: the watchdog needs python3 of at least 3.10; found: Python 3.9.2. Nothing was changed.",
        ),
        (
            {"web1": Answer(shell.NOT_PREPARED_STATUS, "")},
            ExitCode.REFUSED,
            "web1: the application's directory is missing or not writable. Nothing was changed.",
        ),
        ({"web1": Answer(1, "no space left\n")}, ExitCode.FAILED, "web1: failed (status 1).\nno space left"),
        (
            {"web1": Answer(0, "replaced\n"), "web2": HostUnreachable("web2: cannot reach it.")},
            ExitCode.PARTLY_DONE,
            "web1: the watchdog is replaced and runs again\nweb2: cannot reach it.",
        ),
    ],
)
def test_install_that_fails_says_why(
    answers: Mapping[str, Answer | HostUnreachable],
    code: ExitCode,
    line: str,
    hosts: Hosts,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hosts(**answers)

    assert workflow.install("production", root=ROOT) is code
    assert line in capsys.readouterr().out


def test_uninstall_reports_each_host(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    hosts(web1=Answer(0, "gone\n"), web2=Answer(0, "nothing\n"))

    assert workflow.uninstall("production", root=ROOT) is ExitCode.DONE
    assert capsys.readouterr().out.splitlines() == [
        "web1: the watchdog is removed",
        "web2: no watchdog is installed; nothing changed",
    ]


def test_status_as_json_fails_for_a_watchdog_that_does_not_run(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts(web1=Answer(0, "installed=yes\nActiveState=active\n"), web2=Answer(0, "installed=yes\nActiveState=failed\n"))

    assert workflow.status("production", root=ROOT, json=True) is ExitCode.FAILED
    found = json.loads(capsys.readouterr().out)
    assert (found["environment"], [host["runs"] for host in found["hosts"]]) == ("production", [True, False])


def test_status_lists_an_unreachable_host(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    hosts(web1=Answer(0, "installed=yes\nActiveState=active\n"), web2=HostUnreachable("cannot reach it."))

    assert workflow.status("production", root=ROOT) is ExitCode.FAILED
    assert capsys.readouterr().out.splitlines()[-1] == "web2  UNREACHABLE: cannot reach it."


def test_logs_of_several_hosts_name_the_host_on_each_line(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    hosts(web1=Answer(0, "one\ntwo\n"), web2=Answer(0, "three\n"))

    assert workflow.logs("production", root=ROOT) is ExitCode.DONE
    assert capsys.readouterr().out.splitlines() == ["web1 | one", "web1 | two", "web2 | three"]


def rows(**changes: object) -> list[str]:
    return workflow.watchdog_lines({"web1": replace(WATCHDOG, **changes)}, {}, "production")  # type: ignore[arg-type]


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
    assert workflow.watchdog_lines({}, {"web2": "timed out"}, "production")[-1] == "web2  UNREACHABLE: timed out"


def test_watchdog_json_has_every_host() -> None:
    found = workflow.watchdog_json({"web1": WATCHDOG}, {"web2": "timed out"}, "production")["hosts"]

    assert (found[0]["host"], found[0]["runs"], found[0]["memory_bytes"]) == ("web1", True, 15_360_000)
    assert found[1] == {"host": "web2", "error": "timed out"}
