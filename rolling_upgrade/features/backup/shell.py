"""Backups on the host: where they lie, how one is taken, which ones go. Pure text; runs nothing.

A backup is a directory `APP-ID` under the backup directory: `manifest.json`, the database, the configuration, the list
of the uploaded files' hashes. The uploaded files themselves are in `APP-ID.uploads`. It is made under another name and
renamed when it is whole. All of it runs in the deploy user's namespace: files may belong to a container's user.
"""

from __future__ import annotations

from fabfile.commands import postgres, sqlite, uploads
from fabfile.commands.gone import Mode, gone, size_of
from fabfile.commands.journal import ENVIRONMENT
from fabfile.commands.namespace import IN_NAMESPACE, in_namespace
from fabfile.commands.nginx import site_file
from fabfile.commands.shell import Script, quote, script
from fabfile.model import Application, BackupKind

#: Free space, in KiB, that a backup leaves on its file system at the least.
SPARE_KIB = 51_200
#: Exit status when another backup did not end in time.
BUSY_STATUS = 45
#: What an id looks like to the shell: two applications whose names begin alike are told apart by it.
_DIGIT = "[0-9]"
ID_PATTERN = f"{_DIGIT * 8}T{_DIGIT * 6}Z-??????"


def backup_directory(app: Application) -> str:
    """Where the host keeps the application's backups."""
    return app.database_backups or f"{app.home}/backups"


def uploads_directory(app: Application) -> str:
    """Where the host keeps the copies of uploaded files."""
    return app.uploads_backups or backup_directory(app)


def place(app: Application, id: str) -> str:
    """The directory of a backup."""
    return f"{backup_directory(app)}/{app.name}-{id}"


def uploads_place(app: Application, id: str) -> str:
    """The directory of a backup's uploaded files."""
    return f"{uploads_directory(app)}/{app.name}-{id}.uploads"


def take(app: Application, id: str, kind: BackupKind, *, wait_seconds: int = 600) -> Script:
    """Take a backup and print what was done; nothing happens when the backup of that id is there.

    Only one runs at a time: another one is waited for, then this exits BUSY_STATUS. A deploy's waits for none.
    """
    return script(
        postgres.keep_password(app),
        f"id={quote(id)} kind={kind.value}",
        _run(app, kind, wait_seconds),
    )


def scheduled(app: Application) -> str:
    """The program that the timer runs: it takes a backup, then deletes what is past its days."""
    return f"""\
#!/bin/sh
# Backs {app.name} up and deletes backups past their days. Made by inv setup: change the settings and run it again.
{ENVIRONMENT}
id=$(date -u +%Y%m%dT%H%M%SZ)-$(od -An -N3 -tx1 /dev/urandom | tr -d ' \\n') kind={BackupKind.SCHEDULED.value}
{_run(app, BackupKind.SCHEDULED, 3600)}
{prune(app)}
"""


def _run(app: Application, kind: BackupKind, wait_seconds: int) -> str:
    """Run the program in the namespace; that of a deploy waits for no other, since it only copies the database."""
    call = f'{IN_NAMESPACE} backup "$id" "$kind" "$running"'
    setting = f"{_what_runs(app)}\n{in_namespace(program(app, kind))}"
    if kind is BackupKind.DEPLOY:
        return f"{setting}\n{call}"
    return f"""\
{setting}
status=0
flock -o -w {wait_seconds} -E {BUSY_STATUS} {_lock(app)} {call} || status=$?
if [ "$status" -eq {BUSY_STATUS} ]; then echo "another backup did not end within {wait_seconds} s"; fi
if [ "$status" -ne 0 ]; then exit "$status"; fi"""


def _lock(app: Application) -> str:
    return quote(f"{app.home}/lock/backup")


def _what_runs(app: Application) -> str:
    """Set `running` to a line `SERVICE RELEASE IMAGE DIGEST` for each live color."""
    fields = " ".join(
        f'{{{{index .Config.Labels "rolling.{name}"}}}}' for name in ("service", "color", "release", "image", "digest")
    )
    return f"""\
ids=$(podman ps --all --quiet --filter {quote(f"label=rolling.app={app.name}")})
# shellcheck disable=SC2086  # ids are hexadecimal words
running=$([ -z "$ids" ] || podman container inspect --format {quote(fields)} $ids |
  tr -cd 'A-Za-z0-9._:/@ \\n-' | while read -r service color release image digest; do
    active=blue
    if [ -f {quote(app.home)}/live/"$service".green ]; then active=green; fi
    if [ "$color" = "$active" ]; then printf '%s %s %s %s\\n' "$service" "$release" "$image" "$digest"; fi
  done)"""


def program(app: Application, kind: BackupKind) -> str:
    """What runs in the namespace, with the id, the kind and what runs as its three words."""
    with_uploads = bool(app.uploads) and kind is not BackupKind.DEPLOY
    return "\n".join(
        (
            _opening(app, kind, with_uploads=with_uploads),
            _room(app, with_uploads=with_uploads),
            'mkdir "$part"',
            'cd "$part"',
            _database(app),
            _configuration(app),
            f"if [ -d {quote(app.uploads)} ]; then\n{_uploads(app)}\nfi" if with_uploads else "",
            _closing(app, with_uploads=with_uploads),
        )
    )


def _opening(app: Application, kind: BackupKind, *, with_uploads: bool) -> str:
    """Names, the left-overs of runs that were cut off, and the end of this one."""
    directory, files = backup_directory(app), uploads_directory(app)
    name = f"{app.name}-"
    part, cleaned = (".deploy", ":") if kind is BackupKind.DEPLOY else (".part", left_overs(app))
    return f"""\
set -eu
umask 077
id=$1 kind=$2 running=$3
place={quote(f"{directory}/{name}")}"$id" part={quote(f"{directory}/.{name}")}"$id"{part}
uploads_place={quote(f"{files}/{name}")}"$id".uploads uploads_part={quote(f"{files}/.{name}")}"$id".uploads.part
if [ -e "$place" ]; then echo "backup $id is there already"; exit 0; fi
mkdir -p {quote(directory)}{f" {quote(files)}" if with_uploads else ""}
{cleaned}
rm -rf "$part"
trap 'rm -rf "$part" "$uploads_part"' EXIT
trap 'exit 143' HUP INT TERM PIPE
database='' journal_mode='' rows=0 uploads=null uploads_bytes=0
{sqlite.functions() if app.database else ":"}
{uploads.functions() if with_uploads else ":"}"""


def left_overs(app: Application) -> str:
    """Delete what was cut off: parts, and uploads whose manifest never came. Only under the backups' lock.

    A deploy's or a check's, which run without it, after a day. Older uploads without a manifest are left to a person.
    """
    directory, files = backup_directory(app), uploads_directory(app)
    parts = " ".join(f"{quote(f'{one}/.{app.name}-')}{ID_PATTERN}*.part" for one in dict.fromkeys((directory, files)))
    return f"""\
rm -rf {parts}
for old in {quote(f"{directory}/.{app.name}-")}{ID_PATTERN}.deploy {quote(f"{directory}/.{app.name}-")}{ID_PATTERN}.*.scratch; do
  if [ -n "$(find "$old" -maxdepth 0 -mmin +1440 2>/dev/null)" ]; then rm -rf "$old"; fi
done
newest=''
for one in {quote(f"{directory}/{app.name}-")}{ID_PATTERN}/uploads.sums; do
  if [ -f "$one" ]; then newest=$(basename "${{one%/*}}"); fi
done
for old in {quote(f"{files}/{app.name}-")}{ID_PATTERN}.uploads; do
  owner=$(basename "$old" .uploads)
  if [ -z "$newest" ] || [ -e {quote(directory)}/"$owner" ]; then continue; fi
  if [ "$(printf '%s\\n%s\\n' "$newest" "$owner" | sort | tail -n 1)" = "$owner" ]; then rm -rf "$old"; fi
done"""


def _room(app: Application, *, with_uploads: bool) -> str:
    """Refuse before anything is written when it would not fit; the two directories may share a file system."""
    server = app.database_server
    need = postgres.kib(server) if server else sqlite.kib(app.database) if app.database else "0"
    directory, files = quote(backup_directory(app)), quote(uploads_directory(app))
    parts = [
        f"""\
room() {{
  free=$(df -Pk "$1" | awk 'NR == 2 {{ print $4 }}')
  if [ "$free" -lt $(($2 + {SPARE_KIB})) ]; then
    echo "no room for a backup in $1: $free KiB free, $(($2 + {SPARE_KIB})) KiB needed"; exit 1
  fi
}}""",
        postgres.access(app) if server else "",
        f"need={need}",
        f'room {directory} "$need"',
    ]
    if with_uploads:
        parts.append(f"""\
if [ -d {quote(app.uploads)} ]; then
{_latest(app)}
{uploads.room(app.uploads)}
  room {files} "$new_kib"
  if [ "$(stat -c %d {directory})" = "$(stat -c %d {files})" ]; then room {directory} $((need + new_kib)); fi
fi""")
    return "\n".join(part for part in parts if part)


def _latest(app: Application) -> str:
    """Set `latest` and `previous_list` to the newest copy of the uploads that no verification found damaged."""
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
    earlier = f"{quote(f'{backup_directory(app)}/{app.name}-')}{ID_PATTERN}/manifest.json"
    return f"""\
if [ -s {quote(app.database)} ]; then
database=sqlite
{sqlite.copy(app.database)}
elif [ "$kind" != deploy ] && grep -qs '^  "database": "sqlite"' {earlier}; then
  echo "there is no database, and earlier backups have one: put it back, or correct DATABASE_PATH"; exit 1
else
  echo "database: none yet"
fi"""


def _configuration(app: Application) -> str:
    """Environment files and definitions of the kept releases, the site text, the application's own configuration."""
    paths = [f"{app.home}/config", site_file(app.name), *([app.config_path] if app.config_path else [])]
    return f"""\
set --
for path in {" ".join(quote(path) for path in paths)}; do if [ -e "$path" ]; then set -- "$@" "${{path#/}}"; fi; done
if [ $# -gt 0 ]; then tar -czf configuration.tar.gz -C / "$@"; fi"""


def _uploads(app: Application) -> str:
    return f'uploads_list=$part/uploads.sums\nmkdir -p "$uploads_part/files"\n{uploads.copy(app.uploads)}\ncd "$part"'


def _closing(app: Application, *, with_uploads: bool) -> str:
    """The manifest, then the names that count; the manifest's directory comes last."""
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


def prune(app: Application, mode: Mode = Mode.TELL) -> str:
    """Select backups past their days, never the newest good one of a kind: see the first loop.

    One that a verification found damaged is not good, and goes with its days.
    """
    history, files = quote(f"{app.home}/releases.jsonl"), quote(uploads_directory(app))
    text = f"""\
set -eu
{gone(mode)}
limit=$(date -u -d '-{app.backup_retention_days} days' +%Y%m%d%H%M%S)
deploy='' before='' full='' data='' uploads=''
for place in {quote(f"{backup_directory(app)}/{app.name}-")}{ID_PATTERN}; do
  if [ ! -f "$place/manifest.json" ] || grep -qs '^damaged' "$place/verified"; then continue; fi
  if grep -q '^  "kind": "deploy"' "$place/manifest.json"; then
    # Taken before a release that was good: what a rollback with its data would bring back.
    deploy=$place id=$(basename "$place") id=${{id#{app.name}-}}
    if grep -s '"id": *"'"$id"'"' {history} | grep -q '"outcome": *"good"'; then before=$place; fi
    continue
  fi
  full=$place
  if ! grep -q '^  "database": ""' "$place/manifest.json"; then data=$place; fi
  if ! grep -q '^  "uploads": null' "$place/manifest.json"; then uploads=$place; fi
done
for place in {quote(f"{backup_directory(app)}/{app.name}-")}{ID_PATTERN}; do
  name=$(basename "$place")
  stamp=$(printf %s "${{name#{app.name}-}}" | cut -c 1-15 | tr -d T)
  if [ ! -d "$place" ] || [ "$stamp" -ge "$limit" ]; then continue; fi
  case $place in "$deploy" | "$before" | "$full" | "$data" | "$uploads") continue ;; esac
  gone backup "$place" {size_of("place")} rm -rf "$place" {files}/"$name.uploads"
done
{left_overs(app) if mode is not Mode.LIST else ""}"""
    return f"""\
if [ -d {quote(backup_directory(app))} ]; then
{in_namespace(text)}
  flock -o -n -E 0 {_lock(app)} {IN_NAMESPACE}
fi"""
