"""PostgreSQL and MariaDB databases in accessories: dump, check, restore, by the programs inside the accessory.

So the versions always match, and the host needs no client. A password reaches a program only through its environment.
A dump comes from a container: the host counts its lines, and only the accessory interprets it.

Source: PostgreSQL manual, pg_dump and pg_restore: a custom dump may be read from a pipe in its own order. MariaDB
manual, mariadb-dump: with --single-transaction a dump is consistent for InnoDB tables; its last line says that it is
complete, and a line break in a value is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from rolling_upgrade.engine import postgres
from rolling_upgrade.engine.model import AccessoryDatabase, Application
from rolling_upgrade.engine.podman import accessory_container
from rolling_upgrade.engine.shell import Script, lines, quote, script, shell_join, write_file

POSTGRES, MYSQL = "postgres", "mysql"
_PSQL = ("psql", "--no-psqlrc", "--no-password", "--quiet", "-At", "-v", "ON_ERROR_STOP=1")
#: Run a MariaDB or MySQL program as root if the accessory knows root's password, else as the application's user. `$1` is
#: the user, `$2` the program without its prefix: `-dump` or nothing.
_MYSQL = """\
user=$1 kind=$2
shift 2
if command -v "mariadb$kind" >/dev/null 2>&1; then program=mariadb$kind; else program=mysql${kind#-}; fi
if [ "$program" = mysqldump ]; then set -- --set-gtid-purged=OFF "$@"; fi
root=${MARIADB_ROOT_PASSWORD:-${MYSQL_ROOT_PASSWORD:-}}
if [ -n "$root" ]; then user=root MYSQL_PWD=$root; fi
export MYSQL_PWD
exec "$program" --user="$user" "$@\""""
_MYSQL_DUMP = (
    "--single-transaction",
    "--quick",
    "--routines",
    "--triggers",
    "--events",
    "--hex-blob",
    "--no-tablespaces",
)
#: Count the tables and rows of a dump of pg_restore; the last line says whether pg_restore has failed.
_COUNT_POSTGRES = """\
/^COPY .* FROM stdin;$/ && !copy { copy = 1; next }
copy && $0 == "\\\\." { copy = 0; next }
copy { rows++ }
!copy && /^CREATE (UNLOGGED )?TABLE / { tables++ }
$0 == "@@failed" { failed = 1 }
END { if (failed) exit 1; printf "%d %d\\n", tables, rows }"""
#: Count them in a dump of MariaDB or MySQL: each row of an INSERT begins with a parenthesis outside of texts and names.
#: The INSERTs of a table with generated columns name the other ones first.
_COUNT_MYSQL = r"""import re, sys
text = re.compile(rb"'(?:[^'\\]|\\.|'')*'|`(?:[^`]|``)*`")
columns = re.compile(rb"^(INSERT INTO +)\([^()]*\)")
tables = rows = 0
inside = False
last = b""
for line in sys.stdin.buffer:
    inside = inside or line.startswith(b"INSERT INTO ")
    tables += not inside and line.startswith(b"CREATE TABLE ")
    if inside:
        bare = columns.sub(rb"\1", text.sub(b"", line))
        rows += bare.count(b"(")
        inside = not bare.rstrip().endswith(b";")
    last = line if line.strip() else last
if not last.startswith(b"-- Dump completed"):
    sys.exit("the dump is cut short")
print(tables, rows)"""
#: Print a statement for each table of the database that counts its rows.
_COUNTS_POSTGRES = """\
select format('select count(*) from only %I.%I', nspname, relname) from pg_class
join pg_namespace space on space.oid = relnamespace
where relkind = 'r' and nspname !~ '^pg_' and nspname <> 'information_schema' \\gexec"""
#: Count the tables of the database.
_TABLES_POSTGRES = """\
select count(*) from pg_class join pg_namespace space on space.oid = relnamespace
where relkind in ('r', 'p') and nspname !~ '^pg_' and nspname <> 'information_schema'"""
#: Count the tables in the list of a dump.
_LISTED_TABLES = '$4 == "TABLE" && $5 != "DATA" && $5 != "ATTACH" { tables++ } END { print tables + 0 }'
#: A setting of the transaction that the end of the dump commits; without that end, it is still there.
_OPEN = "select set_config('rolling.restore', 'open', true);"
_END = "select case current_setting('rolling.restore', true) when 'open' then 'unfinished' else 'restored' end;"
_COUNTS_MYSQL = """\
select concat('select count(*) from `', replace(table_schema, '`', '``'), '`.`', replace(table_name, '`', '``'), '`;')
from information_schema.tables where table_type = 'BASE TABLE' and table_schema = database()"""
_SUM = "awk '{ sum += $1 } END { printf \"%d\\n\", sum }'"


def file_name(databases: Sequence[AccessoryDatabase], database: AccessoryDatabase) -> str:
    """The name of the dump in a backup: that of the accessory, numbered if the accessory has several databases."""
    same = [other for other in databases if other.accessory == database.accessory]
    number = same.index(database)
    ending = "pgdump" if database.kind == POSTGRES else "sql.gz"
    return f"{database.accessory}{f'.{number + 1}' if number else ''}.{ending}"


def password_file(app: Application, database: AccessoryDatabase) -> str:
    """The file on the host with the password of a database."""
    return f"{app.home}/databases/{file_name(app.databases, database)}.pass"


def store_passwords(app: Application) -> Script | str:
    """Write the password files of all databases; those of a recorded application, which has none, stay."""
    known = [database for database in app.databases if database.password]
    if not known:
        return ""
    files = [write_file(password_file(app, database), database.password, secret=True) for database in known]
    return script(f"mkdir -p {quote(f'{app.home}/databases')}", *files)


def access(app: Application, database: AccessoryDatabase) -> str:
    """Export the password for the following programs, and require that the accessory runs."""
    container = accessory_container(app.name, database.accessory)
    running = shell_join("podman", "container", "inspect", "--format", "{{.State.Running}}", container)
    problem = quote(f"the accessory {database.accessory} is not running. Next: rolling-upgrade accessory.up")
    return f"""\
if [ "$({running} 2>/dev/null)" != true ]; then echo {problem}; exit 1; fi
PGPASSWORD=$(cat {quote(password_file(app, database))} 2>/dev/null) || PGPASSWORD=''
MYSQL_PWD=$PGPASSWORD PGCONNECT_TIMEOUT=10
export PGPASSWORD MYSQL_PWD PGCONNECT_TIMEOUT"""


def _inside(app: Application, database: AccessoryDatabase, *command: str) -> str:
    """A command in the accessory, with the password in its environment, and with the script's standard input."""
    names = ("PGPASSWORD", "PGCONNECT_TIMEOUT") if database.kind == POSTGRES else ("MYSQL_PWD",)
    options = [word for name in names for word in ("--env", name)]
    return shell_join(
        "podman", "exec", "--interactive", *options, accessory_container(app.name, database.accessory), *command
    )


def _postgres(app: Application, database: AccessoryDatabase, program: Sequence[str], name: str = "") -> str:
    where = (
        "--host=127.0.0.1",
        f"--port={database.port}",
        f"--username={database.user}",
        f"--dbname={name or database.name}",
    )
    return _inside(app, database, *program, *where)


def _mysql(app: Application, database: AccessoryDatabase, kind: str, *options: str) -> str:
    return _inside(app, database, "sh", "-c", _MYSQL, "sh", database.user, kind, *options)


def kib(app: Application, database: AccessoryDatabase) -> str:
    """Add the size of the database in KiB to `$need`: an upper bound for its dump. A missing database adds nothing."""
    if database.kind == POSTGRES:
        ask = f"{_postgres(app, database, _PSQL)} -c 'select pg_database_size(current_database()) / 1024' </dev/null"
    else:
        size = "select coalesce(ceiling(sum(data_length) / 1024), 0) from information_schema.tables where table_schema = database()"
        options = ("--batch", "--skip-column-names", f"--database={database.name}")
        ask = f"printf '%s\\n' {quote(size)} | {_mysql(app, database, '', *options)}"
    return f"""\
{access(app, database)}
size=$({ask} 2>/dev/null) || size=0
case $size in '' | *[!0-9]*) size=0 ;; esac
need=$((need + size))"""


def dump(app: Application, database: AccessoryDatabase, earlier: str) -> str:
    """Dump a database into its file in the working directory, read the dump once, and append it to `$databases`.

    A database that does not exist yet has no file, because the first release may create it. If `earlier` manifests have
    it, that is an error, except before a deploy.
    """
    file = file_name(app.databases, database)
    if database.kind == POSTGRES:
        run = _postgres(app, database, ("pg_dump", "--no-password", "--format=custom"))
        run, missing = f"{run} </dev/null > {quote(file)} 2> said", 'database ".*" does not exist'
    else:
        run = _mysql(app, database, "-dump", *_MYSQL_DUMP, database.name)
        run, missing = (
            f"{{ {run} </dev/null || echo '-- Dump failed'; }} 2> said | gzip > {quote(file)}",
            "Unknown database",
        )
    count = counted(app, database, quote(file))
    entry = json.dumps({"accessory": database.accessory, "kind": database.kind, "name": database.name, "file": file})[
        :-1
    ]
    of = quote(f"{database.name} of {database.accessory}")
    return f"""\
{access(app, database)}
status=0
{run} || status=$?
if grep -q {quote(missing)} said; then
  if [ "$kind" != deploy ] && grep -qsF {quote(entry)} {earlier}; then
    echo {of}" is missing, but earlier backups have it. Next: restore it"; exit 1
  fi
  echo {of}": none yet"
  rm -f {quote(file)} said
else
  if [ "$status" -ne 0 ]; then cat said; exit 1; fi
  counts=$({count} 2>> said) || {{ echo {of}" could not be dumped:"; cat said; exit 1; }}
  rm -f said
  databases="$databases${{databases:+, }}"{quote(entry)}", \\"tables\\": ${{counts% *}}, \\"rows\\": ${{counts#* }}}}"
  echo {of}": ${{counts% *}} tables, ${{counts#* }} rows"
fi"""


def counted(app: Application, database: AccessoryDatabase, path: str) -> str:
    """A command that reads a whole dump, and prints the numbers of its tables and rows; fails if a part is damaged.

    `path` is a shell word.
    """
    if database.kind == POSTGRES:
        read = _inside(app, database, "pg_restore", "--file=-")
        return f"{{ {read} < {path} || echo @@failed; }} | LC_ALL=C awk {quote(_COUNT_POSTGRES)}"
    return f"{{ gzip -dc {path} || echo @@failed; }} | python3 -I -c {quote(_COUNT_MYSQL)}"


def rehearse(app: Application, database: AccessoryDatabase, path: str, scratch: str, rows: int) -> str:
    """Restore a dump into a temporary database of the accessory, compare its rows, and drop it again.

    Calls the shell function `damaged` if it has fewer rows than the manifest. If the user may not create a database,
    the script says so. It exits 1 if the accessory refuses for another reason; the dump itself is not damaged then.
    """
    create, load, count, drop, denied = (
        _rehearse_postgres(app, database, path, scratch)
        if database.kind == POSTGRES
        else _rehearse_mysql(app, database, path, scratch)
    )
    of = quote(f"{database.name} of {database.accessory}")
    return f"""\
drop_scratch() {{ {drop} >/dev/null 2>&1 </dev/null || :; }}
trap 'drop_scratch; rm -rf "$scratch"' EXIT
drop_scratch
if {{ {create} && {load}; }} 2> "$scratch/said" >/dev/null; then
  found=$({count}) || exit 1
  if [ "$found" -lt {rows} ]; then damaged "{database.accessory}: $found rows instead of {rows}"; fi
  echo {of}": $found rows, restored into a temporary database"
elif grep -qi {quote(denied)} "$scratch/said"; then
  echo {of}": a readable dump, not restored: $(grep -im 1 {quote(denied)} "$scratch/said")"
else
  echo {of}": the dump is readable, but could not be restored into a temporary database:"
  cat "$scratch/said"
  exit 1
fi
drop_scratch
trap 'rm -rf "$scratch"' EXIT"""


def _rehearse_postgres(app: Application, database: AccessoryDatabase, path: str, scratch: str) -> tuple[str, ...]:
    ask = _postgres(app, database, _PSQL)
    options = ("--no-password", "--no-owner", "--no-privileges", "--no-comments", "--exit-on-error")
    return (
        f"{ask} -c {quote(f'create database {_name(scratch)} template template0')} </dev/null",
        f"{_postgres(app, database, ('pg_restore', *options), scratch)} < {path}",
        f"printf '%s\\n' {quote(_COUNTS_POSTGRES)} | {_postgres(app, database, _PSQL, scratch)} | {_SUM}",
        f"{ask} -c {quote(f'drop database if exists {_name(scratch)}')}",
        "permission denied",
    )


def _rehearse_mysql(app: Application, database: AccessoryDatabase, path: str, scratch: str) -> tuple[str, ...]:
    batch, other = ("--batch", "--skip-column-names"), _mysql_name(scratch)
    ask, inside = _mysql(app, database, "", *batch), _mysql(app, database, "", *batch, f"--database={scratch}")
    return (
        f"printf '%s\\n' {quote(f'create database {other}')} | {ask}",
        f"gzip -dc {path} | {inside}",
        f"printf '%s\\n' {quote(_COUNTS_MYSQL)} | {inside} | {inside} | {_SUM}",
        f"printf '%s\\n' {quote(f'drop database if exists {other}')} | {ask}",
        "access denied",
    )


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _mysql_name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def restore(app: Application, database: AccessoryDatabase, path: str, began: str) -> str:
    """Replace the content of the database with the dump. `path` and `began` are shell words.

    PostgreSQL replaces all or nothing, and `began` exists once that is done. MariaDB commits each statement, so it
    exists as soon as the first one may have run. The undo restores the former data if `began` exists.
    """
    how = _restore_postgres if database.kind == POSTGRES else _restore_mysql
    return f"{access(app, database)}\n{how(app, database, path, began)}"


def _restore_postgres(app: Application, database: AccessoryDatabase, path: str, began: str) -> str:
    """Like `postgres.restore`, by the programs of the accessory. Old ones have no key; they only reach their container."""
    list_file = f"/tmp/rolling-{app.name}.list"  # noqa: S108 - inside the container
    ask = _postgres(app, database, _PSQL)
    options = ("--clean", "--if-exists", "--single-transaction", "--file=-", f"--use-list={list_file}")
    keep_list = _inside(app, database, "sh", "-c", f"cat > {list_file}")
    names = quote("select extname from pg_extension")
    load = _inside(app, database, "pg_restore", *options)
    has_key = f"{_inside(app, database, 'pg_restore', '--help')} </dev/null | grep -q -e --restrict-key"
    return f"""\
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')
set -- --restrict-key="$key"
if ! {has_key}; then set --; fi
there=$({ask} -c {names} </dev/null)
contents=$({_inside(app, database, "pg_restore", "--list")} < {path})
contents=$(printf '%s\\n' "$contents" | awk -v there="$there" {quote(postgres.KEEP_EXTENSIONS)})
printf '%s\\n' "$contents" | {keep_list}
# An incomplete list would restore less than the dump, without an error.
kept=$({_inside(app, database, "cat", list_file)} </dev/null)
if [ -z "$contents" ] || [ "$kept" != "$contents" ]; then echo 'the list of the dump did not reach the accessory: nothing was changed'; exit 1; fi
said=$({{
  cat <<'CLEAR'
{postgres.BEGIN_AND_CLEAR}
{_OPEN}
CLEAR
  {load} "$@" < {path} && printf '\\n%s\\n' {quote(_END)}
}} | {ask})
{_inside(app, database, "rm", "-f", list_file)} </dev/null
if [ "$(printf '%s\\n' "$said" | tail -n 1)" != restored ]; then echo 'the dump could not be restored in full: nothing was changed'; exit 1; fi
: > {began}
listed=$(printf '%s\\n' "$contents" | awk {quote(_LISTED_TABLES)})
tables=$({ask} -c {quote(_TABLES_POSTGRES)} </dev/null)
[ "${{tables:-0}}" -ge "$listed" ] || {{ echo 'the dump could not be restored in full'; exit 1; }}"""


def _restore_mysql(app: Application, database: AccessoryDatabase, path: str, began: str) -> str:
    name, batch = _mysql_name(database.name), ("--batch", "--skip-column-names")
    ask, inside = _mysql(app, database, "", *batch), _mysql(app, database, "", *batch, f"--database={database.name}")
    defaults = (
        "select concat('character set ', default_character_set_name, ' collate ', default_collation_name) "
        "from information_schema.schemata where schema_name = database()"
    )
    return f"""\
defaults=$(printf '%s\\n' {quote(defaults)} | {inside})
case $defaults in *[!A-Za-z0-9_\\ ]*) echo 'unexpected character set'; exit 1 ;; esac
: > {began}
printf '%s\\n' {quote(f"drop database if exists {name}; create database {name}")}" $defaults;" | {ask}
status=$({{ gzip -dc {path} | {inside} >&2; }} && echo restored) || :
if [ "$status" != restored ]; then echo 'the dump could not be restored in full'; exit 1; fi"""


def undo(app: Application, database: AccessoryDatabase, path: str, began: str) -> str:
    """Restore the dump of the former data if the restore has changed the database."""
    return lines((f"if [ -e {began} ]; then", restore(app, database, path, began), f"rm -f {began}", "fi"))
