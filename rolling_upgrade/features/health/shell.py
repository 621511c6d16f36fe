"""The script that runs every health check of a host, and the parser that judges its output by the host's thresholds.

The script is one round trip, cheap enough to run all day, and writes only the result of the database's daily integrity
check. Each probe has its own deadline on the host: a hanging backend or disk cannot delay the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

from rolling_upgrade.engine import accessory, jobs, maintenance, observation, postgres, request, sqlite, untrusted
from rolling_upgrade.engine.container_check import DEFINE_CHECK, find_healthcheck, run_healthcheck, run_ready
from rolling_upgrade.engine.model import Application, Check, Color, HealthReport, HostState, Kind, Service
from rolling_upgrade.engine.nginx import flag
from rolling_upgrade.engine.observation import FACT, containers, last_backup, section
from rolling_upgrade.engine.paths import backup_directory
from rolling_upgrade.engine.podman import container_name
from rolling_upgrade.engine.request import SERVED_BY, Request
from rolling_upgrade.engine.shell import EXACT_UPTIME, Script, direct, quote, shell_join

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
        accessory.supposed(app),
        jobs.facts(app) if app.jobs else "",
        section("active"),
        f"(cd {live} 2>/dev/null && ls) || :",
        section("containers"),
        containers(app),
        section("lock"),
        f"cat {quote(app.home + '/lock/held')} 2>/dev/null || :",
        *(section(name) for name in ("listening", "releases", "probes")),
        section("accessories"),
        accessory.check_all(app),
        section("checks"),
        _requests(app),
        _readiness(app),
        _resources(app),
        _certificate(app),
        _database(app),
        # The clock comes last: the checks before it may take a while.
        "printf 'clock\\t%s\\n' \"$(date +%s)\"",
        section("end"),
    ]
    return direct("\n".join(part for part in parts if part))


def _requests(app: Application) -> str:
    """Send every request in parallel with one curl; print `http URL CODE SECONDS SERVED-BY LOCATION` for each."""
    if not app.has_site:
        return ""
    form = "http\\t%{url}\\t%{http_code}\\t%{time_total}\\t" + f"%header{{{SERVED_BY}}}\\t%header{{location}}\\n"
    seconds = max(service.gate.timeout_seconds for service in app.http_services)
    configurations = [request.configuration(asked, seconds, form) for asked in _through_nginx(app)]
    for service in app.http_services:
        green, blue = (
            request.configuration(request.to_service(app, service, service.port(color)), seconds, form)
            for color in (Color.GREEN, Color.BLUE)
        )
        configurations.append(f"if [ -e {quote(flag(app, service.name))} ]; then\n{green}\nelse\n{blue}\nfi")
    return f"{request.parallel(configurations)} || :"


def _through_nginx(app: Application) -> tuple[Request, ...]:
    return (
        *(request.to_service(app, service, service.service_port) for service in app.http_services),
        *([request.of_chain(app, app.full_chain)] if app.full_chain else []),
        request.to_site(app),
    )


def _readiness(app: Application) -> str:
    """Print `ready SERVICE MILLISECONDS ANSWER` for each service with a command or a HEALTHCHECK; no ANSWER if it is ready.

    All commands run at the same time, each with its own timeout.
    """
    parts, name = [], '"$name"'
    for service in app.services:
        gate = service.gate
        if not service.is_worker and not gate.ready:
            continue
        green, blue = (container_name(app.name, service.name, color) for color in (Color.GREEN, Color.BLUE))
        check = f"ready {service.name} {run_ready(service, name)}"
        if not gate.ready:
            run = f"ready {service.name} {run_healthcheck(name)}"
            check = f'{find_healthcheck(name)}\nif [ -n "$healthcheck" ]; then {run}; fi'
        parts.append(
            f"(\nif [ -e {quote(flag(app, service.name))} ]; then name={green}; else name={blue}; fi\n{check}\n) &"
        )
    return "\n".join((DEFINE_CHECK, _READY, *parts, "wait")) if parts else ""


#: A command that does not end runs on inside the container after its timeout. No check starts beside so many.
_MOST_SESSIONS = 8
#: Define `ready SERVICE check SECONDS COMMAND…`, which checks the container `name`.
_READY = f"""\
clock() {{
  clock=$({EXACT_UPTIME})
  clock=${{clock%.*}}${{clock#*.}}
}}
ready() {{
  service=$1
  shift
  clock
  began=$clock last=''
  sessions=$(podman container inspect --format '{{{{len .ExecIDs}}}}' "$name" 2>/dev/null) || sessions=0
  if [ "$sessions" -lt {_MOST_SESSIONS} ]; then "$@" || :; else last="$sessions earlier commands have not ended"; fi
  clock
  printf 'ready\\t%s\\t%s\\t%s\\n' "$service" "$(((clock - began) * 10))" "$last"
}}"""


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
    if app.tls is None or not app.has_site:
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


_DAY = 86_400.0


def parse(app: Application, host: str, text: str, now: float | None = None) -> HealthReport:
    """Parse the output of `check`; `now` is the caller's clock, given only when it is not the host's own.

    Raises Malformed for truncated or foreign text.
    """
    state = observation.parse(app.name, host, text)
    rows = [row.split("\t") for row in observation.sections(text).get("checks", [])]
    checks = [
        *(_container_check(service, state) for service in app.services),
        *(_accessory_check(name, state) for name in accessory.expected(app, state)),
        *_request_checks(app, state, rows),
        *_ready_checks(app, rows),
        *_resource_checks(app, rows),
        *_database_checks(rows),
        *_certificate_checks(app, state, rows),
        *_backup_checks(app, state),
        *_job_checks(app, state),
    ]
    if now is not None:
        checks.append(_clock_check(app, state, rows, now))
    ends = next((row[1] for row in rows if row[0] == "certificate" and len(row) > 1), "")
    return HealthReport(state, tuple(checks), untrusted.integer(ends, maximum=untrusted.LATEST, default=None))


def _container_check(service: Service, state: HostState) -> Check:
    color = state.active_color(service.name)
    container = state.container(service.name, color)
    name = f"{service.name} container"
    if container is None:
        return Check(Kind.CONTAINER, name, False, f"no {color.value} container", service.name)
    if not container.running:
        detail = f"{color.value} is {container.status or 'not running'}, exit code {container.exit_code}"
        return Check(Kind.CONTAINER, name, False, detail, service.name)
    tag = container.image.tag or container.image.digest[7:19]
    return Check(Kind.CONTAINER, name, True, f"{color.value} {tag} runs, {container.restarts} restarts", service.name)


def _accessory_check(name: str, state: HostState) -> Check:
    problem = accessory.problem(name, state)
    container = state.accessory(name)
    tag = (container.image.tag or container.image.digest[7:19]) if container else ""
    return Check(Kind.ACCESSORY, f"accessory {name}", not problem, problem or f"{tag} is healthy")


def _request_checks(app: Application, state: HostState, rows: list[list[str]]) -> Iterator[Check]:
    if not app.has_site:
        return
    answers = {row[1]: row[2:] for row in rows if row[0] == "http" and len(row) >= 4}
    for service in app.http_services:
        own = request.to_service(app, service, service.port(state.active_color(service.name)))
        yield _answer(f"{service.name} http", own.url, answers, service.name)
    for service in app.http_services:
        url = request.to_service(app, service, service.service_port).url
        yield _answer(f"{service.name} nginx", url, answers, service.name)
    if app.full_chain:
        yield _answer("full chain", request.of_chain(app, app.full_chain).url, answers, app.full_chain.service)
    yield _answer("site", request.to_site(app).url, answers, "", page=bool(state.fact("maintenance")))


def _answer(name: str, url: str, answers: dict[str, list[str]], service: str, *, page: bool = False) -> Check:
    """Judge one answer: the site may also redirect, return a client error, or serve the maintenance page with 503."""
    found = answers.get(url) or answers.get(url.removesuffix("/")) or ["000", "0"]
    code, seconds, served, location = (*found[:4], "", "")[:4]
    good = code[:1] == "2" or (name == "site" and (code[:1] in {"3", "4"} or (page and code == "503")))
    milliseconds = round(untrusted.number(seconds, default=0.0) * 1000)
    detail = f"{request.described(code, served, location)}, {url}"
    return Check(Kind.HTTP, name, good, detail, service, milliseconds, code != "000")


def _ready_checks(app: Application, rows: list[list[str]]) -> Iterator[Check]:
    found = {row[1]: row[2:] for row in rows if row[0] == "ready" and len(row) == 4}
    for service in app.services:
        if service.name not in found:
            if service.gate.ready:
                yield Check(Kind.READY, f"{service.name} ready", False, "no answer", service.name, answered=False)
            continue
        milliseconds, answer = found[service.name]
        took = round(untrusted.number(milliseconds, default=0.0))
        detail = answer or ("its command succeeds" if service.gate.ready else "its HEALTHCHECK succeeds")
        yield Check(Kind.READY, f"{service.name} ready", not answer, detail, service.name, took, not answer)


def _resource_checks(app: Application, rows: list[list[str]]) -> Iterator[Check]:
    limits = app.thresholds
    for what in ("disk", "inodes"):
        mounts = [row for row in rows if row[0] == what and len(row) == 4]
        if not mounts and what == "disk":
            yield Check(Kind.DISK, "disk", False, "df returned nothing")
        for _, mount, available, used in mounts:
            free = _share(available, used)
            if free is not None:
                detail = f"{free:.0f} % of {what} free on {mount}, required {limits.free_percent:g} %"
                yield Check(Kind.DISK, f"{what} {mount}", free >= limits.free_percent, detail)
    for _, total, available in (row for row in rows if row[0] == "memory" and len(row) == 3):
        in_use = 100 - 100 * untrusted.integer(available) / untrusted.integer(total, minimum=1)
        detail = f"{in_use:.0f} % of memory in use, allowed {limits.memory_percent:g} %"
        yield Check(Kind.MEMORY, "memory", in_use <= limits.memory_percent, detail)


def _share(available: str, used: str) -> float | None:
    """Return the free share in percent; None for a file system without such a count."""
    free, taken = (untrusted.integer(text, default=None) for text in (available, used))
    if free is None or taken is None or free + taken == 0:
        return None
    return 100 * free / (free + taken)


def _database_checks(rows: list[list[str]]) -> Iterator[Check]:
    for row in rows:
        answer = "\t".join(row[1:]).strip()
        if row[0] == "database":
            entries = untrusted.integer(answer, default=None)
            detail = answer if entries is None else f"{entries} entries in its schema"
            yield Check(Kind.DATABASE, "database", entries is not None, detail)
        if row[0] == "integrity" and answer:
            unfinished = answer.startswith("not read through")
            yield Check(Kind.DATABASE, "integrity", answer == "ok" or unfinished, answer)


def _certificate_checks(app: Application, state: HostState, rows: list[list[str]]) -> Iterator[Check]:
    for row in rows:
        if row[0] != "certificate":
            continue
        ends = untrusted.integer(row[1], maximum=untrusted.LATEST, default=None) if len(row) > 1 else None
        if ends is None:
            yield Check(Kind.CERTIFICATE, "certificate", False, "Nginx serves no certificate")
            continue
        days = (ends - state.now) / _DAY
        detail = f"{days:.0f} days left, required {app.thresholds.certificate_days:g}"
        yield Check(Kind.CERTIFICATE, "certificate", days >= app.thresholds.certificate_days, detail)


def _backup_checks(app: Application, state: HostState) -> Iterator[Check]:
    """Check the age of the last backup, if backups are scheduled."""
    if not app.auto_backup:
        return
    text, _, name = state.fact("last_backup").partition(" ")
    at = untrusted.integer(text, maximum=untrusted.LATEST, default=None)
    if at is None:
        yield Check(Kind.BACKUP, "backup", False, "no backup exists")
        return
    hours, allowed = (state.now - at) / 3600, app.thresholds.backup_age_seconds / 3600
    yield Check(Kind.BACKUP, "backup", hours <= allowed, f"{name}: {hours:.1f} h old, allowed {allowed:g} h")


def _job_checks(app: Application, state: HostState) -> Iterator[Check]:
    """Check how the last run of each job ended."""
    for job in jobs.states(state, app):
        at = f" at {datetime.fromtimestamp(job.ended_at, timezone.utc):%Y-%m-%d %H:%M:%S} UTC" if job.ended_at else ""
        yield Check(Kind.JOB, f"{job.name} job", not job.failed, f"{job.outcome}{at}")


def _clock_check(app: Application, state: HostState, rows: list[list[str]], now: float) -> Check:
    clock = next((row[1] for row in rows if row[0] == "clock" and len(row) > 1), state.now)
    off = untrusted.integer(clock, maximum=untrusted.LATEST) - now
    allowed = app.thresholds.clock_seconds
    return Check(
        Kind.CLOCK, "clock", abs(off) <= allowed + 1, f"{off:+.0f} s from this machine's clock, allowed {allowed:g} s"
    )
