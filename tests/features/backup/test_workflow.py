"""The backup commands on two hosts with a real SQLite database; the list of backups as lines and as JSON."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rolling_upgrade.console.output import print_result
from rolling_upgrade.engine import preflight
from rolling_upgrade.errors import ConfigError, ExitCode, HostUnreachable, PreflightError, StepFailed
from rolling_upgrade.features.backup.manifest import Backup, BackupFile, BackupKind, HostBackups, Verdict
from rolling_upgrade.features.backup.workflow import backup, backup_json, backup_lines, fetch, show, verify
from tests.support.local_fleet import Machines
from tests.support.project import Project
from tests.support.shell import Programs

PODMAN = 'case $1 in unshare) shift; exec "$@" ;; esac'


@pytest.fixture
def hosts(project: Project, machines: Machines, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Machines:
    """Two hosts with a database and one uploaded file; the preflight of a backup is tested elsewhere."""
    programs.add("podman", PODMAN)
    monkeypatch.setattr(preflight, "backup", lambda *_: ())
    for host in ("web1", "web2"):
        data = machines.root(host) / "srv/memoryark/data"
        data.mkdir(parents=True)
        (data.parent / "uploads").mkdir()
        (data.parent / "uploads/picture").write_text("bytes")
        (machines.root(host) / "var/lib/memoryark/lock").mkdir(parents=True)
        with closing(sqlite3.connect(data / "memoryark.db")) as database:
            database.execute("create table item (n)")
            database.execute("insert into item values (1)")
            database.commit()
    return machines


def places(machines: Machines, host: str) -> list[Path]:
    return sorted(path.parent for path in machines.root(host).rglob("memoryark-*/manifest.json"))


def test_backup_is_taken_listed_and_verified_on_every_host(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert backup("demo", root=project.root) is ExitCode.DONE
    (place,) = places(hosts, "web1")
    assert [path.name for path in places(hosts, "web2")] == [place.name]

    capsys.readouterr()
    assert show("demo", root=project.root) is ExitCode.DONE
    assert capsys.readouterr().out.count(place.name.removeprefix("memoryark-")) == 2

    assert verify("demo", root=project.root) is ExitCode.DONE
    assert (place / "verified").read_text().startswith("good ")


def test_verify_with_one_damaged_backup_names_its_host_and_verifies_the_others(
    project: Project, hosts: Machines
) -> None:
    assert backup("demo", root=project.root) is ExitCode.DONE
    (damaged,), (good,) = places(hosts, "web1"), places(hosts, "web2")
    (damaged / "database.db").write_bytes(b"damaged")

    with pytest.raises(StepFailed, match=r"web1: verify .*: failed"):
        verify("demo", root=project.root)

    assert (damaged / "verified").read_text().startswith("damaged ")
    assert (good / "verified").read_text().startswith("good ")


def test_fetch_writes_one_archive_for_each_host(project: Project, hosts: Machines, tmp_path: Path) -> None:
    assert backup("demo", root=project.root) is ExitCode.DONE

    assert fetch("demo", root=project.root, to=str(tmp_path / "here")) is ExitCode.DONE

    name = places(hosts, "web1")[0].name
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [f"{name}.web1.tar", f"{name}.web2.tar"]


def test_backup_that_does_not_exist_is_refused(project: Project, hosts: Machines, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="web1: no backup 'latest'"):
        verify("demo", root=project.root)
    with pytest.raises(ConfigError, match="--to DIRECTORY"):
        fetch("demo", root=project.root)


def test_unreachable_host_fails_the_list_and_refuses_a_verification(project: Project, hosts: Machines) -> None:
    hosts.unreachable.add("web2")

    assert show("demo", root=project.root) is ExitCode.FAILED
    with pytest.raises(HostUnreachable, match="web2"):
        verify("demo", root=project.root)


NOW = 1_795_399_200
IMAGES = (("backend", "r.test/backend:v2@sha256:aa"), ("frontend", "r.test/frontend:v2@sha256:bb"))
GOOD = Backup(
    "20261123T020000Z-abcdef",
    BackupKind.SCHEDULED,
    "shop",
    release="r7",
    services=IMAGES,
    database="sqlite",
    uploads=3,
    uploads_bytes=2048,
    files=(BackupFile("database.db", 1024 * 1024 * 3 // 2, "a" * 64),),
    verdict=Verdict.GOOD,
    verified_at=NOW - 60,
)
BAD = Backup("20261123T010000Z-abcdef", problem="its manifest is missing or no JSON")


def rendered(*backups: Backup, as_json: bool = False) -> str:
    out = io.StringIO()
    hosts, unreachable = {"web1": HostBackups(NOW, backups)}, {"web2": "web2: cannot reach it."}
    result = backup_json("production", hosts, unreachable) if as_json else backup_lines(hosts, unreachable)
    print_result(result, stream=out)
    return out.getvalue()


def test_backup_lines_show_kind_size_uploads_release_and_verdict() -> None:
    row = next(line for line in rendered(GOOD).splitlines() if GOOD.id in line)

    for part in ("scheduled", "1.5 MiB", "3 (2 KiB)", "v2 (r7)", "good, 1m 00s ago"):
        assert part in row


def test_backup_lines_show_unusable_backups_and_unreachable_hosts() -> None:
    text = rendered(BAD)

    assert "UNUSABLE" in text
    assert "its manifest is missing" in text
    assert "web2  UNREACHABLE" in text


def test_backup_json_has_every_backup_and_unreachable_host() -> None:
    hosts = json.loads(rendered(BAD, GOOD, as_json=True))["hosts"]

    assert [backup["id"] for backup in hosts[0]["backups"]] == [BAD.id, GOOD.id]
    assert (hosts[0]["backups"][1]["verified"], hosts[0]["backups"][0]["problem"]) == ("good", BAD.problem)
    assert hosts[1]["unreachable"].startswith("web2")
