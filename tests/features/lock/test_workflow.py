"""The lock commands on two hosts: status, acquire, release, and the locks of other operators."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode, HostUnreachable, LockHeld
from rolling_upgrade.features.lock.workflow import acquire, release, status
from tests.support.local_fleet import Machines
from tests.support.project import Project


def held(machines: Machines, host: str) -> Path:
    return machines.root(host) / "var/lib/memoryark/lock/held"


def lock_for(machines: Machines, host: str, owner: str) -> None:
    """Create a manual lock of another operator on the host; it outlasts the test."""
    path = held(machines, host)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"token=manual-other\nowner={owner}\nworkstation=laptop\npid=0\nreason=disk\n"
        "acquired_at=1000\nexpires_at=4000000000\n"
    )


def test_status_of_free_hosts(project: Project, machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("demo", root=project.root) is ExitCode.DONE

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [["HOST", "HOLDER"], ["web1", "free"], ["web2", "free"]]


def test_acquired_lock_is_shown_and_released(
    project: Project, machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert acquire("demo", root=project.root, reason="new disk", for_="2h") is ExitCode.DONE
    assert "web1: locked for 120 minutes" in capsys.readouterr().out
    assert "reason=new disk" in held(machines, "web2").read_text()

    assert status("demo", root=project.root, json=True) is ExitCode.DONE
    hosts = json.loads(capsys.readouterr().out)["hosts"]
    assert [(host["host"], host["free"], host["reason"]) for host in hosts] == [
        ("web1", False, "new disk"),
        ("web2", False, "new disk"),
    ]

    assert release("demo", root=project.root) is ExitCode.DONE
    assert not held(machines, "web1").exists()
    assert not held(machines, "web2").exists()


def test_acquire_with_one_host_locked_by_another_operator_locks_none(project: Project, machines: Machines) -> None:
    lock_for(machines, "web2", "ben")

    with pytest.raises(LockHeld, match="web2: locked by ben@laptop"):
        acquire("demo", root=project.root, reason="new disk")

    assert not held(machines, "web1").exists()


def test_release_lock_of_another_operator_requires_force(project: Project, machines: Machines) -> None:
    lock_for(machines, "web2", "ben")

    with pytest.raises(LockHeld, match="web2: ben@laptop"):
        release("demo", root=project.root)
    assert held(machines, "web2").exists()

    assert release("demo", root=project.root, force=True) is ExitCode.DONE
    assert not held(machines, "web2").exists()


def test_unreachable_host_fails_status_and_acquire(
    project: Project, machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    machines.unreachable.add("web2")

    assert status("demo", root=project.root) is ExitCode.FAILED
    assert "web2  UNREACHABLE" in capsys.readouterr().out
    with pytest.raises(HostUnreachable, match="web2"):
        acquire("demo", root=project.root, reason="new disk")
    assert not held(machines, "web1").exists()


@pytest.mark.parametrize(("reason", "lease"), [("", "1h"), ("disk", "8d"), ("disk", "soon"), ("disk", "0m")])
def test_acquire_checks_its_options_before_it_connects(
    project: Project, machines: Machines, reason: str, lease: str
) -> None:
    machines.unreachable |= {"web1", "web2"}

    with pytest.raises(ConfigError):
        acquire("demo", root=project.root, reason=reason, for_=lease)
