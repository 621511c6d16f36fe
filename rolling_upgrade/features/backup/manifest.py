"""The manifests of a host's backups: the script that prints them and the reader. It runs nothing.

Whatever a manifest says is checked for its form before it is used in a command: a damaged one is said, not obeyed.
"""

from __future__ import annotations

import json
import re
from typing import Any

from fabfile.commands.backup import ID_PATTERN, backup_directory
from fabfile.commands.journal import direct
from fabfile.commands.shell import Script, quote
from fabfile.model import Application, Backup, BackupFile, BackupKind, Verdict

#: The files that a backup may have, and no other.
FILES = ("configuration.tar.gz", "database.db", "database.pgdump", "rows", "uploads.sums")
DATABASE_FILES = {"sqlite": ("database.db", "rows"), "postgres": ("database.pgdump",), "": ()}
_FORMAT = 1
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-z]{6}")
_MARK = "@@"


def look(app: Application) -> Script:
    """Print the host's clock, then every backup: its name, its manifest, what the last verification found."""
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


def parse(app: Application, text: str) -> tuple[int, tuple[Backup, ...]]:
    """The host's clock and its backups, oldest first, from what `look` printed. Raises ValueError when it is cut short."""
    clock, section = "", ""
    found: list[tuple[str, list[str], list[str]]] = []
    for line in text.split("\n"):
        if line.startswith(_MARK):
            section, _, name = line.removeprefix(_MARK).partition(" ")
            if section == "backup":
                found.append((name.removeprefix(f"{app.name}-"), [], []))
        elif section == "now":
            clock = line
        elif section in {"backup", "verdict"}:
            manifest, verdict = found[-1][1:]
            (manifest if section == "backup" else verdict).append(line)
    if section != "end":
        raise ValueError("the list of backups was cut short")
    return int(clock) if clock.isdigit() else 0, tuple(_backup(app, *one) for one in found if _ID.fullmatch(one[0]))


def _backup(app: Application, id: str, manifest: list[str], verdict: list[str]) -> Backup:
    word, _, rest = (verdict[0] if verdict else "").partition(" ")
    at = rest.split(" ")[0]
    judged = {
        "verdict": {"good": Verdict.GOOD, "damaged": Verdict.DAMAGED}.get(word, Verdict.UNVERIFIED),
        "verified_at": int(at) if at.isdigit() else 0,
    }
    try:
        return read(app.name, id, "\n".join(manifest), **judged)
    except ValueError as error:
        return Backup(id, problem=str(error), **judged)  # type: ignore[arg-type]


def read(app: str, id: str, text: str, **judged: Any) -> Backup:
    """The backup that a manifest describes. Raises ValueError when it is not the manifest of this very backup."""
    try:
        fields = json.loads(text)
    except ValueError:
        raise ValueError("its manifest is missing or no JSON" if text else "it has no manifest") from None
    try:
        backup = _typed(fields, judged)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"its manifest is damaged ({error})") from None
    if (backup.app, backup.id) != (app, id):
        raise ValueError(f"its manifest is that of {backup.app} {backup.id}")
    lacking = [name for name in _needed(backup) if backup.file(name) is None]
    if lacking:
        raise ValueError(f"its manifest does not name {', '.join(lacking)}")
    return backup


def _needed(backup: Backup) -> tuple[str, ...]:
    listed = ("uploads.sums",) if backup.uploads is not None else ()
    return (*DATABASE_FILES[backup.database], *listed)


def _typed(fields: dict[str, Any], judged: dict[str, Any]) -> Backup:
    if fields["format"] != _FORMAT:
        raise ValueError(f"format {fields['format']!r} is not known")
    if fields["database"] not in DATABASE_FILES:
        raise ValueError(f"database {fields['database']!r} is not known")
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
        uploads=None if uploads is None else _count(uploads),
        uploads_bytes=_count(fields["uploads_bytes"]),
        files=tuple(_file(entry) for entry in fields["files"]),
        **judged,
    )


def _file(entry: dict[str, Any]) -> BackupFile:
    path, digest = str(entry["path"]), str(entry["sha256"])
    if path not in FILES or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError(f"file {path!r}")
    return BackupFile(path, _count(entry["bytes"]), digest)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
