"""The scripts that verify a backup in a scratch directory, and write it as an archive.

The expected values come from the workstation, which has parsed the manifest.
"""

from __future__ import annotations

from rolling_upgrade.engine import postgres, sqlite
from rolling_upgrade.engine.model import Application
from rolling_upgrade.engine.paths import backup_directory
from rolling_upgrade.engine.podman import ENTER, FIND_NAMESPACE, IN_NAMESPACE, in_namespace
from rolling_upgrade.engine.shell import Script, quote, script, shell_join
from rolling_upgrade.features.backup import shell
from rolling_upgrade.features.backup.manifest import DATABASE_FILES, Backup
from rolling_upgrade.features.backup.shell import SPARE_KIB, backup_path, uploads_path

#: Exit status of a verification that found the backup damaged.
DAMAGED_STATUS = 46


def verify(app: Application, backup: Backup) -> Script:
    """Restore the backup into a scratch directory, check it, and write the verdict beside the manifest.

    Prints the damage and exits with DAMAGED_STATUS. Exits with 1 if the check itself failed.
    """
    verified = quote(f"{backup_path(app, backup.id)}/verified")
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
    """Check the selected parts and the free space for their restore, without a verdict."""
    restricted = postgres.require_restrict_key() if database and backup.database == "postgres" else ""
    room = []
    if database and backup.database == "sqlite":
        room.append((app.database.rpartition("/")[0], (backup.file("database.db") or backup.files[0]).bytes))
    if files:
        room.append((app.uploads, backup.uploads_bytes))
    checks = [
        f"free=$(df -Pk {quote(path)} | awk 'NR == 2 {{ print $4 }}')\n"
        f'if [ "$free" -lt {bytes_ // 1024 + SPARE_KIB} ]; then\n'
        f'  echo "not enough disk space for the restore in {path}: $free KiB free, '
        f'{bytes_ // 1024 + SPARE_KIB} KiB needed"; exit 1\nfi'
        for path, bytes_ in room
    ]
    return script(restricted, *checks, _checked(app, backup, database=database, files=files), IN_NAMESPACE)


def _checked(app: Application, backup: Backup, *, database: bool, files: bool) -> str:
    """Set `$program` to the comparison with the manifest and the restore of the database into a scratch directory.

    Only wrong content of the backup is damage; a missing tool or a full disk on the host fails the check instead.
    """
    scratch = quote(f"{backup_directory(app)}/.{app.name}-{backup.id}.")
    tools = postgres.TOOLS if database and backup.database == "postgres" else ()
    missing_tools = "\n".join(
        f"if ! command -v {tool} >/dev/null; then echo '{tool} is missing: the backup cannot be checked'; exit 1; fi"
        for tool in tools
    )
    names = [*(DATABASE_FILES[backup.database] if database else ()), *(["uploads.sums"] if files else [])]
    if database and files:
        names = [file.path for file in backup.files]
    expected = [file for file in backup.files if file.path in names]
    parts = [
        f"""\
set -eu
umask 077
{missing_tools}
scratch={scratch}$$.scratch
trap 'rm -rf "$scratch"' EXIT
trap 'exit 143' HUP INT TERM PIPE
damaged() {{ printf 'damaged: %s\\n' "$1"; exit {DAMAGED_STATUS}; }}
cd {quote(backup_path(app, backup.id))} || damaged "its directory is missing"
same() {{
  if [ ! -f "$1" ]; then damaged "$1 is missing"; fi
  if [ "$(stat -c %s "$1")" -ne "$2" ]; then damaged "$1 has $(stat -c %s "$1") bytes instead of $2"; fi
  if [ "$(sha256sum < "$1" | cut -c 1-64)" != "$3" ]; then damaged "$1 does not match the manifest (SHA-256)"; fi
}}""",
        *(shell_join("same", file.path, file.bytes, file.sha256) for file in expected),
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
        parts.append(shell.uploads_check(f"{uploads_path(app, backup.id)}/files", backup.uploads))
        parts.append('list=$(pwd)/uploads.sums\nsaid=$(uploads_whole "$list" "$scratch/said") || damaged "$said"')
    parts.append(f"echo {quote(_summary(backup, database=database, files=files))}")
    return in_namespace("\n".join(parts))


def _scratch_sqlite(backup: Backup) -> str:
    file = backup.file("database.db")
    need = (file.bytes if file else 0) // 1024 + SPARE_KIB
    return f"""\
free=$(df -Pk . | awk 'NR == 2 {{ print $4 }}')
if [ "$free" -lt {need} ]; then echo "no disk space to check the backup: $free KiB free, {need} KiB needed"; exit 1; fi
if ! {sqlite.CAPABLE}; then echo 'python3 with its sqlite3 module is missing: the backup cannot be checked'; exit 1; fi
{sqlite.functions()}
cp database.db "$scratch/database.db"
status=0
said=$(sqlite_file compare "$scratch/database.db" rows) || status=$?
if [ "$status" -eq {sqlite.DAMAGED_STATUS} ]; then damaged "$said"; fi
if [ "$status" -ne 0 ]; then printf '%s\\n' "$said"; exit 1; fi"""


def _rehearsed(app: Application, backup: Backup) -> str:
    """Restore the dump into a scratch database. The check before a restore skips this, because a restore has an undo."""
    if app.database_server is None:
        raise ValueError("the application has no database server")
    name = f"{app.name}-verify-{backup.id}".lower()
    return (
        f'{postgres.access(app)}\n{postgres.rehearse(app.database_server, "database.pgdump", name)}\necho "$rehearsed"'
    )


def _summary(backup: Backup, *, database: bool, files: bool) -> str:
    parts = [f"{backup.rows} rows"] if database and backup.database == "sqlite" else []
    parts += ["a readable dump"] if database and backup.database == "postgres" else []
    parts += [f"{backup.uploads} uploaded files"] if files and backup.uploads is not None else []
    return f"backup {backup.id} is intact: {', '.join(parts) or 'its configuration'}"


def archive(app: Application, backup: Backup) -> Script:
    """Write the directories of the backup and of its uploads as one tar archive to standard output."""
    parts = ["-C", backup_directory(app), f"{app.name}-{backup.id}"]
    if backup.uploads is not None:
        copies = uploads_path(app, backup.id)
        parts += ["-C", copies.rpartition("/")[0], copies.rpartition("/")[2]]
    return script(FIND_NAMESPACE, f"{ENTER} {shell_join('tar', '--create', '--file=-', *parts)}")
