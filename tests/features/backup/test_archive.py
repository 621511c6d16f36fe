"""Downloads of backups: complete and readable only by the owner, or refused and deleted."""

from __future__ import annotations

import hashlib
import io
import json
import math
import tarfile
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import ConnectionDropped, StepFailed
from rolling_upgrade.features.backup import manifest
from rolling_upgrade.features.backup.archive import DOWNLOAD_SECONDS, download
from rolling_upgrade.features.backup.manifest import Backup
from tests.support.sample import application

APP, ID = application(), "20261123T020000Z-abcdef"
NAMES = ("a", "sub dir/it's", "line\nbreak", "back\\slash")


class Sender:
    """A host that sends an archive in pieces."""

    name = "web1"

    def __init__(self, content: bytes, status: int = 0, error: Exception | None = None) -> None:
        self._content, self._status, self._error = content, status, error

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        raise AssertionError(f"nothing is run: {script} {timeout_seconds} {cancelled}")

    def stream(
        self,
        script: Script,
        on_output: Callable[[bytes], None],
        on_errors: Callable[[bytes], None],
        *,
        timeout_seconds: float = math.inf,
        cancelled: Event | None = None,
        on_open: object = None,
        shell: str = "",
    ) -> int:
        assert (ID in script.text, timeout_seconds, cancelled) == (True, DOWNLOAD_SECONDS, None)
        for at in range(0, len(self._content), 1000):
            on_output(self._content[at : at + 1000])
        if self._error:
            raise self._error
        on_errors(b"tar: the reason")
        return self._status

    def close(self) -> None:
        """Close nothing."""


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sums() -> bytes:
    """Return the output of sha256sum for the files, with line breaks and backslashes escaped."""
    rows = []
    for name in NAMES:
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
        rows.append(f"{chr(92) if escaped != name else ''}{digest(name.encode())}  ./{escaped}\n")
    return "".join(rows).encode()


def archive(**changed: bytes) -> tuple[bytes, Backup]:
    """Return a backup and its archive; `changed` replaces the content of a file, b'' omits it."""
    files = {"database.db": b"d" * 5000, "rows": b"1 41\n", "uploads.sums": sums()}
    text = json.dumps(
        {
            "format": 1,
            "id": ID,
            "kind": "manual",
            "app": "shop",
            "time": "",
            "release": "",
            "services": {},
            "database": "sqlite",
            "journal_mode": "wal",
            "rows": 1,
            "uploads": len(NAMES),
            "uploads_bytes": 9,
            "files": [{"path": name, "bytes": len(body), "sha256": digest(body)} for name, body in files.items()],
        }
    )
    content = {f"shop-{ID}/{name}": body for name, body in files.items()}
    content[f"shop-{ID}/manifest.json"] = text.encode()
    content |= {f"shop-{ID}.uploads/files/{name}": name.encode() for name in NAMES}
    content |= {next(one for one in content if one.endswith(name)): body for name, body in changed.items()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, body in content.items():
            if body:
                member = tarfile.TarInfo(name)
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))
    return out.getvalue(), manifest.read("shop", ID, text)


def bring(sender: Sender, backup: Backup, directory: Path) -> Path:
    run = RunContext("r1", 60, lambda _: None, lambda: 0.0)
    return download(sender, APP, backup, directory, run)


def test_download_intact_backup_is_readable_only_by_the_owner(tmp_path: Path) -> None:
    content, backup = archive()

    path = bring(Sender(content), backup, tmp_path / "new")

    assert (path.name, path.read_bytes()) == (f"shop-{ID}.web1.tar", content)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"database.db": b"e" * 5000}, "a different SHA-256"),
        ({"rows": b""}, "missing"),
        ({"files/a": b"changed"}, "1 uploaded files differ"),
        ({"files/a": b""}, "1 uploaded files differ"),
        ({"manifest.json": b"{}"}, "cannot be read"),
    ],
)
def test_download_that_differs_from_the_manifest_is_refused_and_deleted(
    changed: dict[str, bytes], problem: str, tmp_path: Path
) -> None:
    content, backup = archive(**changed)

    with pytest.raises(StepFailed, match=problem):
        bring(Sender(content), backup, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_truncated_download_leaves_no_file(tmp_path: Path) -> None:
    content, backup = archive()

    with pytest.raises(ConnectionDropped):
        bring(Sender(content[:5000], error=ConnectionDropped("web1: gone.")), backup, tmp_path)
    with pytest.raises(StepFailed):
        bring(Sender(content[:5000]), backup, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_download_that_the_host_cannot_read_reports_the_reason(tmp_path: Path) -> None:
    content, backup = archive()

    with pytest.raises(StepFailed, match="tar: the reason"):
        bring(Sender(content, status=2), backup, tmp_path)
