"""Backups put back: each part of a restore with its undo. Pure text; runs nothing.

A former database or upload is set aside beside the new one, on its own file system, and
goes back by renames. Source: a stale `-wal` beside a restored SQLite file undoes the restore or damages it.
"""

from __future__ import annotations

from fabfile.commands import postgres, sqlite, uploads
from fabfile.commands.backup import place, uploads_place
from fabfile.commands.namespace import ENTER, FIND_NAMESPACE, IN_NAMESPACE, in_namespace
from fabfile.commands.shell import quote, words
from fabfile.model import Application, Backup

_JOURNALS = ("-wal", "-shm", "-journal")


def stop_writers(app: Application, release: str) -> str:
    """Stop every container that mounts the data, and note which; refuse when one is not this application's."""
    return f"""\
{_mounting(app)}
foreign=$(mounting | awk -v app={quote(app.name)} '$2 != app {{ print $1 }}')
if [ -n "$foreign" ]; then echo "a container that is not {app.name}'s mounts its data: $foreign; stop it first"; exit 1; fi
noted={_noted(app, release)}
if [ ! -e "$noted" ]; then mounting | awk '{{ print $1 }}' > "$noted.new"; mv "$noted.new" "$noted"; fi
mounting | while read -r name _; do
  podman stop "$name" >/dev/null
  echo "$name stopped"
done
{no_writers()}"""


def start_writers(app: Application, release: str) -> str:
    """Start again what was stopped."""
    return f"""\
noted={_noted(app, release)}
if [ -e "$noted" ]; then while read -r name; do podman start "$name" >/dev/null; done < "$noted"; fi"""


def _noted(app: Application, release: str) -> str:
    return quote(f"{app.home}/journal/{release}/stopped")


def _mounting(app: Application) -> str:
    """A shell function that prints `NAME APP` of each running container that can write to the data.

    Those are the ones that mount a directory with data; with a database server, every one of the application.
    """
    connected = f'$2 == "{app.name}"' if app.database_server else "0"
    directories = [path for path in (app.database.rpartition("/")[0], app.uploads) if path]
    names = (
        '{{.Name}} {{with index .Config.Labels "rolling.app"}}{{.}}{{else}}-{{end}}{{range .Mounts}} {{.Source}}{{end}}'
    )
    return f"""\
mounting() {{
  ids=$(podman ps --quiet)
  if [ -z "$ids" ]; then return 0; fi
  # shellcheck disable=SC2086  # ids are hexadecimal words
  podman container inspect --format {quote(names)} $ids | awk -v data={quote(" ".join(directories))} '
    BEGIN {{ count = split(data, wanted, " ") }}
    {{
      if ({connected}) hit[$1 " " $2] = 1
      for (field = 3; field <= NF; field++) for (one = 1; one <= count; one++)
        if (index($field "/", wanted[one] "/") == 1 || index(wanted[one] "/", $field "/") == 1) hit[$1 " " $2] = 1
    }}
    END {{ for (name in hit) print name }}'
}}"""


def no_writers() -> str:
    """Fail when a container mounts the data, with `mounting` at hand."""
    return 'if [ -n "$(mounting)" ]; then echo "still running with the data: $(mounting)"; exit 1; fi'


def put_database(app: Application, backup: Backup, release: str) -> str:
    """Set the database and its journals aside and put the backup's in its place, whole, with its owner and mode."""
    if backup.database == "postgres" and app.database_server:
        return _put_postgres(app, backup, release)
    path, aside, new = app.database, *_beside(app.database, release)
    mode = backup.journal_mode if backup.journal_mode in {"wal", "delete", "truncate", "persist"} else "delete"
    file = backup.file("database.db")
    program = f"""\
set -eu
umask 077
{sqlite.functions()}
mkdir -p {quote(aside)}
rm -f {quote(new)}
cp {quote(place(app, backup.id) + "/database.db")} {quote(new)}
if [ "$(sha256sum < {quote(new)} | cut -c 1-64)" != {file.sha256 if file else "none"} ]; then echo "the copy is damaged"; exit 1; fi
sqlite3 -batch {quote(new)} 'pragma journal_mode={mode}' >/dev/null
sqlite_whole {quote(new)}
like={quote(path)}
if [ ! -e "$like" ]; then like={quote(f"{aside}/{path.rpartition('/')[2]}")}; fi
if [ -e "$like" ]; then chown --reference="$like" {quote(new)}; chmod --reference="$like" {quote(new)}
else chown --reference={quote(path.rpartition("/")[0])} {quote(new)}; fi
rm -f {quote(new + "-wal")} {quote(new + "-shm")}
sync {quote(new)}
if [ ! -e {quote(aside + "/.moved")} ]; then
  # Folded into the database, so that it is whole without them from here on; then kept beside it under a second name.
  if [ -e {quote(path)} ]; then sqlite3 -batch {quote(path)} 'pragma wal_checkpoint(truncate)' >/dev/null 2>&1 || :; fi
  for file in {words(*(path + ending for ending in (*_JOURNALS, "")))}; do
    if [ -e "$file" ]; then ln -f "$file" {quote(aside)}; fi
  done
  : > {quote(aside + "/.moved")}
fi
rm -f {words(*(path + ending for ending in _JOURNALS))}
mv -f {quote(new)} {quote(path)}
sync {quote(path.rpartition("/")[0])}
echo "the database of backup {backup.id} is in place: {backup.rows} rows\""""
    return _without_writers(app, program)


def take_database_back(app: Application, backup: Backup, release: str) -> str:
    """Bring the former database back; also when setting it aside stopped half-way, and nothing was replaced yet."""
    if backup.database == "postgres" and app.database_server:
        return _take_postgres_back(app, release)
    path, aside, new = app.database, *_beside(app.database, release)
    program = f"""\
set -eu
rm -f {words(*(new + ending for ending in (*_JOURNALS, "")))}
if [ -d {quote(aside)} ]; then
  if [ -e {quote(aside + "/.moved")} ]; then
    rm -f {words(*(path + ending for ending in _JOURNALS))}
    former={quote(f"{aside}/{path.rpartition('/')[2]}")}
    if [ -e "$former" ]; then mv -f "$former" {quote(path)}; else rm -f {quote(path)}; fi
    for ending in {words(*_JOURNALS)}; do
      if [ -e "$former$ending" ]; then mv -f "$former$ending" {quote(path)}"$ending"; fi
    done
  fi
  rm -rf {quote(aside)}
fi"""
    return _without_writers(app, program)


def _beside(path: str, release: str) -> tuple[str, str]:
    """Where the former data waits, and where the new one is made."""
    directory = path.rpartition("/")[0]
    return f"{directory}/.before-{release}", f"{directory}/.restored-{release}.db"


def _put_postgres(app: Application, backup: Backup, release: str) -> str:
    if app.database_server is None:
        raise ValueError("the application has no database server")
    dump = quote(f"{place(app, backup.id)}/database.pgdump")
    done = quote(f"{app.home}/journal/{release}/postgres.restored")
    return f"""\
{postgres.access(app)}
{postgres.restore(app.database_server, dump, f"{done}.list")}
: > {done}
echo "the database of backup {backup.id} is in place\""""


def _take_postgres_back(app: Application, release: str) -> str:
    """A restore that failed changed nothing; one that was done is replaced by the backup taken before it."""
    if app.database_server is None:
        raise ValueError("the application has no database server")
    dump = quote(f"{place(app, release)}/database.pgdump")
    done = quote(f"{app.home}/journal/{release}/postgres.restored")
    return f"""\
if [ -e {done} ]; then
  {postgres.access(app)}
  {postgres.restore(app.database_server, dump, f"{done}.list")}
  rm -f {done}
fi"""


def put_uploads(app: Application, backup: Backup, release: str) -> str:
    """Set the uploaded files aside and put the backup's in their place; what is the same already is linked, not copied."""
    here, aside, new = app.uploads, f"{app.uploads}/.before-{release}", f"{app.uploads}/.restored-{release}"
    copy = words(
        *uploads.RSYNC, "--checksum", f"--link-dest={here}", uploads_place(app, backup.id) + "/files/", f"{new}/"
    )
    program = f"""\
set -eu
umask 077
mkdir -p {quote(aside)}
if [ ! -e {quote(aside + "/.moved")} ]; then
  rm -rf {quote(new)}
  {copy}
{uploads.check(new, backup.uploads or 0)}
  list={quote(place(app, backup.id) + "/uploads.sums")}
  said=$(uploads_whole "$list" {quote(aside + "/.said")}) || {{ echo "the copy is damaged: $said"; exit 1; }}
  rm -f {quote(aside + "/.said")}
  find {quote(here)} -mindepth 1 -maxdepth 1 ! -name '.before-*' ! -name '.restored-*' -exec mv -t {quote(aside)} {{}} +
  : > {quote(aside + "/.moved")}
fi
if [ -d {quote(new)} ]; then
  find {quote(new)} -mindepth 1 -maxdepth 1 -exec mv -f -t {quote(here)} {{}} +
  rmdir {quote(new)}
fi
echo "{backup.uploads} uploaded files of backup {backup.id} are in place\""""
    return _without_writers(app, program)


def take_uploads_back(app: Application, release: str) -> str:
    """Bring the former files back; also when setting them aside stopped half-way."""
    here, aside, new = app.uploads, f"{app.uploads}/.before-{release}", f"{app.uploads}/.restored-{release}"
    program = f"""\
set -eu
if [ -d {quote(aside)} ]; then
  if [ -e {quote(aside + "/.moved")} ]; then
    find {quote(here)} -mindepth 1 -maxdepth 1 ! -name '.before-*' ! -name '.restored-*' -exec rm -rf {{}} +
    rm -f {quote(aside + "/.moved")}
  fi
  find {quote(aside)} -mindepth 1 -maxdepth 1 -exec mv -f -t {quote(here)} {{}} +
  rmdir {quote(aside)}
fi
rm -rf {quote(new)}"""
    return _without_writers(app, program)


def _without_writers(app: Application, program: str) -> str:
    return f"{_mounting(app)}\n{no_writers()}\n{in_namespace(program)}\n{IN_NAMESPACE}"


def forget_former(app: Application) -> str:
    """Delete what restores set aside, once one is recorded: it is also in the backups that were taken first."""
    paths = [path for path in (app.database.rpartition("/")[0], app.uploads) if path]
    program = 'for path; do rm -rf "$path"/.before-*Z-?????? "$path"/.restored-*Z-??????*; done'
    return f"{FIND_NAMESPACE}\n{ENTER} {words('sh', '-c', program, 'sh', *paths)}" if paths else ""
