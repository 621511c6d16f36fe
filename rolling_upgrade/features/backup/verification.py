"""Backups looked into: the comparison with the manifest, the verification in a scratch place, the archive of one.

Pure text; it runs nothing. What is expected comes from the manifest as it was read: the host reads none itself.
"""

from __future__ import annotations

from fabfile.commands import postgres, sqlite, uploads
from fabfile.commands.backup import (
    SPARE_KIB,
    backup_directory,
    place,
    uploads_place,
)
from fabfile.commands.manifest import DATABASE_FILES
from fabfile.commands.namespace import ENTER, FIND_NAMESPACE, IN_NAMESPACE, in_namespace
from fabfile.commands.shell import Script, quote, script, words
from fabfile.model import Application, Backup

#: Exit status of a verification that found the backup damaged.
DAMAGED_STATUS = 46


def verify(app: Application, backup: Backup) -> Script:
    """Restore the backup into a scratch place, check it there, keep the verdict beside the manifest.

    Prints what is wrong and exits DAMAGED_STATUS when anything is; exits 1 when it could not be checked.
    """
    verified = quote(f"{place(app, backup.id)}/verified")
    return script(
        _checked(app, backup, database=True, files=True),
        f"""\
status=0
flock -o -w 3600 {quote(app.home + "/lock/backup")} {IN_NAMESPACE} || status=$?
verdict=''
if [ "$status" -eq 0 ]; then verdict=good; fi
if [ "$status" -eq {DAMAGED_STATUS} ]; then verdict=damaged; fi
if [ -n "$verdict" ]; then
  echo "$verdict $(date +%s)" > {verified}.new
  mv -f {verified}.new {verified}
fi
exit "$status\"""",
    )


def check(app: Application, backup: Backup, *, database: bool, files: bool) -> Script:
    """The same for the chosen parts, and that there is room for them; nothing is marked."""
    room = []
    if database and backup.database == "sqlite":
        room.append((app.database.rpartition("/")[0], (backup.file("database.db") or backup.files[0]).bytes))
    if files:
        room.append((app.uploads, backup.uploads_bytes))
    checks = [
        f"free=$(df -Pk {quote(path)} | awk 'NR == 2 {{ print $4 }}')\n"
        f'if [ "$free" -lt {bytes_ // 1024 + SPARE_KIB} ]; then\n'
        f'  echo "no room for the restore in {path}: $free KiB free, {bytes_ // 1024 + SPARE_KIB} KiB needed"; exit 1\nfi'
        for path, bytes_ in room
    ]
    return script(*checks, _checked(app, backup, database=database, files=files), IN_NAMESPACE)


def _checked(app: Application, backup: Backup, *, database: bool, files: bool) -> str:
    """Put into `$program` what compares a backup with its manifest and restores the database into a scratch place.

    Damage is what the backup's own bytes show. What the host lacks or refuses is none: it fails otherwise.
    """
    scratch = quote(f"{backup_directory(app)}/.{app.name}-{backup.id}.")
    tools = {"sqlite": ("sqlite3",), "postgres": postgres.TOOLS}.get(backup.database, ()) if database else ()
    lacking = "\n".join(
        f"if ! command -v {tool} >/dev/null; then echo '{tool} is missing: the backup cannot be checked'; exit 1; fi"
        for tool in tools
    )
    names = [*(DATABASE_FILES[backup.database] if database else ()), *(["uploads.sums"] if files else [])]
    if database and files:
        names = [file.path for file in backup.files]
    wanted = [file for file in backup.files if file.path in names]
    parts = [
        f"""\
set -eu
umask 077
{lacking}
scratch={scratch}$$.scratch
trap 'rm -rf "$scratch"' EXIT
trap 'exit 143' HUP INT TERM PIPE
damaged() {{ printf 'damaged: %s\\n' "$1"; exit {DAMAGED_STATUS}; }}
cd {quote(place(app, backup.id))} || damaged "its directory is gone"
same() {{
  if [ ! -f "$1" ]; then damaged "$1 is missing"; fi
  if [ "$(stat -c %s "$1")" -ne "$2" ]; then damaged "$1 has $(stat -c %s "$1") bytes, and not $2 as its manifest says"; fi
  if [ "$(sha256sum < "$1" | cut -c 1-64)" != "$3" ]; then damaged "$1 is not what its manifest says (SHA-256)"; fi
}}""",
        *(words("same", file.path, file.bytes, file.sha256) for file in wanted),
        'mkdir "$scratch"',
    ]
    if database and backup.database == "sqlite":
        parts.append(_scratch_sqlite(backup))
    if database and backup.database == "postgres":
        parts.append(f"""\
if ! {postgres.check("database.pgdump")} 2> "$scratch/said"; then
  if grep -q 'unsupported version' "$scratch/said"; then cat "$scratch/said"; exit 1; fi
  damaged "$(cat "$scratch/said")"
fi""")
        parts += [_rehearsed(app, backup)] if files and app.database_server else []
    if backup.file("configuration.tar.gz") and files and database:
        parts.append("if ! tar -xzOf configuration.tar.gz > /dev/null; then damaged 'configuration.tar.gz'; fi")
    if files and backup.uploads is not None:
        parts.append(uploads.check(f"{uploads_place(app, backup.id)}/files", backup.uploads))
        parts.append('list=$(pwd)/uploads.sums\nsaid=$(uploads_whole "$list" "$scratch/said") || damaged "$said"')
    parts.append(f"echo {quote(_praise(backup, database=database, files=files))}")
    return in_namespace("\n".join(parts))


def _scratch_sqlite(backup: Backup) -> str:
    file = backup.file("database.db")
    need = (file.bytes if file else 0) // 1024 + SPARE_KIB
    return f"""\
free=$(df -Pk . | awk 'NR == 2 {{ print $4 }}')
if [ "$free" -lt {need} ]; then echo "no room to check the backup: $free KiB free, {need} KiB needed"; exit 1; fi
{sqlite.functions()}
cp database.db "$scratch/database.db"
said=$(sqlite_whole "$scratch/database.db") || damaged "$said"
sqlite_rows "$scratch/database.db" > "$scratch/rows"
if ! cmp -s rows "$scratch/rows"; then damaged "its tables do not have the rows that were counted when it was made"; fi"""


def _rehearsed(app: Application, backup: Backup) -> str:
    """A verification restores the dump for good measure; what comes before a restore need not, it is undone as a whole."""
    if app.database_server is None:
        raise ValueError("the application has no database server")
    name = f"{app.name}-verify-{backup.id}".lower()
    return (
        f'{postgres.access(app)}\n{postgres.rehearse(app.database_server, "database.pgdump", name)}\necho "$rehearsed"'
    )


def _praise(backup: Backup, *, database: bool, files: bool) -> str:
    said = [f"{backup.rows} rows"] if database and backup.database == "sqlite" else []
    said += ["a readable dump"] if database and backup.database == "postgres" else []
    said += [f"{backup.uploads} uploaded files"] if files and backup.uploads is not None else []
    return f"backup {backup.id} is whole: {', '.join(said) or 'its configuration'}"


def archive(app: Application, backup: Backup) -> Script:
    """Write the backup as one tar archive to standard output: its directory and that of its uploads."""
    parts = ["-C", backup_directory(app), f"{app.name}-{backup.id}"]
    if backup.uploads is not None:
        copies = uploads_place(app, backup.id)
        parts += ["-C", copies.rpartition("/")[0], copies.rpartition("/")[2]]
    return script(FIND_NAMESPACE, f"{ENTER} {words('tar', '--create', '--file=-', *parts)}")
