"""The list of backups, for people and programs."""

from __future__ import annotations

import io
import json

import pytest

from fabfile.model import Backup, BackupFile, BackupKind, Environment, Verdict
from fabfile.report.backups import Listed, render_backups, size

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
    render_backups(
        Environment("production", ()),
        {"web1": Listed(NOW, backups)},
        {"web2": "web2: cannot reach it."},
        json=as_json,
        out=out,
    )
    return out.getvalue()


def test_render_backups_row_says_what_an_operator_chooses_by() -> None:
    row = next(line for line in rendered(GOOD).splitlines() if GOOD.id in line)

    for part in ("scheduled", "1.5 MiB", "3 (2.0 KiB)", "v2 (r7)", "good, 1m 00s ago"):
        assert part in row


def test_render_backups_unusable_one_and_lost_host_are_said() -> None:
    text = rendered(BAD)

    assert "UNUSABLE" in text
    assert "its manifest is missing" in text
    assert "web2  NOT REACHED" in text


def test_render_backups_json_holds_every_backup_and_lost_host() -> None:
    hosts = json.loads(rendered(BAD, GOOD, as_json=True))["hosts"]

    assert [one["id"] for one in hosts[0]["backups"]] == [BAD.id, GOOD.id]
    assert (hosts[0]["backups"][1]["verified"], hosts[0]["backups"][0]["problem"]) == ("good", BAD.problem)
    assert hosts[1]["unreachable"].startswith("web2")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 1024**3, "5.0 GiB"), (2**41, "2.0 TiB")]
)
def test_size_is_told_in_its_largest_unit(count: int, text: str) -> None:
    assert size(count) == text
