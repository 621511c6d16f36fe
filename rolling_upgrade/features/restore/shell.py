"""The scripts that restore the database and the uploaded files, and their undo scripts.

A restore moves the former data aside on the same file system, and its undo renames them back. Source: a stale `-wal`
beside a restored SQLite file reverts or damages it.
"""

from __future__ import annotations

from collections.abc import Sequence

from rolling_upgrade.engine import accessory_database, jobs, postgres, sqlite
from rolling_upgrade.engine.model import AccessoryDatabase, Application, DatabaseServer
from rolling_upgrade.engine.paths import refuse_link
from rolling_upgrade.engine.podman import ENTER, FIND_NAMESPACE, IN_NAMESPACE, in_namespace
from rolling_upgrade.engine.shell import quote, shell_join
from rolling_upgrade.features.backup import shell as backups
from rolling_upgrade.features.backup.manifest import Backup, DatabaseBackup
from rolling_upgrade.features.backup.shell import backup_path, uploads_path

_JOURNALS = ("-wal", "-shm", "-journal")


def stop_writers(app: Application, run_id: str) -> str:
    """Stop the jobs, and every container that mounts the data, and record its name.

    Fail for a container of another application.
    """
    return f"""\
{jobs.pause(app)}
{_mounting(app)}
foreign=$(mounting | awk -v app={quote(app.name)} '$2 != app {{ print $1 }}')
if [ -n "$foreign" ]; then echo "a container of another application mounts the data of {app.name}: $foreign. Next: stop it"; exit 1; fi
stopped={_stopped(app, run_id)}
if [ ! -e "$stopped" ]; then mounting | awk '{{ print $1 }}' > "$stopped.new"; mv "$stopped.new" "$stopped"; fi
mounting | while read -r name _; do
  podman stop "$name" >/dev/null
  echo "$name stopped"
done
{no_writers()}"""


def start_writers(app: Application, run_id: str, *, except_for: Sequence[str] = ()) -> str:
    """Start the stopped containers, except for the named ones, and the timers of the jobs again.

    Podman has removed the containers of one-off commands when they stopped.
    """
    start = 'podman start "$name" >/dev/null'
    if except_for:
        start = f'case "$name" in {"|".join(map(quote, except_for))}) ;; *) {start} ;; esac'
    return f"""\
stopped={_stopped(app, run_id)}
if [ -e "$stopped" ]; then
  while read -r name; do if podman container exists "$name"; then {start}; fi; done < "$stopped"
fi
{jobs.resume(app)}"""


def _stopped(app: Application, run_id: str) -> str:
    return quote(f"{app.home}/journal/{run_id}/stopped")


def _mounting(app: Application) -> str:
    """Return the shell function `mounting`, which prints `NAME APP` of each running container that can write to the data.

    These containers mount a directory with data. With a database server or a database in an accessory, all containers of
    the application can. Accessories are no writers: a database must run to be restored.
    """
    connected = f'$2 == "{app.name}"' if app.database_server or app.databases else "0"
    directories = [path for path in (app.database.rpartition("/")[0], app.uploads) if path]
    names = '{{if not (index .Config.Labels "rolling.accessory")}}{{.Name}} {{with index .Config.Labels "rolling.app"}}{{.}}{{else}}-{{end}}{{range .Mounts}} {{.Source}}{{end}}{{end}}'
    return f"""\
mounting() {{
  ids=$(podman ps --quiet)
  if [ -z "$ids" ]; then return 0; fi
  # shellcheck disable=SC2086  # ids are hexadecimal words
  podman container inspect --format {quote(names)} $ids | awk -v data={quote(" ".join(directories))} '
    BEGIN {{ count = split(data, paths, " ") }}
    NF {{
      if ({connected}) hit[$1 " " $2] = 1
      for (field = 3; field <= NF; field++) for (path = 1; path <= count; path++)
        if (index($field "/", paths[path] "/") == 1 || index(paths[path] "/", $field "/") == 1) hit[$1 " " $2] = 1
    }}
    END {{ for (name in hit) print name }}'
}}"""


def no_writers() -> str:
    """Fail if a running container mounts the data; calls the shell function `mounting`."""
    return 'if [ -n "$(mounting)" ]; then echo "containers that mount the data still run: $(mounting)"; exit 1; fi'


def restore_database(app: Application, backup: Backup, run_id: str) -> str:
    """Restore the database of the application, and those in accessories."""
    parts = [_restore_own(app, backup, run_id)] if backup.database else []
    for database, found in databases_in(app, backup):
        path, began = _dump_and_mark(app, database, backup.id, found.file, run_id)
        parts.append(accessory_database.restore(app, database, path, began))
        parts.append(f"echo {quote(f'{found.name} of {found.accessory} is restored: {found.rows} rows')}")
    return "\n".join(f"(\nset -eu\n{part}\n)" for part in parts)


def undo_database(app: Application, backup: Backup, run_id: str) -> str:
    """Bring the former databases back, also if the restore was interrupted at any point."""
    parts = [_undo_own(app, backup, run_id)] if backup.database else []
    for database, _ in databases_in(app, backup):
        former = accessory_database.file_name(app.databases, database)
        path, began = _dump_and_mark(app, database, run_id, former, run_id)
        parts.append(accessory_database.undo(app, database, path, began))
    return "\n".join(f"(\nset -eu\n{part}\n)" for part in parts)


def databases_in(app: Application, backup: Backup) -> tuple[tuple[AccessoryDatabase, DatabaseBackup], ...]:
    """Return the application's databases in accessories that the backup has."""
    return tuple(
        (database, found)
        for database in app.databases
        for found in backup.databases
        if (database.accessory, database.name, database.kind) == (found.accessory, found.name, found.kind)
    )


def _dump_and_mark(app: Application, database: AccessoryDatabase, id: str, file: str, run_id: str) -> tuple[str, str]:
    """Return shell words: the dump of a database in a backup, and the mark of its restore."""
    mark = accessory_database.file_name(app.databases, database)
    return quote(f"{backup_path(app, id)}/{file}"), quote(f"{app.home}/journal/{run_id}/{mark}.began")


def _restore_own(app: Application, backup: Backup, run_id: str) -> str:
    """Move the database and its journals aside; rename the backup's database into place with the same owner and mode."""
    if backup.database == "postgres" and app.database_server:
        return _restore_postgres(app, app.database_server, backup, run_id)
    path, aside, new = app.database, *_beside(app.database, run_id)
    mode = backup.journal_mode if backup.journal_mode in {"wal", "delete", "truncate", "persist"} else "delete"
    file = backup.file("database.db")
    program = f"""\
set -eu
umask 077
{refuse_link(path.rpartition("/")[0])}
{sqlite.functions()}
{_create_directory(aside)}
rm -rf {shell_join(*(new + ending for ending in (*_JOURNALS, "")))}
cp {quote(backup_path(app, backup.id) + "/database.db")} {quote(new)}
if [ "$(sha256sum < {quote(new)} | cut -c 1-64)" != {file.sha256 if file else "none"} ]; then echo "the copy of the database is damaged"; exit 1; fi
sqlite_file {shell_join("prepare", new, mode)}
like={quote(path.rpartition("/")[0])}
for file in {shell_join(path, f"{aside}/{path.rpartition('/')[2]}")}; do
  if [ -f "$file" ] && [ ! -L "$file" ]; then like=$file; chmod --reference="$like" {quote(new)}; break; fi
done
chown --reference="$like" {quote(new)}
rm -f {quote(new + "-wal")} {quote(new + "-shm")}
sync {quote(new)}
if [ ! -e {quote(aside + "/.moved")} ]; then
  # Fold the journals into the database, so that it is complete without them; then keep it under a second name.
  sqlite_file {shell_join("fold", path)} >/dev/null 2>&1 || :
  for file in {shell_join(*(path + ending for ending in (*_JOURNALS, "")))}; do
    {_set_aside(aside)}
  done
  : > {quote(aside + "/.moved")}
fi
rm -rf {shell_join(*(path + ending for ending in _JOURNALS))}
if [ -d {quote(path)} ]; then rm -rf {quote(path)}; fi
mv -fT {quote(new)} {quote(path)}
sync {quote(path.rpartition("/")[0])}
echo "the database of backup {backup.id} is in place: {backup.rows} rows\""""
    return _without_writers(app, program)


def _undo_own(app: Application, backup: Backup, run_id: str) -> str:
    """Bring the former database back, also if the restore was interrupted at any point."""
    if backup.database == "postgres" and app.database_server:
        return _undo_postgres(app, app.database_server, run_id)
    path, aside, new = app.database, *_beside(app.database, run_id)
    program = f"""\
set -eu
{refuse_link(path.rpartition("/")[0])}
{_refuse_replaced(aside)}
rm -rf {shell_join(*(new + ending for ending in (*_JOURNALS, "")))}
if [ -d {quote(aside)} ]; then
  if [ -e {quote(aside + "/.moved")} ]; then
    rm -rf {shell_join(*(path + ending for ending in _JOURNALS))}
    former={quote(f"{aside}/{path.rpartition('/')[2]}")}
    if [ ! -f "$former" ] || [ -d {quote(path)} ]; then rm -rf {quote(path)}; fi
    if [ -e "$former" ] || [ -L "$former" ]; then mv -fT "$former" {quote(path)}; fi
    for ending in {shell_join(*_JOURNALS)}; do
      if [ -e "$former$ending" ] || [ -L "$former$ending" ]; then mv -fT "$former$ending" {quote(path)}"$ending"; fi
    done
  fi
  rm -rf {quote(aside)}
fi"""
    return _without_writers(app, program)


def _set_aside(aside: str) -> str:
    """Hard-link `$file` into the directory; move it there if it is a directory, which cannot be linked."""
    return f"""\
kept={quote(aside)}/"${{file##*/}}"
    if [ -e "$file" ] || [ -L "$file" ]; then rm -rf "$kept"; fi
    if [ -d "$file" ] && [ ! -L "$file" ]; then mv -T "$file" "$kept"
    elif [ -e "$file" ] || [ -L "$file" ]; then ln "$file" "$kept"; fi"""


def _create_directory(path: str) -> str:
    """Create a directory among the container's files; first delete links that the container may have put there."""
    return f"""\
if [ -L {quote(path)} ]; then rm -f {quote(path)}; fi
mkdir -p {quote(path)}
rm -f {quote(path + "/.restored-sums")}
if [ -L {quote(path + "/.moved")} ]; then rm -f {quote(path + "/.moved")}; fi"""


def _refuse_replaced(path: str) -> str:
    """Fail if a container has replaced the directory by a link: then the former data is lost."""
    problem = quote(f"{path} was replaced by a link. Next: restore the backup that was taken before this restore")
    return f"if [ -L {quote(path)} ]; then rm -f {quote(path)}; echo {problem}; exit 1; fi"


def _beside(path: str, run_id: str) -> tuple[str, str]:
    """Return the directory of the former database, and the path of the new one until its rename."""
    directory = path.rpartition("/")[0]
    return f"{directory}/.before-{run_id}", f"{directory}/.restored-{run_id}.db"


def _restore_postgres(app: Application, server: DatabaseServer, backup: Backup, run_id: str) -> str:
    dump = quote(f"{backup_path(app, backup.id)}/database.pgdump")
    done = quote(f"{app.home}/journal/{run_id}/postgres.restored")
    return f"""\
{postgres.access(app)}
{postgres.restore(server, dump, f"{done}.list")}
: > {done}
echo "the database of backup {backup.id} is in place\""""


def _undo_postgres(app: Application, server: DatabaseServer, run_id: str) -> str:
    """Restore the backup that was taken before a completed restore; a failed restore has changed nothing."""
    dump = quote(f"{backup_path(app, run_id)}/database.pgdump")
    done = quote(f"{app.home}/journal/{run_id}/postgres.restored")
    return f"""\
if [ -e {done} ]; then
  {postgres.access(app)}
  {postgres.restore(server, dump, f"{done}.list")}
  rm -f {done}
fi"""


def restore_uploads(app: Application, backup: Backup, run_id: str) -> str:
    """Move the uploaded files aside and restore those of the backup; hard-link unchanged files instead of copying."""
    here, aside, new = app.uploads, f"{app.uploads}/.before-{run_id}", f"{app.uploads}/.restored-{run_id}"
    copy = shell_join(*backups.RSYNC, "--checksum")
    places = shell_join(uploads_path(app, backup.id) + "/files/", f"{new}/")
    program = f"""\
set -eu
umask 077
{refuse_link(here)}
{_create_directory(aside)}
if [ ! -e {quote(aside + "/.moved")} ]; then
  rm -rf {quote(new)}
  # With a symbolic link among the uploads, --link-dest could link files from elsewhere: copy everything then.
  set -- {quote(f"--link-dest={here}")}
  if [ -n "$(find {quote(here)} -type l -print -quit)" ]; then set --; fi
  {copy} "$@" {places}
{backups.uploads_check(new, backup.uploads or 0)}
  list={quote(backup_path(app, backup.id) + "/uploads.sums")}
  said=$(uploads_whole "$list" {quote(aside + "/.restored-sums")}) || {{ echo "the copy of the uploads is damaged: $said"; exit 1; }}
  rm -f {quote(aside + "/.restored-sums")}
  find {quote(here)} -mindepth 1 -maxdepth 1 ! -name '.before-*' ! -name '.restored-*' -exec mv -t {quote(aside)} {{}} +
  : > {quote(aside + "/.moved")}
fi
if [ -d {quote(new)} ] && [ ! -L {quote(new)} ]; then
  find {quote(new)} -mindepth 1 -maxdepth 1 -exec mv -f -t {quote(here)} {{}} +
  rmdir {quote(new)}
fi
echo "{backup.uploads} uploaded files of backup {backup.id} are in place\""""
    return _without_writers(app, program)


def undo_uploads(app: Application, run_id: str) -> str:
    """Bring the former files back, also if the restore was interrupted at any point."""
    here, aside, new = app.uploads, f"{app.uploads}/.before-{run_id}", f"{app.uploads}/.restored-{run_id}"
    program = f"""\
set -eu
{refuse_link(here)}
{_refuse_replaced(aside)}
if [ -d {quote(aside)} ]; then
  if [ -e {quote(aside + "/.moved")} ]; then
    find {quote(here)} -mindepth 1 -maxdepth 1 ! -name '.before-*' ! -name '.restored-*' -exec rm -rf {{}} +
    rm -f {quote(aside + "/.moved")}
  fi
  rm -f {quote(aside + "/.restored-sums")}
  find {quote(aside)} -mindepth 1 -maxdepth 1 -exec mv -f -t {quote(here)} {{}} +
  rmdir {quote(aside)}
fi
rm -rf {quote(new)}"""
    return _without_writers(app, program)


def _without_writers(app: Application, program: str) -> str:
    return f"{_mounting(app)}\n{no_writers()}\n{in_namespace(program)}\n{IN_NAMESPACE}"


def delete_former_data(app: Application) -> str:
    """Delete the data that restores moved aside; the backups taken before those restores contain it too."""
    paths = [path for path in (app.database.rpartition("/")[0], app.uploads) if path]
    program = """\
for path; do
  if [ "$(realpath -m -- "$path")" != "$path" ]; then continue; fi
  rm -rf "$path"/.before-*Z-?????? "$path"/.restored-*Z-??????*
done"""
    return f"{FIND_NAMESPACE}\n{ENTER} {shell_join('sh', '-c', program, 'sh', *paths)}" if paths else ""
