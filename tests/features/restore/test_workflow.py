"""Restores of a backup on two hosts: the order of the steps, what a failure undoes, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode, PreflightError
from rolling_upgrade.features.backup.manifest import Verdict
from rolling_upgrade.features.restore.workflow import restore
from tests.support.project import Project
from tests.support.simulated_fleet import FIRST, READ_ONLY, SECOND, SimulatedFleet

RESTORED = [
    "lock",
    "step check",
    "step maintenance.on",
    "step stop",
    "step backup",
    "step database",
    "step uploads",
    "step backend.start",
    "step frontend.start",
    "step verify",
    "step maintenance.off",
    "step record",
]
UNDONE = ["step undo", "step abandon"]


@pytest.fixture(autouse=True)
def stored(fleet: SimulatedFleet) -> None:
    """Both hosts have the same backup."""
    for host in fleet.backups:
        fleet.backups[host] = [fleet.backup()]


def test_restore_replaces_the_data_of_both_hosts_between_stop_and_start(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore(SECOND, "demo", root=project.root) is ExitCode.DONE

    assert fleet.changed("web1") == fleet.changed("web2") == RESTORED
    out = capsys.readouterr().out
    assert f"backup {SECOND} of 2026-11-23T08:00:00+00:00: the database (0 rows) and 3 uploaded files replace" in out
    assert "web1, web2 restored." in out
    assert f'"target": "{SECOND}"' in fleet.text("web1", "step record")


@pytest.mark.parametrize(("only", "skipped"), [("database", "uploads"), ("uploads", "database")])
def test_restore_of_one_part_leaves_the_other(only: str, skipped: str, project: Project, fleet: SimulatedFleet) -> None:
    assert restore(SECOND, "demo", root=project.root, only=only) is ExitCode.DONE

    assert fleet.changed("web1") == [kind for kind in RESTORED if kind != f"step {skipped}"]


def test_restore_dry_run_runs_only_scripts_that_read(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore(SECOND, "demo", root=project.root, dry_run=True) is ExitCode.DONE

    assert set(fleet.ran()) <= READ_ONLY
    assert "restore the database" in capsys.readouterr().out


def test_restore_json_prints_only_json(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore(SECOND, "demo", root=project.root, json=True) is ExitCode.DONE

    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [host["result"] for host in rows[-1]["hosts"]] == ["restored", "restored"]
    assert err == ""


def test_restore_of_a_backup_that_one_host_lacks_is_refused(project: Project, fleet: SimulatedFleet) -> None:
    fleet.backups["web2"] = [fleet.backup(FIRST)]

    with pytest.raises(PreflightError, match=f"web2: no backup '{SECOND}'; the newest ones: {FIRST}"):
        restore(SECOND, "demo", root=project.root)

    assert fleet.changed() == []


def test_restore_of_a_backup_that_is_damaged_on_one_host_is_refused(project: Project, fleet: SimulatedFleet) -> None:
    fleet.backups["web2"] = [fleet.backup(verdict=Verdict.DAMAGED)]

    with pytest.raises(PreflightError, match=f"web2: backup {SECOND} failed its last verification"):
        restore(SECOND, "demo", root=project.root)

    assert fleet.changed() == []


def test_restore_of_files_that_the_backup_lacks_is_refused(project: Project, fleet: SimulatedFleet) -> None:
    fleet.backups["web1"] = [fleet.backup(uploads=None)]

    with pytest.raises(PreflightError, match=f"web1: backup {SECOND} holds no uploaded files"):
        restore(SECOND, "demo", root=project.root, only="uploads")

    assert fleet.changed() == []


def test_restore_without_confirmation_changes_nothing(project: Project, fleet: SimulatedFleet) -> None:
    project.rollout("confirm: true")

    with pytest.raises(ConfigError, match="confirmation required") as refused:
        restore(SECOND, "demo", root=project.root)

    assert fleet.changed() == []
    assert f"restore {SECOND} --env demo --force" in refused.value.next_step


def test_restore_with_a_failed_check_on_one_host_stops_no_container_on_any(
    project: Project, fleet: SimulatedFleet
) -> None:
    fleet.fail("web2", "step check", "database.db: its SHA-256 differs")

    assert restore(SECOND, "demo", root=project.root) is ExitCode.FAILED

    assert fleet.changed("web1") == ["lock", "step check", "unlock"]
    assert fleet.changed("web2") == ["lock", "step check", "step abandon"]


def test_restore_with_a_failed_gate_brings_the_former_data_back_before_the_start(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.fail("web1", "step backend.start", "no such table")

    assert restore(SECOND, "demo", root=project.root, hosts=("web1",)) is ExitCode.FAILED

    assert fleet.changed("web1") == [*RESTORED[: RESTORED.index("step backend.start") + 1], *UNDONE]
    out = capsys.readouterr().out
    undo = fleet.text("web1", "step undo")
    assert re.findall(r"podman (st\w+) .*?memoryark-(\w+)-blue|named=(\S+)|rm -f (\S+/maintenance.html)", undo) == [
        ("stop", "backend", "", ""),
        ("", "", "/srv/memoryark/uploads", ""),
        ("", "", "/srv/memoryark/data", ""),
        ("start", "backend", "", ""),
        ("start", "frontend", "", ""),
        ("", "", "", "/var/lib/memoryark/live/maintenance.html"),
    ]
    assert "no such table" in out
    assert "Restore undone; the previous data is in place: web1." in out


def test_restore_keeps_a_maintenance_page_that_was_on_before(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.states["web1"] = replace(fleet.fit(fleet.states["web1"], maintenance="hand"), host="web1")

    assert restore(SECOND, "demo", root=project.root, hosts=("web1",)) is ExitCode.DONE

    assert [kind for kind in fleet.ran("web1") if "maintenance" in kind] == []
    assert "the maintenance page is already on, and stays on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("backup", "only", "problem"), [("", "", "the backup is missing"), (SECOND, "rows", "database or uploads")]
)
def test_restore_with_an_invalid_option_contacts_no_host(
    backup: str, only: str, problem: str, project: Project, fleet: SimulatedFleet
) -> None:
    with pytest.raises(ConfigError, match=problem):
        restore(backup, "demo", root=project.root, only=only)

    assert fleet.ran() == []
