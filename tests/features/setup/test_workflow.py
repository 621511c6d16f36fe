"""Setup and teardown on two simulated hosts; no script of a resource runs."""

from __future__ import annotations

import re

import pytest

from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.host_run import RunEnd
from rolling_upgrade.engine.model import HostResult
from rolling_upgrade.errors import ConfigError, ExitCode, HostUnreachable, PreflightError
from rolling_upgrade.features import apply
from rolling_upgrade.features.setup.workflow import setup, teardown
from tests.support.host_engine import step_of
from tests.support.local_fleet import answer_with
from tests.support.project import Project

_CHECKED = re.compile(r"^echo (.+) ok$", re.MULTILINE)


class Hosts:
    """Hosts that lack the same resources until the first script that is not a check has run there."""

    def __init__(self) -> None:
        self.lacking = {"network", "linger"}
        self.by_hand: set[str] = set()
        self.prepared: set[str] = set()
        self.scripts: list[str] = []
        self.unreachable: set[str] = set()
        #: Whether the scripts change what the next check finds.
        self.effective = True

    def respond(self, host: str, text: str) -> Answer:
        if host in self.unreachable:
            raise HostUnreachable(f"{host}: cannot reach 192.0.2.1.")
        names = [name.strip("'") for name in _CHECKED.findall(text)]
        if names:
            lacking = set() if host in self.prepared else self.lacking
            rows = [f"{name} {self._state(name, lacking)}" for name in names]
            return Answer(0, "\n".join(rows) + "\n")
        if step_of(text) or "apt-get" in text:
            self.scripts.append(host if step_of(text) else f"{host} by itself")
            ran = sum(name.split()[0] == host for name in self.scripts)
            if self.effective and ran == len(self.lacking):
                self.prepared.add(host)
        return Answer(0, "")

    def _state(self, name: str, lacking: set[str]) -> str:
        if name in self.by_hand:
            return "hand"
        return "drift" if name in lacking else "ok"


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """Two hosts without a network and without linger."""
    found = Hosts()
    answer_with(monkeypatch, found.respond)
    return found


def test_setup_creates_missing_resources_and_a_second_run_changes_nothing(
    project: Project, hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup("demo", root=project.root, check=True) is ExitCode.FAILED
    assert setup("demo", root=project.root, dry_run=True) is ExitCode.DONE
    assert hosts.scripts == []

    assert setup("demo", root=project.root, force=True) is ExitCode.DONE
    assert sorted(hosts.scripts) == ["web1", "web1", "web2", "web2"]

    capsys.readouterr()
    assert setup("demo", root=project.root, force=True) is ExitCode.DONE
    assert setup("demo", root=project.root, check=True) is ExitCode.DONE
    assert "Nothing to do: every host is prepared." in capsys.readouterr().out
    assert len(hosts.scripts) == 4


def test_setup_installs_python_before_the_host_executes_the_other_steps(project: Project, hosts: Hosts) -> None:
    hosts.lacking = {"python", "network"}

    assert setup("demo", root=project.root, hosts=("web1",), force=True) is ExitCode.DONE

    assert hosts.scripts == ["web1 by itself", "web1"]


def test_setup_with_manual_work_changes_nothing(project: Project, hosts: Hosts) -> None:
    hosts.by_hand.add("packages")

    with pytest.raises(PreflightError, match=r"web1: packages: .*: missing\. not Debian or Ubuntu: install"):
        setup("demo", root=project.root, force=True)

    assert hosts.scripts == []


def test_setup_whose_resource_is_still_missing_afterwards_is_partly_done(
    project: Project, hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts.effective = False

    assert setup("demo", root=project.root, force=True) is ExitCode.PARTLY_DONE

    assert "linger for" in capsys.readouterr().out


def test_setup_that_a_host_refuses_beside_another_run_does_not_claim_that_it_is_prepared(
    project: Project, hosts: Hosts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = RunEnd(HostResult.NOT_STARTED, error="LockHeld", message="another run prepares the host")
    monkeypatch.setattr(apply, "_execute", lambda *_: refused)

    assert setup("demo", root=project.root, force=True) is ExitCode.LOCKED

    output = capsys.readouterr().out
    assert "web1, web2: setup failed." in output
    assert "Nothing to do" not in output


def test_setup_unreachable_host_prevents_every_change(project: Project, hosts: Hosts) -> None:
    hosts.unreachable.add("web2")

    with pytest.raises(HostUnreachable, match="web2"):
        setup("demo", root=project.root, force=True)

    assert hosts.scripts == []


def test_teardown_requires_the_name_of_the_application(
    project: Project, hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts.lacking = {"containers", "site", "state"}

    with pytest.raises(ConfigError):
        teardown("demo", root=project.root)
    assert hosts.scripts == []

    assert teardown("demo", root=project.root, confirm="memoryark") is ExitCode.DONE
    assert sorted(hosts.scripts) == ["web1"] * 3 + ["web2"] * 3

    assert teardown("demo", root=project.root, confirm="memoryark") is ExitCode.DONE
    assert len(hosts.scripts) == 6
