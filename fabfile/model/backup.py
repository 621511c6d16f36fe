"""What a backup is, as its manifest says. Shapes only.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BackupKind(str, Enum):
    """Why a backup was taken: before a deploy, by hand, by the timer, or before a restore.

    Only that of a deploy leaves the uploads out.
    """

    DEPLOY = "deploy"
    MANUAL = "manual"
    SCHEDULED = "scheduled"
    RESTORE = "restore"


class Verdict(str, Enum):
    """What the last verification of a backup found."""

    UNVERIFIED = "not verified"
    GOOD = "good"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class BackupFile:
    """One file of a backup with its size in bytes and its SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Backup:
    """One backup on one host.

    `database` is `sqlite`, `postgres` or '' for none; `rows` counts those of all SQLite tables. `uploads` is the number
    of uploaded files, None where the backup holds none of them. `problem` says why a manifest could not be read: all
    other fields but the id are empty then.
    """

    id: str
    kind: BackupKind = BackupKind.MANUAL
    app: str = ""
    time: str = ""
    release: str = ""
    services: tuple[tuple[str, str], ...] = ()
    database: str = ""
    journal_mode: str = ""
    rows: int = 0
    uploads: int | None = None
    uploads_bytes: int = 0
    files: tuple[BackupFile, ...] = ()
    verdict: Verdict = Verdict.UNVERIFIED
    verified_at: int = 0
    problem: str = ""

    @property
    def bytes(self) -> int:
        """The size of its files; uploads are counted apart, since backups share them."""
        return sum(file.bytes for file in self.files)

    def file(self, path: str) -> BackupFile | None:
        """The file of that name, if the backup has it."""
        return next((file for file in self.files if file.path == path), None)
