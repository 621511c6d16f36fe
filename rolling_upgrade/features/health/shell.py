"""The script that runs every health check of a host in one round trip; verdict.py parses its output.

It is cheap enough to run all day, and writes only the result of the database's daily integrity check. Each probe has its
own deadline on the host: a hanging backend or disk cannot delay the others.
"""

from __future__ import annotations

from rolling_upgrade.engine import maintenance, postgres, sqlite
from rolling_upgrade.engine.model import PORT_OFFSET, Application, Color
from rolling_upgrade.engine.nginx import SERVED_BY, flag, visitor
from rolling_upgrade.engine.observation import FACT, containers, last_backup, section
from rolling_upgrade.engine.paths import backup_directory
from rolling_upgrade.engine.shell import Script, direct, quote, shell_join

#: The timeouts of opening the database and of reading it through.
OPEN_SECONDS = 5
READ_SECONDS = 120
#: The timeout of df: a network file system may hang.
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
        # The clock comes last: the checks before it may take a while.
        "printf 'clock\\t%s\\n' \"$(date +%s)\"",
        section("end"),
    ]
    return direct("\n".join(part for part in parts if part))


def own_url(port: str | int, path: str) -> str:
    """Return the URL of a color on its own port."""
    return f"http://127.0.0.1:{port}{path}"


def _requests(app: Application) -> str:
    """Send every request in parallel with one curl; print `http URL CODE SECONDS SERVED-BY` for each.

    Source: curl(1): with --parallel each transfer has its own --max-time and its own --write-out line; -s alone does not
    silence the progress meter.
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
    urls = [own_url(service.service_port, service.gate.path) for service in app.services]
    if app.full_chain:
        urls.append(own_url(app.service(app.full_chain.service).service_port, app.full_chain.path))
    requests = " ".join(shell_join("-o", "/dev/null", target) for target in (*urls, url))
    colors = []
    for number, service in enumerate(app.services):
        green, blue = (own_url(service.service_port + PORT_OFFSET[color], "") for color in (Color.GREEN, Color.BLUE))
        colors.append(
            f"if [ -e {quote(flag(app, service.name))} ]; then at_{number}={green}; else at_{number}={blue}; fi"
        )
        requests += f' -o /dev/null "$at_{number}"{quote(service.gate.path)}'
    return "\n".join((*colors, f"{shell_join(*curl)} {requests} || :"))


def _resources(app: Application) -> str:
    """Print `disk MOUNT AVAILABLE USED` and `inodes MOUNT AVAILABLE USED` for each mount, and `memory TOTAL AVAILABLE`."""
    paths = [app.database.rpartition("/")[0], app.uploads, backup_directory(app), app.uploads_backups, app.home]
    listed = shell_join("/", *dict.fromkeys(path for path in paths if path)) + ' "$HOME"'
    rows = []
    for name, option in (("disk", "-Pk"), ("inodes", "-Pi")):
        form = f'NR > 1 && !seen[$6]++ {{ print "{name}\\t" $6 "\\t" $4 "\\t" $3 }}'
        rows.append(f"timeout {DISK_SECONDS} df {option} {listed} 2>/dev/null | awk {quote(form)} || :")
    memory = '/^MemTotal:/ { total = $2 } /^MemAvailable:/ { print "memory\\t" total "\\t" $2 }'
    return "\n".join((*rows, f"awk {quote(memory)} /proc/meminfo"))


def _certificate(app: Application) -> str:
    """Print `certificate` and its expiry, Unix seconds, as Nginx serves it: its file may be unreadable."""
    if app.tls is None:
        return ""
    ask = shell_join("openssl", "s_client", "-connect", f"127.0.0.1:{app.https_port}", "-servername", app.domain)
    return f"""\
ends=$(timeout 5 {ask} </dev/null 2>/dev/null | openssl x509 -noout -enddate 2>/dev/null | cut -d = -f 2) || ends=''
printf 'certificate\\t%s\\n' "$(if [ -n "$ends" ]; then date -d "$ends" +%s; fi)\""""


def _database(app: Application) -> str:
    """Print `database ANSWER`, the number of tables or an error, and `integrity ANSWER`, checked once a day."""
    late, unread = f"no answer within {OPEN_SECONDS} s", f"not read through within {READ_SECONDS} s"
    if app.database_server:
        ask = shell_join("psql", "--no-psqlrc", "--no-password", "-At", "-d", app.database_server.address, "-c")
        count = quote("select count(*) from information_schema.tables")
        return f"""\
{postgres.access(app)}
opened=$(timeout {OPEN_SECONDS} {ask} {count} 2>&1) || opened="${{opened:-{late}}}"
printf 'database\\t%s\\n' "$(printf %s "$opened" | tr '\\n\\t' '  ')\""""
    if not app.database:
        return ""
    path, stamp = quote(app.database), quote(f"{app.home}/lock/integrity")
    ask = f'sqlite_program | timeout {OPEN_SECONDS} "$@" {sqlite.RUN} {shell_join("entries", app.database)}'
    read = f'sqlite_program | timeout {READ_SECONDS} nice "$@" {sqlite.RUN} {shell_join("quick", app.database)}'
    return f"""\
{sqlite.program()}
# A file of a container's user is read in the user namespace.
set --
if [ -e {path} ] && [ "$(stat -c %u {path})" != "$(id -u)" ] && [ "$(id -u)" -ne 0 ]; then set -- podman unshare; fi
opened=$({ask} 2>&1) || opened="${{opened:-{late}}}"
printf 'database\\t%s\\n' "$(printf %s "$opened" | tr '\\n\\t' '  ')"
integrity=$(find {stamp} -mmin -1440 -exec cat {{}} ';' 2>/dev/null) || integrity=''
case "$integrity" in
  # Check a bad result again each time: the database may have been repaired.
  ok* | 'not read through'*) ;;
  *) if [ -d {quote(app.home + "/lock")} ]; then
       integrity=$({read} 2>&1) || integrity="${{integrity:-{unread}}}"
       integrity=$(printf %s "$integrity" | tr '\\n\\t' '  ')
       # On a full disk the write fails, which the disk check reports.
       (printf '%s\\n' "$integrity" > {stamp}) 2>/dev/null || :
     fi ;;
esac
printf 'integrity\\t%s\\n' "$integrity\""""
