"""PostgreSQL from the host: dump, check, restore. The password is in a 0600 file, never in argv. Runs nothing.

Source: PostgreSQL manual, pg_dump: a dump is consistent and blocks neither readers nor writers; libpq, The Password
File; pg_restore, --single-transaction: all of it or nothing.
"""

from __future__ import annotations

from fabfile.commands.shell import Script, quote, script, words, write_file
from fabfile.model import Application, DatabaseServer

#: The programs that it takes on the host.
TOOLS = ("pg_dump", "pg_restore", "psql")


def password_file(home: str) -> str:
    """Where the host keeps the password for its own backups."""
    return f"{home}/config/postgres.pass"


def password_line(server: DatabaseServer) -> str:
    """The password file's content: one line that matches every address, since only this one is asked with it."""
    escaped = server.password.replace("\\", "\\\\").replace(":", "\\:")
    return f"*:*:*:*:{escaped}\n"


def keep_password(app: Application) -> Script | str:
    """Bring the password file up to date; an application without its password in hand leaves the file as it is."""
    if app.database_server is None or not app.database_server.password:
        return ""
    path = password_file(app.home)
    return script(
        words("mkdir", "-p", f"{app.home}/config"), write_file(path, password_line(app.database_server), secret=True)
    )


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


def restore(server: DatabaseServer, path: str) -> str:
    """Replace what is in the database by the dump, all of it or nothing."""
    options = ("--no-password", "--clean", "--if-exists", "--single-transaction", f"--dbname={server.address}")
    return f"{words('pg_restore', *options)} {path}"
