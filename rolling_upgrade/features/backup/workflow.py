"""The backup commands on many hosts in parallel: take, list, verify, fetch; the list as a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rolling_upgrade import config
from rolling_upgrade.console.output import print_result
from rolling_upgrade.console.text import duration, one_line, table, unreachable_lines
from rolling_upgrade.engine import preflight
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import Phase
from rolling_upgrade.engine.shell import Script, direct
from rolling_upgrade.engine.untrusted import size
from rolling_upgrade.errors import (
    PROGRAM,
    ConfigError,
    ExitCode,
    HostUnreachable,
    PreflightError,
    RollingError,
    StepFailed,
)
from rolling_upgrade.features import operation
from rolling_upgrade.features.backup import manifest, shell
from rolling_upgrade.features.backup.archive import download
from rolling_upgrade.features.backup.manifest import Backup, BackupKind, HostBackups, Verdict
from rolling_upgrade.ssh.fleet import Fleet, opened

QUERY_SECONDS = 60.0
#: The timeout of one backup or verification: data may be large.
DATA_SECONDS = 6 * 3600.0
#: The size limit in bytes of an answer with manifests: enough for thousands of backups.
_ANSWER_BYTES = 16 << 20
LATEST = "latest"


def backup(
    env: str | None, *, root: Path, hosts: tuple[str, ...] = (), fetch: str = "", json: bool = False
) -> ExitCode:
    """Take a full backup of each host; with `fetch`, download it too."""
    environment = config.load(env, root=root, hosts=hosts)
    with operation.started(environment, json=json) as run:
        fleet, context = run.fleet, run.context
        states = fleet.observe()
        unfit = [
            finding
            for name, state in states.items()
            for finding in preflight.backup(state, fleet.targets[name].application)
        ]
        operation.refuse(unfit, "a backup")

        def take(host: Host) -> None:
            app = fleet.targets[host.name].application
            _run_script(host, context, "back up", direct(shell.take(app, context.run_id, BackupKind.MANUAL)))

        def download_new(host: Host) -> None:
            taken = _find(_read_backups(host, fleet), context.run_id)
            if taken is None:
                raise StepFailed(f"{host.name}: backup {context.run_id} was taken, but the host does not list it.")
            app = fleet.targets[host.name].application
            download(fleet.host(host.name), app, taken, Path(fetch), context)

        failed = _each(fleet.hosts, fleet, take, finish=True)
        complete = [host for host in fleet.hosts if fetch and host.name not in failed]
        return _exit_code({**failed, **_each(complete, fleet, download_new)})


def show(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), json: bool = False) -> ExitCode:
    """Print the backups of every host. FAILED when a host is unreachable."""
    environment = config.load(env, root=root, hosts=hosts)
    with opened(environment) as fleet:
        listed, lost = fleet.on_reachable(lambda host: _read_backups(host, fleet))
    uncovered = {text: None for target in environment.targets for text in target.application.uncovered_databases}
    content = backup_json(environment.name, listed, lost) | {"uncovered_databases": list(uncovered)}
    warnings = [f"warning: no backup contains the database of {text}" for text in uncovered]
    print_result(content if json else [*backup_lines(listed, lost), *warnings], environment.secrets)
    return ExitCode.FAILED if lost else ExitCode.DONE


def verify(
    env: str | None, *, root: Path, hosts: tuple[str, ...] = (), backup: str = LATEST, json: bool = False
) -> ExitCode:
    """Restore a backup of each host into a scratch directory there and check it. FAILED when one is damaged."""
    environment = config.load(env, root=root, hosts=hosts)
    with operation.started(environment, json=json) as run:
        fleet, context = run.fleet, run.context
        backups = chosen(every_backup(fleet), backup or LATEST, environment.name)

        def check(host: Host) -> None:
            backup = backups[host.name]
            if backup.problem:
                raise StepFailed(f"{host.name}: backup {backup.id} is damaged: {backup.problem}.")
            app = fleet.targets[host.name].application
            _run_script(host, context, f"verify {backup.id}", direct(shell.verify(app, backup)))

        return _exit_code(_each(fleet.hosts, fleet, check, finish=True))


def fetch(
    env: str | None, *, root: Path, hosts: tuple[str, ...] = (), backup: str = LATEST, to: str = "", json: bool = False
) -> ExitCode:
    """Download a backup of each host as one archive, and compare it with its manifest."""
    if not to:
        raise ConfigError("--to is missing; nothing was contacted.", next_step="add --to DIRECTORY")
    environment = config.load(env, root=root, hosts=hosts)
    with operation.started(environment, json=json) as run:
        fleet, context = run.fleet, run.context
        backups = chosen(every_backup(fleet), backup or LATEST, environment.name)

        def get(host: Host) -> None:
            app = fleet.targets[host.name].application
            download(fleet.host(host.name), app, backups[host.name], Path(to), context)

        return _exit_code(_each(fleet.hosts, fleet, get))


def every_backup(fleet: Fleet) -> dict[str, HostBackups]:
    """Return the backups of every host. Raises HostUnreachable that names every unreachable host."""
    return fleet.on_all(lambda host: _read_backups(host, fleet))


def chosen(by_host: Mapping[str, HostBackups], id: str, environment: str) -> dict[str, Backup]:
    """Return each host's backup with the id, or its latest. Raises PreflightError that names every host without it."""
    backups = {name: _find(listed, id) for name, listed in by_host.items()}
    lacking = [
        f"{name}: no backup {id!r}; the newest ones: "
        + (", ".join(backup.id for backup in reversed(by_host[name].backups[-3:])) or "none")
        for name, found in backups.items()
        if found is None
    ]
    if lacking:
        listed = "\n  ".join(lacking)
        raise PreflightError(
            f"the backup is not on every host; nothing was touched.\n  {listed}",
            next_step=f"{PROGRAM} backups --env {environment} lists them; --hosts leaves a host out",
        )
    return {name: backup for name, backup in backups.items() if backup is not None}


def _find(listed: HostBackups, id: str) -> Backup | None:
    if id == LATEST:
        return listed.backups[-1] if listed.backups else None
    return next((backup for backup in listed.backups if backup.id == id), None)


def _read_backups(host: Host, fleet: Fleet) -> HostBackups:
    app = fleet.targets[host.name].application
    answer = host.run(manifest.read_all(app).answering(_ANSWER_BYTES), timeout_seconds=QUERY_SECONDS)
    try:
        return manifest.parse(app, answer.output)
    except ValueError as error:
        raise HostUnreachable(f"{host.name}: {error}: {answer.output_tail}") from error


def _run_script(host: Host, context: RunContext, title: str, script: Script) -> None:
    """Run one long script and report its events. Raises StepFailed."""
    context.emit(Phase.STARTED, title, host.name, "backup")
    started_at = context.clock()
    answer = host.run(script, timeout_seconds=DATA_SECONDS)
    seconds = context.clock() - started_at
    if not answer.ok:
        context.emit(Phase.FAILED, title, host.name, "backup", seconds, answer.output_tail)
        raise StepFailed(f"{host.name}: {title}: failed (status {answer.status}).\n{answer.output_tail}")
    context.emit(Phase.DONE, title, host.name, "backup", seconds, answer.output.strip())


def _each(
    hosts: Sequence[Host], fleet: Fleet, do: Callable[[Host], None], *, finish: bool = False
) -> dict[str, RollingError]:
    """Call `do` for the hosts in parallel and return the errors by host. `finish`: see `parallel.on_each`."""

    def attempt(host: Host) -> RollingError | None:
        try:
            do(host)
        except RollingError as error:
            return error
        return None

    results = fleet.on_each(attempt, hosts=hosts, finish=finish)
    return {name: error for name, error in results.items() if error is not None}


def _exit_code(failed: Mapping[str, RollingError]) -> ExitCode:
    """Return DONE, or raise the errors as one."""
    errors = list(failed.values())
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise StepFailed("\n".join(str(error) for error in errors))
    return ExitCode.DONE


def backup_lines(hosts: Mapping[str, HostBackups], unreachable: Mapping[str, str]) -> list[str]:
    """Return a table of the backups of each host, newest last."""
    lines = [line for name, listed in hosts.items() for line in _host_lines(name, listed)]
    return [*lines, *unreachable_lines(unreachable)]


def _host_lines(name: str, listed: HostBackups) -> Iterator[str]:
    if not listed.backups:
        yield f"{name}  no backups"
        return
    yield name
    head = ("", "BACKUP", "KIND", "AGE", "SIZE", "UPLOADS", "RELEASE", "VERIFIED")
    yield from table([head, *(_row(backup, listed.now) for backup in listed.backups)])
    yield ""


def _row(backup: Backup, now: int) -> tuple[str, ...]:
    if backup.problem:
        return ("", backup.id, "UNUSABLE", _age(backup, now), one_line(backup.problem))
    files = "none" if backup.uploads is None else f"{backup.uploads} ({size(backup.uploads_bytes)})"
    tags = dict.fromkeys(image.partition("@")[0].rpartition(":")[2] for _, image in backup.services)
    release = f"{', '.join(tags)} ({backup.release})" if tags else "-"
    return (
        "",
        backup.id,
        backup.kind.value,
        _age(backup, now),
        size(backup.bytes),
        files,
        one_line(release),
        _verified(backup, now),
    )


def _verified(backup: Backup, now: int) -> str:
    if backup.verdict is Verdict.UNVERIFIED:
        return "no"
    verdict = "DAMAGED" if backup.verdict is Verdict.DAMAGED else "good"
    return f"{verdict}, {duration(now - backup.verified_at)} ago"


def _time(backup: Backup) -> datetime:
    """Return the start time, which is part of the id."""
    return datetime.strptime(backup.id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)


def _age(backup: Backup, now: int) -> str:
    return duration(now - _time(backup).timestamp())


def backup_json(environment: str, hosts: Mapping[str, HostBackups], unreachable: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON object of the backups."""
    objects: list[dict[str, Any]] = [
        {"host": name, "backups": [_backup_json(backup, listed.now) for backup in listed.backups]}
        for name, listed in hosts.items()
    ]
    objects += [{"host": name, "unreachable": error} for name, error in unreachable.items()]
    return {"environment": environment, "hosts": objects}


def _backup_json(backup: Backup, now: int) -> dict[str, Any]:
    return {
        "id": backup.id,
        "kind": backup.kind.value,
        "time": _time(backup).isoformat(),
        "age_seconds": round(now - _time(backup).timestamp()),
        "bytes": backup.bytes,
        "database": backup.database or None,
        "rows": backup.rows,
        "databases": backup.databases,
        "uploads": backup.uploads,
        "uploads_bytes": backup.uploads_bytes,
        "release": backup.release,
        "services": dict(backup.services),
        "verified": backup.verdict.value,
        "verified_at": backup.verified_at or None,
        "problem": backup.problem or None,
    }
