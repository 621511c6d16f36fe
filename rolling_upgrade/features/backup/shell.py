"""The scripts that take, verify, archive and prune backups on a host.

A backup is a directory `APP-ID` in the backup directory: `manifest.json`, the database, the configuration, and the
hashes of the uploaded files. The uploaded files are in `APP-ID.uploads`. A rename gives a complete backup its name. The
scripts run in the deploy user's namespace, because files may belong to a user of a container. A verification compares
with values from the workstation, which has parsed the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rolling_upgrade.engine import accessory_database, postgres, sqlite
from rolling_upgrade.engine.model import Application, DatabaseServer, HostState
from rolling_upgrade.engine.nginx import site_file
from rolling_upgrade.engine.paths import ID_PATTERN, backup_directory, enter, refuse_link
from rolling_upgrade.engine.podman import ENTER, FIND_NAMESPACE, IN_NAMESPACE, in_namespace
from rolling_upgrade.engine.prune_entry import Mode, prune_entry, size_of
from rolling_upgrade.engine.shell import ENVIRONMENT, Script, quote, script, shell_join
from rolling_upgrade.features.backup.manifest import DATABASE_FILES, Backup, BackupKind, DatabaseBackup

#: The free space in KiB that a backup leaves on its file system.
SPARE_KIB = 51_200
#: Exit status if another backup did not end in time.
BUSY_STATUS = 45
#: Exit status of a verification that found the backup damaged.
DAMAGED_STATUS = 46


#: The characters that a manifest does not take from the label of a container.
_UNSAFE = re.compile(r"[^A-Za-z0-9._:/@ \n-]")


def uploads_directory(app: Application) -> str:
    """Return the directory of the copies of uploaded files."""
    return app.uploads_backups or backup_directory(app)


def backup_path(app: Application, id: str) -> str:
    """Return the directory of a backup."""
    return f"{backup_directory(app)}/{app.name}-{id}"


def uploads_path(app: Application, id: str) -> str:
    """Return the directory of a backup's uploaded files."""
    return f"{uploads_directory(app)}/{app.name}-{id}.uploads"


def take(
    app: Application, id: str, kind: BackupKind, *, state: HostState | None = None, wait_seconds: int = 600
) -> Script:
    """Take a backup and print a summary, unless a backup with this id exists.

    Backups run one at a time: the script waits for another one up to the limit, then exits with BUSY_STATUS. The backup
    of a deploy does not wait. `state` tells which releases the host runs; without it, the script asks Podman.
    """
    running = _running(app) if state is None else _observed(state)
    return script(
        postgres.store_password(app),
        accessory_database.store_passwords(app),
        f"id={quote(id)} kind={kind.value}",
        _run(app, kind, wait_seconds, running),
    )


def scheduled(app: Application) -> str:
    """Return the program that the timer runs: it takes a backup, then deletes expired ones."""
    return f"""\
#!/bin/sh
# Backs up {app.name} and deletes expired backups. Made by inv setup: change the settings and run it again.
{ENVIRONMENT}
id=$(date -u +%Y%m%dT%H%M%SZ)-$(od -An -N3 -tx1 /dev/urandom | tr -d ' \\n') kind={BackupKind.SCHEDULED.value}
{_run(app, BackupKind.SCHEDULED, 3600, _running(app))}
{prune(app)}
"""


def _run(app: Application, kind: BackupKind, wait_seconds: int, running: str) -> str:
    """Run the program in the namespace, after `running` has set the variable of this name.

    A deploy does not wait for other backups: it only copies the database.
    """
    call = f'{IN_NAMESPACE} backup "$id" "$kind" "$running"'
    setup = f"{running}\n{in_namespace(program(app, kind))}"
    if kind is BackupKind.DEPLOY:
        return f"{setup}\n{call}"
    return f"""\
{setup}
status=0
flock -o -w {wait_seconds} -E {BUSY_STATUS} {_lock(app)} {call} || status=$?
if [ "$status" -eq {BUSY_STATUS} ]; then echo "another backup did not end within {wait_seconds} s"; fi
if [ "$status" -ne 0 ]; then exit "$status"; fi"""


def _lock(app: Application) -> str:
    return quote(f"{app.home}/lock/backup")


def _running(app: Application) -> str:
    """Set `running` to one line `SERVICE RELEASE IMAGE DIGEST` for each active color."""
    fields = " ".join(
        f'{{{{index .Labels "rolling.{name}"}}}}' for name in ("service", "color", "release", "image", "digest")
    )
    return f"""\
rows=$({shell_join("podman", "ps", "--all", "--filter", f"label=rolling.app={app.name}", "--format", fields)})
running=$(printf '%s\\n' "$rows" |
  tr -cd 'A-Za-z0-9._:/@ \\n-' | while read -r service color release image digest; do
    active=blue
    if [ -f {quote(app.home)}/live/"$service".green ]; then active=green; fi
    if [ "$color" = "$active" ]; then printf '%s %s %s %s\\n' "$service" "$release" "$image" "$digest"; fi
  done)"""


def _observed(state: HostState) -> str:
    """Set `running` like `_running`, from an observation. The labels of the containers are untrusted."""
    rows = [
        f"{container.service} {container.release} {container.image.reference} {container.image.digest}"
        for container in state.containers
        if container.color is state.active_color(container.service)
    ]
    return f"running={quote(_UNSAFE.sub('', chr(10).join(rows)))}"


def program(app: Application, kind: BackupKind) -> str:
    """Return the program for the namespace; its arguments are the id, the kind, and `running`."""
    with_uploads = bool(app.uploads) and kind is not BackupKind.DEPLOY
    return "\n".join(
        (
            _begin(app, kind, with_uploads=with_uploads),
            _room(app, with_uploads=with_uploads),
            'mkdir "$part"',
            'cd "$part"',
            _database(app),
            *(accessory_database.dump(app, database, _earlier(app)) for database in app.databases),
            _configuration(app),
            f"if {_has_uploads(app)}; then\n{_uploads(app)}\nfi" if with_uploads else "",
            _finish(app, with_uploads=with_uploads),
        )
    )


def _begin(app: Application, kind: BackupKind, *, with_uploads: bool) -> str:
    """Set the names, delete leftovers of interrupted backups, and clean up when this one ends."""
    directory, files = backup_directory(app), uploads_directory(app)
    name = f"{app.name}-"
    part, cleaned = (".deploy", ":") if kind is BackupKind.DEPLOY else (".part", delete_leftovers(app))
    return f"""\
set -eu
umask 077
id=$1 kind=$2 running=$3
place={quote(f"{directory}/{name}")}"$id" part={quote(f"{directory}/.{name}")}"$id"{part}
uploads_place={quote(f"{files}/{name}")}"$id".uploads uploads_part={quote(f"{files}/.{name}")}"$id".uploads.part
if [ -e "$place" ]; then echo "backup $id exists already"; exit 0; fi
mkdir -p {quote(directory)}{f" {quote(files)}" if with_uploads else ""}
{cleaned}
rm -rf "$part"
trap 'rm -rf "$part" "$uploads_part"' EXIT
trap 'exit 143' HUP INT TERM PIPE
database='' databases='' journal_mode='' rows=0 uploads=null uploads_bytes=0
{sqlite.functions() if app.database else ":"}
{functions() if with_uploads else ":"}"""


def delete_leftovers(app: Application) -> str:
    """Delete leftovers of interrupted backups: parts, and uploads without a manifest. Needs the backup lock.

    Deploys and checks run without the lock, so their parts stay for a day. Uploads without a manifest that are older
    than the newest backup stay: an operator has to check them.
    """
    directory, files = backup_directory(app), uploads_directory(app)
    parts = " ".join(f"{quote(f'{path}/.{app.name}-')}{ID_PATTERN}*.part" for path in dict.fromkeys((directory, files)))
    return f"""\
rm -rf {parts}
for old in {quote(f"{directory}/.{app.name}-")}{ID_PATTERN}.deploy {quote(f"{directory}/.{app.name}-")}{ID_PATTERN}.*.scratch; do
  if [ -n "$(find "$old" -maxdepth 0 -mmin +1440 2>/dev/null)" ]; then rm -rf "$old"; fi
done
newest=''
for one in {quote(f"{directory}/{app.name}-")}{ID_PATTERN}/uploads.sums; do
  if [ -f "$one" ]; then newest=${{one%/*}} newest=${{newest##*/}}; fi
done
for old in {quote(f"{files}/{app.name}-")}{ID_PATTERN}.uploads; do
  owner=$(basename "$old" .uploads)
  if [ -z "$newest" ] || [ -e {quote(directory)}/"$owner" ]; then continue; fi
  if [ "$(printf '%s\\n%s\\n' "$newest" "$owner" | sort | tail -n 1)" = "$owner" ]; then rm -rf "$old"; fi
done"""


def _room(app: Application, *, with_uploads: bool) -> str:
    """Check the free space before the backup writes; the two directories may share a file system."""
    server = app.database_server
    need = postgres.kib(server) if server else sqlite.kib(app.database) if app.database else "0"
    directory, files = quote(backup_directory(app)), quote(uploads_directory(app))
    parts = [
        f"""\
room() {{
  free=$(df -Pk "$1" | awk 'NR == 2 {{ print $4 }}')
  if [ "$free" -lt $(($2 + {SPARE_KIB})) ]; then
    echo "not enough disk space for a backup in $1: $free KiB free, $(($2 + {SPARE_KIB})) KiB needed"; exit 1
  fi
}}""",
        postgres.access(app) if server else "",
        f"need={need}",
        # The server's answer is untrusted: Bash executes commands inside arithmetic.
        "case $need in '' | *[!0-9]*) echo 'the size of the database is not a number'; exit 1 ;; esac",
        *(accessory_database.kib(app, database) for database in app.databases),
        f'room {directory} "$need"',
    ]
    if with_uploads:
        parts.append(f"""\
if {_has_uploads(app)}; then
{_latest(app)}
{enter(app.uploads)}
{room()}
  room {files} "$new_kib"
  if [ "$(stat -c %d {directory})" = "$(stat -c %d {files})" ]; then room {directory} $((need + new_kib)); fi
fi""")
    return "\n".join(part for part in parts if part)


def _latest(app: Application) -> str:
    """Set `latest` and `previous_list` to the newest copy of the uploads without the verdict `damaged`."""
    directory, files = quote(backup_directory(app)), quote(f"{uploads_directory(app)}/{app.name}-")
    return f"""\
latest='' previous_list=/dev/null
for old in {files}{ID_PATTERN}.uploads; do
  owner={directory}/$(basename "$old" .uploads)
  if [ -f "$owner/uploads.sums" ] && ! grep -qs '^damaged' "$owner/verified"; then
    latest=$old previous_list=$owner/uploads.sums
  fi
done"""


def _database(app: Application) -> str:
    if app.database_server:
        return f"database=postgres\n{postgres.dump(app.database_server)}"
    if not app.database:
        return ":"
    earlier = _earlier(app)
    return f"""\
{refuse_link(app.database.rpartition("/")[0])}
if {sqlite.exists(app.database)}; then
database=sqlite
{sqlite.copy(app.database)}
elif [ "$kind" != deploy ] && grep -qs '^  "database": "sqlite"' {earlier}; then
  echo "the database is missing, but earlier backups have one. Next: restore it, or correct DATABASE_PATH"; exit 1
else
  echo "database: none yet"
fi"""


def _earlier(app: Application) -> str:
    """Return the shell pattern of all manifests."""
    return f"{quote(f'{backup_directory(app)}/{app.name}-')}{ID_PATTERN}/manifest.json"


def _configuration(app: Application) -> str:
    """Archive the env files and definitions of the kept releases, the site, and the application's configuration."""
    paths = [f"{app.home}/config", site_file(app.name), *([app.config_path] if app.config_path else [])]
    return f"""\
set --
for path in {" ".join(quote(path) for path in paths)}; do if [ -e "$path" ]; then set -- "$@" "${{path#/}}"; fi; done
if [ $# -gt 0 ]; then tar -czf configuration.tar.gz -C / "$@"; fi"""


def _uploads(app: Application) -> str:
    return f"""\
uploads_list=$part/uploads.sums
mkdir -p "$uploads_part/files"
{enter(app.uploads)}
{copy()}
cd "$part\""""


def _has_uploads(app: Application) -> str:
    """Return the shell condition that the directory exists, or a link, which the backup refuses later."""
    return f"[ -d {quote(app.uploads)} ] || [ -L {quote(app.uploads)} ]"


def _finish(app: Application, *, with_uploads: bool) -> str:
    """Write the manifest, then rename the uploads and the backup, in this order, into place."""
    move = 'if [ -d "$uploads_part" ]; then mv -T "$uploads_part" "$uploads_place"; fi\n' if with_uploads else ""
    return f"""\
describe() {{
  separator=''
  for file in *; do
    if [ ! -f "$file" ]; then continue; fi
    printf '%s\\n    {{"path": "%s", "bytes": %s, "sha256": "%s"}}' "$separator" "$file" \\
      "$(stat -c %s "$file")" "$(sha256sum < "$file" | cut -c 1-64)"
    separator=,
  done
}}
services=$(printf '%s\\n' "$running" | awk 'NF {{ printf "%s\\"%s\\": \\"%s@%s\\"", separator, $1, $3, $4; separator = ", " }}')
release=$(printf '%s\\n' "$running" | awk 'NF {{ print $2 }}' | sort | tail -n 1)
files=$(describe)
cat > .manifest <<MANIFEST
{{
  "format": 1,
  "id": "$id",
  "kind": "$kind",
  "app": "{app.name}",
  "time": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
  "release": "$release",
  "services": {{$services}},
  "database": "$database",
  "journal_mode": "$journal_mode",
  "rows": $rows,
  "databases": [$databases],
  "uploads": $uploads,
  "uploads_bytes": $uploads_bytes,
  "files": [$files
  ]
}}
MANIFEST
mv .manifest manifest.json
sync -- *
cd /
{move}mv -T "$part" "$place"
echo "backup $id: $(du -sh "$place" | cut -f 1) in $place"
if [ "$uploads" != null ]; then echo "$uploads uploaded files in $uploads_place"; fi"""


def prune(app: Application, mode: Mode = Mode.REPORT) -> str:
    """Select expired backups, except the newest intact one of each kind: see the first loop."""
    history, files = quote(f"{app.home}/releases.jsonl"), quote(uploads_directory(app))
    backups = f"{quote(f'{backup_directory(app)}/{app.name}-')}{ID_PATTERN}"
    text = f"""\
set -eu
{prune_entry(mode)}
limit=$(date -u -d '-{app.backup_retention_days} days' +%Y%m%d%H%M%S)
deploy='' before='' full='' data='' uploads='' newline='
'
# The list comes first: a backup that another run completes later is not judged by the answers below.
set -- {backups}
has() {{ case "$newline$1$newline" in *"$newline$2$newline"*) ;; *) return 1 ;; esac; }}
damaged=$(grep -ls '^damaged' {backups}/verified || [ $? -le 2 ])
deploys=$(grep -ls '^  "kind": "deploy"' {backups}/manifest.json || [ $? -le 2 ])
without_data=$(grep -ls '^  "database": ""' {backups}/manifest.json || [ $? -le 2 ])
# A backup whose only databases are in accessories has data.
if [ -n "$without_data" ]; then without_data=$(printf '%s\\n' "$without_data" | tr '\\n' '\\0' | xargs -0 grep -Ls '^  "databases": \\[{{' || [ $? -le 123 ]); fi
without_uploads=$(grep -ls '^  "uploads": null' {backups}/manifest.json || [ $? -le 2 ])
good=$(grep -s '"outcome": *"good"' {history} | grep -o '"id": *"[^"]*"' | cut -d '"' -f 4) || good=''
for place; do
  if [ ! -f "$place/manifest.json" ] || has "$damaged" "$place/verified"; then continue; fi
  if has "$deploys" "$place/manifest.json"; then
    # Taken before a good release: a rollback with its data restores this one.
    deploy=$place id=${{place##*/{app.name}-}}
    if has "$good" "$id"; then before=$place; fi
    continue
  fi
  full=$place
  if ! has "$without_data" "$place/manifest.json"; then data=$place; fi
  if ! has "$without_uploads" "$place/manifest.json"; then uploads=$place; fi
done
for place; do
  id=${{place##*/{app.name}-}}
  seconds=${{id#*T}}
  if [ ! -d "$place" ] || [ "${{id%%T*}}${{seconds%%Z*}}" -ge "$limit" ]; then continue; fi
  case $place in "$deploy" | "$before" | "$full" | "$data" | "$uploads") continue ;; esac
  prune_entry backup "$place" {size_of("place")} rm -rf "$place" {files}/"${{place##*/}}.uploads"
done
{delete_leftovers(app) if mode is not Mode.LIST else ""}"""
    return f"""\
if [ -d {quote(backup_directory(app))} ]; then
{in_namespace(text)}
  flock -o -n -E 0 {_lock(app)} {IN_NAMESPACE}
fi"""


#: The names of data that a restore moved aside; never part of a backup.
_SET_ASIDE = ("/.before-*", "/.restored-*")
RSYNC = ("rsync", "--archive", "--numeric-ids", *(f"--exclude={name}" for name in _SET_ASIDE))


def functions() -> str:
    """Return shell functions for `copy`: file names in the format of sha256sum, and hashes of an earlier backup."""
    return """\
escaped_names() {
  find . -type f "$@" -print0 | sed -z 's/\\\\/\\\\\\\\/g; s/\\n/\\\\n/g' | tr '\\000' '\\n'
}
reused() {
  awk 'FILENAME == ARGV[1] { line = $0; sub(/^\\\\/, "", line); hash[substr(line, 67)] = substr(line, 1, 64); next }
    !($0 in hash) { missing = 1; exit 1 }
    { print ($0 ~ /\\\\/ ? "\\\\" : "") hash[$0] "  " $0 }
    END { exit missing }' "$1" -
}"""


def room() -> str:
    """Set `previous` to the files of the newest copy, and `new_kib` to the size of new files.

    Runs in the uploads directory. `$latest` is the directory of the newest copy, '' for none.
    """
    stats = shell_join(*RSYNC, "--dry-run", "--stats", "--no-human-readable")
    return f"""\
previous=''
if [ -n "$latest" ] && [ -d "$latest/files" ]; then previous=$latest/files; fi
new_kib=$({stats} ${{previous:+"--link-dest=$previous"}} ./ "$uploads_part/files/" |
  awk -F ': ' '/^Total transferred file size/ {{ print int($2 / 1024) + 1 }}')"""


def copy() -> str:
    """Copy the uploaded files to `$uploads_part/files`, and write their hashes to `$uploads_list`.

    Runs in the uploads directory. Sets `uploads` and `uploads_bytes`. A file deleted during the copy is no error (status
    24 of rsync). Unchanged files keep the hashes of the previous backup, so that a verification finds bit rot.
    """
    return f"""\
status=0
{shell_join(*RSYNC)} ${{previous:+"--link-dest=$previous"}} ./ "$uploads_part/files/" || status=$?
if [ "$status" -ne 0 ] && [ "$status" -ne 24 ]; then echo "the uploads could not be copied (rsync: $status)"; exit 1; fi
cd "$uploads_part/files"
find . -type f -links 1 -exec sha256sum {{}} + > "$uploads_list"
if ! escaped_names -links +1 | reused "$previous_list" >> "$uploads_list" 2>/dev/null; then
  find . -type f -exec sha256sum {{}} + > "$uploads_list"
fi
uploads=$(wc -l < "$uploads_list")
uploads_bytes=$(find . -type f -printf '%s\\n' | awk '{{ sum += $1 }} END {{ printf "%.0f", sum }}')"""


def uploads_check(directory: str, count: int) -> str:
    """Return the shell function `uploads_whole LIST SCRATCH-FILE`, which compares hashes and number of a copy's files."""
    return f"""\
uploads_whole() {{
  cd {quote(directory)} || return 1
  if [ -s "$1" ] && ! sha256sum --check --strict --quiet "$1" > "$2" 2>&1; then head -n 5 "$2"; return 1; fi
  found=$(find . -type f -printf x | wc -c)
  if [ "$found" -ne {count} ]; then echo "$found uploaded files instead of {count}"; return 1; fi
}}"""


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
    names += [found.file for found in backup.databases] if database else []
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
    if database:
        parts += _databases_checked(app, backup, rehearsed=files)
    if backup.file("configuration.tar.gz") and files and database:
        parts.append("if ! tar -xzOf configuration.tar.gz > /dev/null; then damaged 'configuration.tar.gz'; fi")
    if files and backup.uploads is not None:
        parts.append(uploads_check(f"{uploads_path(app, backup.id)}/files", backup.uploads))
        parts.append('list=$(pwd)/uploads.sums\nsaid=$(uploads_whole "$list" "$scratch/said") || damaged "$said"')
    parts.append(f"echo {quote(_summary(backup, database=database, files=files))}")
    return in_namespace("\n".join(parts))


def _databases_checked(app: Application, backup: Backup, *, rehearsed: bool) -> Iterator[str]:
    """Yield the checks of each database; with `rehearsed`, a dump is restored into a scratch database."""
    if backup.database == "sqlite":
        yield _scratch_sqlite(backup)
    if backup.database == "postgres":
        yield f"""\
if ! {postgres.check("database.pgdump")} 2> "$scratch/said"; then
  if grep -q 'unsupported version' "$scratch/said"; then cat "$scratch/said"; exit 1; fi
  damaged "$(cat "$scratch/said")"
fi"""
        if rehearsed and app.database_server:
            yield _rehearsed(app, app.database_server, backup)
    for found in backup.databases:
        yield _dump_in_accessory(app, backup, found, rehearsed=rehearsed)


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


def _rehearsed(app: Application, server: DatabaseServer, backup: Backup) -> str:
    """Restore the dump into a scratch database. The check before a restore skips this: a restore has an undo."""
    name = f"{app.name}-verify-{backup.id}".lower()
    return f'{postgres.access(app)}\n{postgres.rehearse(server, "database.pgdump", name)}\necho "$rehearsed"'


def _dump_in_accessory(app: Application, backup: Backup, found: DatabaseBackup, *, rehearsed: bool) -> str:
    """Read the dump in its accessory, compare its counts, and restore it into a scratch database if `rehearsed`."""
    known = [
        one for one in app.databases if (one.accessory, one.name, one.kind) == (found.accessory, found.name, found.kind)
    ]
    if not known:
        problem = f"the database {found.name} of the accessory {found.accessory} is not configured on this host: its dump cannot be checked"
        return f"echo {quote(problem)}; exit 1"
    [database], path = known[:1], quote(found.file)
    scratch = f"{app.name}_verify_{backup.id}".lower().replace("-", "_")
    expected = f"{found.tables} {found.rows}"
    check = f"""\
{accessory_database.access(app, database)}
counts=$({accessory_database.counted(app, database, path)} 2> "$scratch/said") || damaged "$(cat "$scratch/said")"
if [ "$counts" != {quote(expected)} ]; then damaged "{found.file} has $counts tables and rows instead of {expected}"; fi"""
    if not rehearsed:
        return check
    return f"{check}\n{accessory_database.rehearse(app, database, path, scratch, found.rows)}"


def _summary(backup: Backup, *, database: bool, files: bool) -> str:
    parts = [f"{backup.rows} rows"] if database and backup.database == "sqlite" else []
    parts += ["a readable dump"] if database and backup.database == "postgres" else []
    parts += [f"{one.name} of {one.accessory} with {one.rows} rows" for one in backup.databases if database]
    parts += [f"{backup.uploads} uploaded files"] if files and backup.uploads is not None else []
    return f"backup {backup.id} is intact: {', '.join(parts) or 'its configuration'}"


def archive(app: Application, backup: Backup) -> Script:
    """Write the directories of the backup and of its uploads as one tar archive to standard output."""
    parts = ["-C", backup_directory(app), f"{app.name}-{backup.id}"]
    if backup.uploads is not None:
        copies = uploads_path(app, backup.id)
        parts += ["-C", copies.rpartition("/")[0], copies.rpartition("/")[2]]
    return script(FIND_NAMESPACE, f"{ENTER} {shell_join('tar', '--create', '--file=-', *parts)}")
