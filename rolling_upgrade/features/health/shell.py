"""How well a host is: the one script that asks everything in one round trip, cheap enough to run all day. Pure text.

What it prints is judged in commands/verdict.py. It changes nothing but the date of the database's last integrity check.
Each probe has a deadline of its own on the host, so that a backend or a disk that hangs cannot hang the answer.
"""

from __future__ import annotations

from fabfile.commands import journal, maintenance, postgres
from fabfile.commands.backup import backup_directory
from fabfile.commands.nginx import flag
from fabfile.commands.probe import SERVED_BY, visitor
from fabfile.commands.shell import Script, quote, words
from fabfile.commands.state import FACT, containers, last_backup, section
from fabfile.model import PORT_OFFSET, Application, Color

#: How long the database may take to open, and to be read through.
OPEN_SECONDS = 5
READ_SECONDS = 120
#: How long a writer may keep the database to itself: without WAL each commit does for a moment.
BUSY_SECONDS = 3
#: How long df may take: a file system over a network may hang.
DISK_SECONDS = 5


def check(app: Application) -> Script:
    """Print flags, containers, lock and every check of the host."""
    live = quote(f"{app.home}/live")
    parts = [
        section("facts"),
        FACT,
        'fact now "$(date +%s)"',
        last_backup(app),
        f'fact maintenance "$({maintenance.origin(app)})"',
        section("active"),
        f"(cd {live} 2>/dev/null && ls) || :",
        section("containers"),
        containers(app),
        section("lock"),
        f"cat {quote(app.home + '/lock/held')} 2>/dev/null || :",
        *(section(name) for name in ("listening", "releases", "probes")),
        section("checks"),
        _requests(app),
        _resources(app),
        _certificate(app),
        _database(app),
        # The last word: what was asked before it may have hung for a while.
        "printf 'clock\\t%s\\n' \"$(date +%s)\"",
        section("end"),
    ]
    return journal.direct("\n".join(part for part in parts if part))


def own_url(port: str | int, path: str) -> str:
    """The address of a color on its own port."""
    return f"http://127.0.0.1:{port}{path}"


def _requests(app: Application) -> str:
    """Every request at once in one curl: `http URL CODE SECONDS SERVED-BY`, the color's own port by its flag.

    Source: curl(1): with --parallel each transfer has its own --max-time, and its own line of --write-out; -s alone
    does not silence its progress there.
    """
    form = f"http\\t%{{url}}\\t%{{http_code}}\\t%{{time_total}}\\t%header{{{SERVED_BY}}}\\n"
    seconds = max(service.gate.timeout_seconds for service in app.services)
    url, options = visitor(app)
    curl: list[str | float] = [
        "curl",
        "-s",
        "--no-progress-meter",
        "--parallel",
        "--parallel-immediate",
        "-w",
        form,
        "--max-time",
        seconds,
        *options,
    ]
    urls = [own_url(service.stable_port, service.gate.path) for service in app.services]
    if app.full_chain:
        urls.append(own_url(app.service(app.full_chain.service).stable_port, app.full_chain.path))
    asked = " ".join(words("-o", "/dev/null", one) for one in (*urls, url))
    colors = []
    for number, service in enumerate(app.services):
        green, blue = (own_url(service.stable_port + PORT_OFFSET[color], "") for color in (Color.GREEN, Color.BLUE))
        colors.append(
            f"if [ -e {quote(flag(app, service.name))} ]; then at_{number}={green}; else at_{number}={blue}; fi"
        )
        asked += f' -o /dev/null "$at_{number}"{quote(service.gate.path)}'
    return "\n".join((*colors, f"{words(*curl)} {asked} || :"))


def _resources(app: Application) -> str:
    """`disk MOUNT AVAILABLE USED`, `inodes MOUNT AVAILABLE USED` and `memory TOTAL AVAILABLE`, each of them once."""
    paths = [app.database.rpartition("/")[0], app.uploads, backup_directory(app), app.uploads_backups, app.home]
    listed = words("/", *dict.fromkeys(path for path in paths if path)) + ' "$HOME"'
    rows = []
    for name, option in (("disk", "-Pk"), ("inodes", "-Pi")):
        form = f'NR > 1 && !seen[$6]++ {{ print "{name}\\t" $6 "\\t" $4 "\\t" $3 }}'
        rows.append(f"timeout {DISK_SECONDS} df {option} {listed} 2>/dev/null | awk {quote(form)} || :")
    memory = '/^MemTotal:/ { total = $2 } /^MemAvailable:/ { print "memory\\t" total "\\t" $2 }'
    return "\n".join((*rows, f"awk {quote(memory)} /proc/meminfo"))


def _certificate(app: Application) -> str:
    """`certificate` and when it ends, Unix seconds, as Nginx hands it to a visitor: its file may be unreadable."""
    if app.tls is None:
        return ""
    ask = words("openssl", "s_client", "-connect", f"127.0.0.1:{app.https_port}", "-servername", app.domain)
    return f"""\
ends=$(timeout 5 {ask} </dev/null 2>/dev/null | openssl x509 -noout -enddate 2>/dev/null | cut -d = -f 2) || ends=''
printf 'certificate\\t%s\\n' "$(if [ -n "$ends" ]; then date -d "$ends" +%s; fi)\""""


def _database(app: Application) -> str:
    """`database ANSWER`, the number of its tables or what went wrong; `integrity ANSWER`, found once a day."""
    late, unread = f"no answer within {OPEN_SECONDS} s", f"not read through within {READ_SECONDS} s"
    if app.database_server:
        ask = words("psql", "--no-psqlrc", "--no-password", "-At", "-d", app.database_server.address, "-c")
        count = quote("select count(*) from information_schema.tables")
        return f"""\
{postgres.access(app)}
opened=$(timeout {OPEN_SECONDS} {ask} {count} 2>&1) || opened="${{opened:-{late}}}"
printf 'database\\t%s\\n' "$(printf %s "$opened" | tr '\\n\\t' '  ')\""""
    if not app.database:
        return ""
    path, stamp = quote(app.database), quote(f"{app.home}/lock/integrity")
    sqlite = f"sqlite3 -batch -bail -readonly -cmd '.timeout {BUSY_SECONDS * 1000}' {path}"
    ask, read = f'timeout {OPEN_SECONDS} "$@" {sqlite}', f'timeout {READ_SECONDS} nice "$@" {sqlite}'
    count, quick = quote("select count(*) from sqlite_master"), quote("pragma quick_check(1)")
    return f"""\
# A file that a container's user owns is read as that user's root.
set --
if [ -e {path} ] && [ "$(stat -c %u {path})" != "$(id -u)" ] && [ "$(id -u)" -ne 0 ]; then set -- podman unshare; fi
opened=$({ask} {count} 2>&1) || opened="${{opened:-{late}}}"
printf 'database\\t%s\\n' "$(printf %s "$opened" | tr '\\n\\t' '  ')"
whole=$(find {stamp} -mmin -1440 -exec cat {{}} ';' 2>/dev/null) || whole=''
case "$whole" in
  # What was found bad is read again each time: it may be mended by now.
  ok* | 'not read through'*) ;;
  *) if [ -d {quote(app.home + "/lock")} ]; then
       whole=$({read} {quick} 2>&1) || whole="${{whole:-{unread}}}"
       whole=$(printf %s "$whole" | tr '\\n\\t' '  ')
       # A full disk keeps nothing, and is a fault of its own.
       (printf '%s\\n' "$whole" > {stamp}) 2>/dev/null || :
     fi ;;
esac
printf 'integrity\\t%s\\n' "$whole\""""
