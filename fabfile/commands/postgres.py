"""PostgreSQL from the host: dump, check, restore. The password is in a 0600 file, never in argv. Runs nothing.

Source: PostgreSQL manual, pg_dump: a dump is consistent and blocks neither readers nor writers; libpq, The Password
File; pg_restore, --single-transaction: all of it or nothing.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from fabfile.commands.shell import Script, quote, words, write_file
from fabfile.model import Application, DatabaseServer

#: The programs that it takes on the host.
TOOLS = ("pg_dump", "pg_restore", "psql")


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
    ask = words("psql", "--no-psqlrc", "--no-password", "-At", "-d", server.address, "-c")
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
    """Restore a dump into a database of its own beside the application's, and drop it again; `damaged WHY` when it fails.

    A role that may create no database leaves it at having read the dump; that is said.
    """
    parts = urlsplit(server.address)
    other = urlunsplit(parts._replace(path=f"/{scratch}"))
    ask = words("psql", "--no-psqlrc", "--no-password", "--quiet", "-At", "-v", "ON_ERROR_STOP=1", "-d")
    drop = f"{ask} {quote(server.address)} -c 'drop database if exists \"{scratch}\"'"
    options = ("--no-password", "--no-owner", "--no-privileges", "--exit-on-error", f"--dbname={other}")
    count = (
        "select count(*) from information_schema.tables where table_schema not in ('pg_catalog', 'information_schema')"
    )
    return f"""\
rehearsed='a readable dump'
if {ask} {quote(server.address)} -c 'create database "{scratch}" template template0' 2> "$scratch/said"; then
  trap {quote(drop + ' 2>/dev/null || :; rm -rf "$scratch"')} EXIT
  if ! {words("pg_restore", *options)} {path} 2> "$scratch/said"; then damaged "$(cat "$scratch/said")"; fi
  rehearsed="$({ask} {quote(other)} -c {quote(count)}) tables, restored into a database of their own"
elif ! grep -q 'permission denied' "$scratch/said"; then
  cat "$scratch/said"; exit 1
else
  rehearsed="a readable dump, not restored: the role may not create a database"
fi"""


def restore(server: DatabaseServer, path: str) -> str:
    """Replace what is in the database by the dump, all of it or nothing."""
    options = ("--no-password", "--clean", "--if-exists", "--single-transaction", f"--dbname={server.address}")
    return f"{words('pg_restore', *options)} {path}"
