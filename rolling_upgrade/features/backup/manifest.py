"""The manifests of a host's backups: the script that prints them, and their parser.

The parser validates every field, and reports a damaged manifest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.accessory_database import MYSQL, POSTGRES
from rolling_upgrade.engine.model import Application
from rolling_upgrade.engine.paths import ID_PATTERN, backup_directory
from rolling_upgrade.engine.shell import Script, direct, quote
from rolling_upgrade.engine.untrusted import Malformed

#: The only files that a backup may have, beside the dumps of databases in accessories.
FILES = ("configuration.tar.gz", "database.db", "database.pgdump", "rows", "uploads.sums")
_DUMP = re.compile(r"[a-z][a-z0-9-]{0,30}(?:\.[0-9]{1,3})?\.(?:pgdump|sql\.gz)")
DATABASE_FILES = {"sqlite": ("database.db", "rows"), "postgres": ("database.pgdump",), "": ()}
_FORMAT = 1
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-z]{6}")
_MARK = "@@"
#: The maximum size of a manifest in bytes.
_MAX_BYTES = 64 << 10


def read_all(app: Application) -> Script:
    """Print the host's clock, then the name, manifest and last verdict of every backup."""
    return direct(f"""\
echo {_MARK}now
date +%s
for place in {quote(f"{backup_directory(app)}/{app.name}-")}{ID_PATTERN}; do
  if [ ! -d "$place" ]; then continue; fi
  echo "{_MARK}backup $(basename "$place")"
  cat "$place/manifest.json" 2>/dev/null || :
  printf '\\n%s\\n' {_MARK}verdict
  cat "$place/verified" 2>/dev/null || :
  echo
done
echo {_MARK}end""")


def parse(app: Application, text: str) -> HostBackups:
    """Parse the output of `read_all`. Raises Malformed for truncated output."""
    clock, section = "", ""
    entries: list[tuple[str, list[str], list[str]]] = []
    for line in untrusted.rows(text):
        if line.startswith(_MARK):
            section, _, name = line.removeprefix(_MARK).partition(" ")
            if section == "backup":
                entries.append((name.removeprefix(f"{app.name}-"), [], []))
        elif section == "now":
            clock = line
        elif section in {"backup", "verdict"} and entries:
            manifest, verdict = entries[-1][1:]
            (manifest if section == "backup" else verdict).append(line)
    if section != "end":
        raise Malformed("the list of backups is truncated")
    now = untrusted.integer(clock, maximum=untrusted.LATEST, default=0)
    return HostBackups(now, tuple(_backup(app, *entry) for entry in entries if _ID.fullmatch(entry[0])))


def _backup(app: Application, id: str, manifest: list[str], verdict: list[str]) -> Backup:
    word, _, rest = (verdict[0] if verdict else "").partition(" ")
    at = rest.split(" ")[0]
    verification = {
        "verdict": {"good": Verdict.GOOD, "damaged": Verdict.DAMAGED}.get(word, Verdict.UNVERIFIED),
        "verified_at": untrusted.integer(at, maximum=untrusted.LATEST, default=0),
    }
    try:
        return read(app.name, id, "\n".join(manifest), **verification)
    except Malformed as error:
        return Backup(id, problem=str(error), **verification)  # type: ignore[arg-type]


def read(app: str, id: str, text: str, **verification: Any) -> Backup:
    """Parse the manifest of this backup. Raises Malformed if it is damaged or belongs to another backup."""
    try:
        fields = untrusted.json_object(text, max_bytes=_MAX_BYTES)
    except Malformed:
        raise Malformed("its manifest is not a JSON object" if text else "it has no manifest") from None
    try:
        backup = _typed(fields, verification)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed(f"its manifest is damaged ({untrusted.line(error)})") from None
    if (backup.app, backup.id) != (app, id):
        raise Malformed(f"its manifest belongs to {untrusted.line(backup.app)} {untrusted.line(backup.id)}")
    needed = (*DATABASE_FILES[backup.database], *(("uploads.sums",) if backup.uploads is not None else ()))
    needed += tuple(database.file for database in backup.databases)
    lacking = [name for name in needed if backup.file(name) is None]
    if lacking:
        raise Malformed(f"its manifest does not name {', '.join(lacking)}")
    return backup


def _typed(fields: dict[str, Any], verification: dict[str, Any]) -> Backup:
    if fields["format"] != _FORMAT:
        raise ValueError(f"unknown format {fields['format']!r}")
    if fields["database"] not in DATABASE_FILES:
        raise ValueError(f"unknown database {fields['database']!r}")
    uploads = fields["uploads"]
    return Backup(
        id=str(fields["id"]),
        kind=BackupKind(fields["kind"]),
        app=str(fields["app"]),
        time=str(fields["time"]),
        release=str(fields["release"]),
        services=tuple((str(name), str(image)) for name, image in fields["services"].items()),
        database=fields["database"],
        journal_mode=str(fields["journal_mode"]),
        rows=_count(fields["rows"]),
        databases=tuple(_database(entry) for entry in fields.get("databases", [])),
        uploads=None if uploads is None else _count(uploads),
        uploads_bytes=_count(fields["uploads_bytes"]),
        files=tuple(_file(entry) for entry in fields["files"]),
        **verification,
    )


def _file(entry: dict[str, Any]) -> BackupFile:
    path, digest = str(entry["path"]), str(entry["sha256"])
    if (path not in FILES and not _DUMP.fullmatch(path)) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError(f"invalid file {path!r}")
    return BackupFile(path, _count(entry["bytes"]), digest)


def _database(entry: dict[str, Any]) -> DatabaseBackup:
    accessory, kind, name, file = (untrusted.string(entry[key]) for key in ("accessory", "kind", "name", "file"))
    if kind not in {POSTGRES, MYSQL} or not _DUMP.fullmatch(file):
        raise ValueError(f"invalid database {name!r}")
    return DatabaseBackup(accessory, kind, name, file, _count(entry["tables"]), _count(entry["rows"]))


def _count(value: object) -> int:
    if not isinstance(value, int):
        raise Malformed(f"{untrusted.line(repr(value))} is not a count")
    return untrusted.integer(value)


class BackupKind(str, Enum):
    """The reason for a backup: before a deploy, on request, by the timer, or before a restore.

    Only backups of deploys omit the uploads.
    """

    DEPLOY = "deploy"
    MANUAL = "manual"
    SCHEDULED = "scheduled"
    RESTORE = "restore"


class Verdict(str, Enum):
    """The result of the last verification of a backup."""

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
class DatabaseBackup:
    """The dump of a database in an accessory: its file, and the numbers of tables and rows in the dump."""

    accessory: str
    kind: str
    name: str
    file: str
    tables: int
    rows: int


@dataclass(frozen=True)
class Backup:
    """One backup on one host.

    `database` is `sqlite`, `postgres` or '' for none; `rows` counts the rows of all SQLite tables. `databases` are those
    in accessories. `uploads` is the
    number of uploaded files, None for a backup without uploads. `problem` is the reason for an unreadable manifest:
    then every field except the id is empty.
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
    databases: tuple[DatabaseBackup, ...] = ()
    uploads: int | None = None
    uploads_bytes: int = 0
    files: tuple[BackupFile, ...] = ()
    verdict: Verdict = Verdict.UNVERIFIED
    verified_at: int = 0
    problem: str = ""

    @property
    def has_database(self) -> bool:
        """Whether it has any database."""
        return bool(self.database or self.databases)

    @property
    def bytes(self) -> int:
        """The size of its files without the uploads, which backups share."""
        return sum(file.bytes for file in self.files)

    def file(self, path: str) -> BackupFile | None:
        """Return the file of that name, or None."""
        return next((file for file in self.files if file.path == path), None)


@dataclass(frozen=True)
class HostBackups:
    """The backups of one host, oldest first, and the time on its clock (Unix seconds) when it listed them."""

    now: int
    backups: tuple[Backup, ...]
