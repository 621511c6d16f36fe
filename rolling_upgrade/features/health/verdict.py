"""What the answer of commands/health.py means: each check, well or not, by the host's thresholds. It runs nothing."""

from __future__ import annotations

from collections.abc import Iterator

from fabfile.commands import state
from fabfile.commands.health import own_url
from fabfile.commands.probe import visitor
from fabfile.model import Application, Check, HealthReport, HostState, Kind, Service

_DAY = 86_400.0


def parse(app: Application, host: str, text: str, now: float | None = None) -> HealthReport:
    """Read what `health.check` printed; `now` is the caller's clock, where there is another one than the host's.

    Raises ValueError when the text is cut short.
    """
    seen = state.parse(app, host, text)
    rows = [row.split("\t") for row in state.sections(text).get("checks", [])]
    checks = [
        *(_container(service, seen) for service in app.services),
        *_requests(app, seen, rows),
        *_resources(app, rows),
        *_database(rows),
        *_certificate(app, seen, rows),
        *_backup(app, seen),
    ]
    if now is not None:
        checks.append(_clock(app, seen, rows, now))
    ends = next((row[1] for row in rows if row[0] == "certificate" and len(row) > 1), "")
    return HealthReport(seen, tuple(checks), int(ends) if ends.isdigit() else None)


def _container(service: Service, seen: HostState) -> Check:
    color = seen.active_color(service.name)
    container = seen.container(service.name, color)
    name = f"{service.name} container"
    if container is None:
        return Check(Kind.CONTAINER, name, False, f"no {color.value} container", service.name)
    if not container.running:
        said = f"{color.value} is {container.status or 'not running'}, exit code {container.exit_code}"
        return Check(Kind.CONTAINER, name, False, said, service.name)
    tag = container.image.tag or container.image.digest[7:19]
    return Check(Kind.CONTAINER, name, True, f"{color.value} {tag} runs, {container.restarts} restarts", service.name)


def _requests(app: Application, seen: HostState, rows: list[list[str]]) -> Iterator[Check]:
    answers = {row[1]: row[2:] for row in rows if row[0] == "http" and len(row) >= 4}
    for service in app.services:
        color = seen.active_color(service.name)
        yield _answer(f"{service.name} http", own_url(service.port(color), service.gate.path), answers, service.name)
    for service in app.services:
        yield _answer(f"{service.name} nginx", own_url(service.stable_port, service.gate.path), answers, service.name)
    if app.full_chain:
        first = app.service(app.full_chain.service)
        yield _answer("full chain", own_url(first.stable_port, app.full_chain.path), answers, first.name)
    yield _answer("site", visitor(app)[0], answers, "", page=bool(seen.fact("maintenance")))


def _answer(name: str, url: str, answers: dict[str, list[str]], service: str, *, page: bool = False) -> Check:
    """A visitor's request is well with anything but a server error, or with the maintenance page's 503."""
    code, seconds, *served = answers.get(url) or answers.get(url.removesuffix("/")) or ["000", "0"]
    good = code[:1] == "2" or (name == "site" and (code[:1] in {"3", "4"} or (page and code == "503")))
    said = f"HTTP {code}" if code != "000" else "no answer"
    by = f" from {served[0]}" if served and served[0] else ""
    milliseconds = round(float(seconds) * 1000) if seconds.replace(".", "", 1).isdigit() else 0
    return Check(Kind.HTTP, name, good, f"{said}{by}, {url}", service, milliseconds, code != "000")


def _resources(app: Application, rows: list[list[str]]) -> Iterator[Check]:
    limits = app.thresholds
    for what in ("disk", "inodes"):
        found = [row for row in rows if row[0] == what and len(row) == 4]
        if not found and what == "disk":
            yield Check(Kind.DISK, "disk", False, "df gave no answer")
        for _, mount, available, used in found:
            free = _share(available, used)
            if free is not None:
                detail = f"{free:.0f} % of {what} free on {mount}, wanted {limits.free_percent:g} %"
                yield Check(Kind.DISK, f"{what} {mount}", free >= limits.free_percent, detail)
    for _, total, available in (row for row in rows if row[0] == "memory" and len(row) == 3):
        in_use = 100 - 100 * int(available) / int(total)
        detail = f"{in_use:.0f} % of memory in use, allowed {limits.memory_percent:g} %"
        yield Check(Kind.MEMORY, "memory", in_use <= limits.memory_percent, detail)


def _share(available: str, used: str) -> float | None:
    """What is free, in percent; None where the file system does not count it."""
    if not (available.isdigit() and used.isdigit()) or int(available) + int(used) == 0:
        return None
    return 100 * int(available) / (int(available) + int(used))


def _database(rows: list[list[str]]) -> Iterator[Check]:
    for row in rows:
        said = "\t".join(row[1:]).strip()
        if row[0] == "database":
            yield Check(
                Kind.DATABASE, "database", said.isdigit(), f"{said} entries in its schema" if said.isdigit() else said
            )
        if row[0] == "integrity" and said:
            unfinished = said.startswith("not read through")
            yield Check(Kind.DATABASE, "integrity", said == "ok" or unfinished, said)


def _certificate(app: Application, seen: HostState, rows: list[list[str]]) -> Iterator[Check]:
    for row in rows:
        if row[0] != "certificate":
            continue
        if len(row) < 2 or not row[1].isdigit():
            yield Check(Kind.CERTIFICATE, "certificate", False, "Nginx shows none")
            continue
        days = (int(row[1]) - seen.now) / _DAY
        detail = f"{days:.0f} days left, wanted {app.thresholds.certificate_days:g}"
        yield Check(Kind.CERTIFICATE, "certificate", days >= app.thresholds.certificate_days, detail)


def _backup(app: Application, seen: HostState) -> Iterator[Check]:
    """The age of the last backup, where backups are scheduled."""
    if not app.auto_backup:
        return
    at, _, name = seen.fact("last_backup").partition(" ")
    if not at.isdigit():
        yield Check(Kind.BACKUP, "backup", False, "there is none")
        return
    hours, allowed = (seen.now - int(at)) / 3600, app.thresholds.backup_age_seconds / 3600
    yield Check(Kind.BACKUP, "backup", hours <= allowed, f"{name}: {hours:.1f} h old, allowed {allowed:g} h")


def _clock(app: Application, seen: HostState, rows: list[list[str]], now: float) -> Check:
    off = next((int(row[1]) for row in rows if row[0] == "clock" and len(row) > 1), seen.now) - now
    allowed = app.thresholds.clock_seconds
    return Check(
        Kind.CLOCK, "clock", abs(off) <= allowed + 1, f"{off:+.0f} s off this machine's, allowed {allowed:g} s"
    )
