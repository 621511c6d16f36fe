"""The list of backups as lines and as JSON."""

from __future__ import annotations

import io
import json

from rolling_upgrade.console.output import print_lines, print_result
from rolling_upgrade.features.backup.manifest import Backup, BackupFile, BackupKind, Verdict
from rolling_upgrade.features.backup.view import HostBackups, backup_json, backup_lines

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
    if as_json:
        print_result(backup_json("production", hosts, unreachable), stream=out)
    else:
        print_lines(backup_lines(hosts, unreachable), stream=out)
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
