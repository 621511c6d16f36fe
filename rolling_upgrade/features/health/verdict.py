"""Parse the output of the health script, and judge each check by the host's thresholds."""

from __future__ import annotations

from collections.abc import Iterator

from rolling_upgrade.engine import observation, untrusted
from rolling_upgrade.engine.model import Application, Check, HealthReport, HostState, Kind, Service
from rolling_upgrade.engine.nginx import visitor
from rolling_upgrade.features.health.shell import own_url

_DAY = 86_400.0


def parse(app: Application, host: str, text: str, now: float | None = None) -> HealthReport:
    """Parse the output of `shell.check`; `now` is the caller's clock, given only when it is not the host's own.

    Raises Malformed for truncated or foreign text.
    """
    state = observation.parse(app, host, text)
    rows = [row.split("\t") for row in observation.sections(text).get("checks", [])]
    checks = [
        *(_container(service, state) for service in app.services),
        *_requests(app, state, rows),
        *_resources(app, rows),
        *_database(rows),
        *_certificate(app, state, rows),
        *_backup(app, state),
    ]
    if now is not None:
        checks.append(_clock(app, state, rows, now))
    ends = next((row[1] for row in rows if row[0] == "certificate" and len(row) > 1), "")
    return HealthReport(state, tuple(checks), untrusted.integer(ends, maximum=untrusted.LATEST, default=None))


def _container(service: Service, state: HostState) -> Check:
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


def _requests(app: Application, state: HostState, rows: list[list[str]]) -> Iterator[Check]:
    answers = {row[1]: row[2:] for row in rows if row[0] == "http" and len(row) >= 4}
    for service in app.services:
        color = state.active_color(service.name)
        yield _answer(f"{service.name} http", own_url(service.port(color), service.gate.path), answers, service.name)
    for service in app.services:
        yield _answer(f"{service.name} nginx", own_url(service.service_port, service.gate.path), answers, service.name)
    if app.full_chain:
        first = app.service(app.full_chain.service)
        yield _answer("full chain", own_url(first.service_port, app.full_chain.path), answers, first.name)
    yield _answer("site", visitor(app)[0], answers, "", page=bool(state.fact("maintenance")))


def _answer(name: str, url: str, answers: dict[str, list[str]], service: str, *, page: bool = False) -> Check:
    """Judge one answer: the site may also redirect, return a client error, or serve the maintenance page with 503."""
    code, seconds, *served = answers.get(url) or answers.get(url.removesuffix("/")) or ["000", "0"]
    good = code[:1] == "2" or (name == "site" and (code[:1] in {"3", "4"} or (page and code == "503")))
    answer = f"HTTP {code}" if code != "000" else "no answer"
    by = f" from {served[0]}" if served and served[0] else ""
    milliseconds = round(untrusted.number(seconds, default=0.0) * 1000)
    return Check(Kind.HTTP, name, good, f"{answer}{by}, {url}", service, milliseconds, code != "000")


def _resources(app: Application, rows: list[list[str]]) -> Iterator[Check]:
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


def _database(rows: list[list[str]]) -> Iterator[Check]:
    for row in rows:
        answer = "\t".join(row[1:]).strip()
        if row[0] == "database":
            entries = untrusted.integer(answer, default=None)
            detail = answer if entries is None else f"{entries} entries in its schema"
            yield Check(Kind.DATABASE, "database", entries is not None, detail)
        if row[0] == "integrity" and answer:
            unfinished = answer.startswith("not read through")
            yield Check(Kind.DATABASE, "integrity", answer == "ok" or unfinished, answer)


def _certificate(app: Application, state: HostState, rows: list[list[str]]) -> Iterator[Check]:
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


def _backup(app: Application, state: HostState) -> Iterator[Check]:
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


def _clock(app: Application, state: HostState, rows: list[list[str]], now: float) -> Check:
    clock = next((row[1] for row in rows if row[0] == "clock" and len(row) > 1), state.now)
    off = untrusted.integer(clock, maximum=untrusted.LATEST) - now
    allowed = app.thresholds.clock_seconds
    return Check(
        Kind.CLOCK, "clock", abs(off) <= allowed + 1, f"{off:+.0f} s from this machine's clock, allowed {allowed:g} s"
    )
