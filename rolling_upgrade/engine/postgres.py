"""PostgreSQL from the host: dump, check, restore. The password is in a 0600 file, never in argv.

Source: PostgreSQL manual, pg_dump: a dump is consistent and blocks neither readers nor writers; libpq, The Password
File; pg_restore: --single-transaction restores all or nothing; --clean fails on an object of the dump that a later
object refers to, hence the explicit clearing.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from rolling_upgrade.engine.model import Application, DatabaseServer
from rolling_upgrade.engine.shell import Script, quote, shell_join, write_file

#: The programs required on the host.
TOOLS = ("pg_dump", "pg_restore", "psql")

_PSQL = ("psql", "--no-psqlrc", "--no-password")

#: Drops the application's objects in every schema, with all dependent objects. What belongs to another object, such as
#: the sequence of an identity column, is dropped with that one alone. Extensions stay: not every role
#: may drop or create them. `pg_restore --clean` replaces the remaining objects (collations, large objects).
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
      where other.classid = member.classid and other.objid = member.objid and other.deptype in ('e', 'i')
    )
  ) loop
    execute statement;
  end loop;
end
$clear$;"""
#: Begin the transaction of a restore, and remove the application's objects.
BEGIN_AND_CLEAR = f"""\
set client_min_messages = error;
set lock_timeout = '60s';
begin;
{_CLEAR}"""
#: An awk program that removes the extensions in `there`, and all comments on extensions, from the list of a dump.
KEEP_EXTENSIONS = """
  BEGIN { for (count = split(there, names); count; count--) extension[names[count]] }
  $4 == "EXTENSION" && $6 in extension { next }
  $4 == "COMMENT" && $6 == "EXTENSION" { next }
  { print }"""


def password_file(home: str) -> str:
    """The file on the host with the database password; retention never prunes it."""
    return f"{home}/postgres.pass"


def password_line(server: DatabaseServer) -> str:
    """The content of the password file: one line that applies to every address."""
    escaped = server.password.replace("\\", "\\\\").replace(":", "\\:")
    return f"*:*:*:*:{escaped}\n"


def store_password(app: Application) -> Script | str:
    """Write the password file; without a password in the application, the file stays unchanged."""
    if app.database_server is None or not app.database_server.password:
        return ""
    path = password_file(app.home)
    return write_file(path, password_line(app.database_server), secret=True)


def access(app: Application) -> str:
    """Export the password file for the following programs, which never prompt."""
    return f"export PGPASSFILE={quote(password_file(app.home))} PGCONNECT_TIMEOUT=10"


def kib(server: DatabaseServer) -> str:
    """A shell word: the size of the database in KiB, an upper bound for its dump."""
    ask = shell_join(*_PSQL, "-At", "-d", server.address, "-c")
    return f'$({ask} "select pg_database_size(current_database()) / 1024")'


def dump(server: DatabaseServer) -> str:
    """Dump the database into `database.pgdump` in the working directory, and read the dump back once."""
    return f"""\
{shell_join("pg_dump", "--no-password", "--format=custom", "--file=database.pgdump", f"--dbname={server.address}")}
{check("database.pgdump")}"""


def require_restrict_key() -> str:
    """Refuse PostgreSQL programs from before August 2025: with them a dump could run commands on the host."""
    return """\
if ! pg_restore --help | grep -q -e --restrict-key; then
  echo "pg_restore and psql are older than 13.22, 14.19, 15.14, 16.10 or 17.6: with them a dump could run commands on this host."
  echo "Next: apt-get install --only-upgrade 'postgresql-client*' as root, then the same command again"
  exit 1
fi"""


def check(path: str) -> str:
    """Read a whole dump as a restore would, without a server; fails if any part is damaged."""
    return f"{shell_join('pg_restore', '--file=/dev/null')} {path}"


def rehearse(server: DatabaseServer, path: str, scratch: str) -> str:
    """Restore a dump into a temporary database beside the application's, and drop it again; sets `rehearsed`.

    If the role may not create a database, or an extension in it, the script only reads the dump, and `rehearsed` says
    so. Exits 1 if the server refuses for another reason; the dump itself is not damaged then.
    """
    parts = urlsplit(server.address)
    other = urlunsplit(parts._replace(path=f"/{scratch}"))
    ask = shell_join(*_PSQL, "--quiet", "-At", "-v", "ON_ERROR_STOP=1", "-d")
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
    {shell_join("pg_restore", *options)} {path}
}}
trap {quote(drop + ' >/dev/null 2>&1 || :; rm -rf "$scratch"')} EXIT
if rehearse 2> "$scratch/said"; then
  rehearsed="$({ask} {quote(other)} -c {quote(count)}) tables, restored into a temporary database"
elif grep -q 'permission denied' "$scratch/said"; then
  rehearsed="a readable dump, not restored: $(grep -m 1 -o 'permission denied.*' "$scratch/said")"
else
  echo "the dump is intact, but could not be restored into a temporary database:"
  cat "$scratch/said"
  exit 1
fi"""


def restore(server: DatabaseServer, path: str, list_file: str) -> str:
    r"""Replace the content of the database with the dump, all or nothing; `list_file` is a temporary file.

    Existing extensions stay. A script that is cut short lacks its `commit` and changes nothing. The application chooses
    the names in the dump, and a line break in one could start a command of psql, such as `\!`: between `\restrict` and
    `\unrestrict`, with a key that no dump can know, psql accepts none.
    Source: CVE-2025-8714, CVE-2025-8715; pg_restore(1), --restrict-key; psql(1), \restrict.
    """
    ask = shell_join(*_PSQL, "--quiet", "-At", "-v", "ON_ERROR_STOP=1", "-d", server.address)
    extensions = quote("select extname from pg_extension")
    options = ("--clean", "--if-exists", "--single-transaction", "--file=-")
    return f"""\
{require_restrict_key()}
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')
there=$({ask} -c {extensions})
contents=$(pg_restore --list {path})
printf '%s\\n' "$contents" | awk -v there="$there" {quote(KEEP_EXTENSIONS)} > {list_file}
said=$({{
  cat <<'CLEAR'
{BEGIN_AND_CLEAR}
CLEAR
  {shell_join("pg_restore", *options)} --restrict-key="$key" --use-list={list_file} {path} && printf '\\n\\\\echo %s\\n' restored
}} | {ask})
if [ "$(printf '%s\\n' "$said" | tail -n 1)" != restored ]; then echo 'the dump could not be restored in full: nothing was changed'; exit 1; fi"""
