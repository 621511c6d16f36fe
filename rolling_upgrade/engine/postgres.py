"""PostgreSQL from the host: dump, check, restore. The password is in a 0600 file, never in argv. Runs nothing.

Source: PostgreSQL manual, pg_dump: a dump is consistent and blocks neither readers nor writers; libpq, The Password
File; pg_restore, --single-transaction: all of it or nothing, and --clean: fails on an object of the dump that a later
one refers to, hence the clearing of our own.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from fabfile.commands.shell import Script, quote, words, write_file
from fabfile.model import Application, DatabaseServer

#: The programs that it takes on the host.
TOOLS = ("pg_dump", "pg_restore", "psql")

_PSQL = ("psql", "--no-psqlrc", "--no-password")

#: Drops what is of the application in any schema, with whatever refers to it; extensions stay: not every role may drop
#: one, or create it again. What this leaves (collations, large objects) pg_restore's own --clean replaces.
_CLEAR = """\
do $clear$
declare
  statement text;
begin
  foreach statement in array array(
    select format('drop schema if exists %I cascade', nspname) from pg_namespace space
    where nspname !~ '^pg_' and nspname not in ('information_schema', 'public') and not exists (
      select from pg_depend where classid = 'pg_namespace'::regclass and objid = space.oid and deptype = 'e'
    )
    union all
    select format('drop %s if exists %s cascade', replace(type, 'composite ', ''), identity)
    from pg_depend member, pg_identify_object(classid, objid, 0)
    where refclassid = 'pg_namespace'::regclass and refobjid = to_regnamespace('public') and deptype = 'n'
    and type in (
      'table', 'foreign table', 'view', 'materialized view', 'sequence', 'type', 'composite type', 'function',
      'procedure', 'aggregate'
    )
    and not exists (
      select from pg_depend other
      where other.classid = member.classid and other.objid = member.objid and other.deptype = 'e'
    )
  ) loop
    execute statement;
  end loop;
end
$clear$;"""


def password_file(home: str) -> str:
    """Where the host keeps the password for its own backups: beside what retention deletes."""
    return f"{home}/postgres.pass"


def password_line(server: DatabaseServer) -> str:
    """The password file's content: one line that matches every address, since only this one is asked with it."""
    escaped = server.password.replace("\\", "\\\\").replace(":", "\\:")
    return f"*:*:*:*:{escaped}\n"


def keep_password(app: Application) -> Script | str:
    """Bring the password file up to date; an application without its password in hand leaves the file as it is."""
    if app.database_server is None or not app.database_server.password:
        return ""
    path = password_file(app.home)
    return write_file(path, password_line(app.database_server), secret=True)


def access(app: Application) -> str:
    """Let the programs that follow find the password, and never ask for one."""
    return f"export PGPASSFILE={quote(password_file(app.home))} PGCONNECT_TIMEOUT=10"


def kib(server: DatabaseServer) -> str:
    """A shell word: the size of the database in KiB, more than its dump will take."""
    ask = words(*_PSQL, "-At", "-d", server.address, "-c")
    return f'$({ask} "select pg_database_size(current_database()) / 1024")'


def dump(server: DatabaseServer) -> str:
    """Dump the database into `database.pgdump` of the working directory, and read the dump through once."""
    return f"""\
{words("pg_dump", "--no-password", "--format=custom", "--file=database.pgdump", f"--dbname={server.address}")}
{check("database.pgdump")}"""


def check(path: str) -> str:
    """Read a whole dump as a restore would, without a server; fails when any of it is damaged."""
    return f"{words('pg_restore', '--file=/dev/null')} {path}"


def rehearse(server: DatabaseServer, path: str, scratch: str) -> str:
    """Restore a dump into a database of its own beside the application's, and drop it again; sets `rehearsed`.

    A role that may not create a database, or an extension in it, leaves it at having read the dump; that is said. Exits
    1 when the server refuses for another reason: the dump is as it was made, so that is no damage.
    """
    parts = urlsplit(server.address)
    other = urlunsplit(parts._replace(path=f"/{scratch}"))
    ask = words(*_PSQL, "--quiet", "-At", "-v", "ON_ERROR_STOP=1", "-d")
    drop = f"{ask} {quote(server.address)} -c 'drop database if exists \"{scratch}\"'"
    options = (
        "--no-password",
        "--no-owner",
        "--no-privileges",
        "--no-comments",
        "--exit-on-error",
        f"--dbname={other}",
    )
    count = (
        "select count(*) from information_schema.tables where table_schema not in ('pg_catalog', 'information_schema')"
    )
    return f"""\
rehearse() {{
  {drop} && {ask} {quote(server.address)} -c 'create database "{scratch}" template template0' &&
    {words("pg_restore", *options)} {path}
}}
trap {quote(drop + ' >/dev/null 2>&1 || :; rm -rf "$scratch"')} EXIT
if rehearse 2> "$scratch/said"; then
  rehearsed="$({ask} {quote(other)} -c {quote(count)}) tables, restored into a database of their own"
elif grep -q 'permission denied' "$scratch/said"; then
  rehearsed="a readable dump, not restored: $(grep -m 1 -o 'permission denied.*' "$scratch/said")"
else
  echo "the dump is as it was made, and could not be restored into a database of its own:"
  cat "$scratch/said"
  exit 1
fi"""


def restore(server: DatabaseServer, path: str, list_file: str) -> str:
    """Replace what is in the database by the dump, all of it or nothing; `list_file` is a file of its own.

    Extensions that are there stay as they are. A script that is cut short lacks its `commit`: nothing is changed then.
    """
    ask = words(*_PSQL, "--quiet", "-At", "-v", "ON_ERROR_STOP=1", "-d", server.address)
    extensions = quote("select extname from pg_extension")
    options = ("--clean", "--if-exists", "--single-transaction", "--file=-")
    return f"""\
there=$({ask} -c {extensions})
contents=$(pg_restore --list {path})
printf '%s\\n' "$contents" | awk -v there="$there" '
  BEGIN {{ for (count = split(there, names); count; count--) extension[names[count]] }}
  $4 == "EXTENSION" && $6 in extension {{ next }}
  $4 == "COMMENT" && $6 == "EXTENSION" {{ next }}
  {{ print }}' > {list_file}
said=$({{
  cat <<'CLEAR'
set client_min_messages = error;
set lock_timeout = '60s';
begin;
{_CLEAR}
CLEAR
  {words("pg_restore", *options)} --use-list={list_file} {path} && printf '\\n\\\\echo %s\\n' restored
}} | {ask})
if [ "$(printf '%s\\n' "$said" | tail -n 1)" != restored ]; then echo 'the dump could not be put back whole: nothing is changed'; exit 1; fi"""
