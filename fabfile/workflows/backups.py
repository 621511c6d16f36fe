"""Backups: take, list, verify, bring here. Each looks at many hosts at once; the restore has a file of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fabfile import config
from fabfile.commands import backup as backups
from fabfile.commands import journal, manifest, verification
from fabfile.commands.shell import Script
from fabfile.errors import ConfigError, ExitCode, HostUnreachable, PreflightError, RollingError, StepFailed
from fabfile.model import Backup, BackupKind, Phase
from fabfile.plans import preflight
from fabfile.remote import observe
from fabfile.remote.execute import Run
from fabfile.remote.host import Host
from fabfile.report import choose
from fabfile.report.backups import Listed, render_backups
from fabfile.workflows import rolling
from fabfile.workflows.download import download
from fabfile.workflows.fleet import Fleet, opened

LOOK_SECONDS = 60.0
#: Data may be large: how long one backup or verification may take.
DATA_SECONDS = 6 * 3600.0
LATEST = "latest"

R = TypeVar("R")


@dataclass(frozen=True)
class Request:
    """What the operator asked for. `backup` is an id or `latest`; `fetch` is the directory here, '' for none."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    backup: str = ""
    fetch: str = ""
    json: bool = False


def backup(request: Request) -> ExitCode:
    """Take a backup of everything on each host; with `fetch`, bring it here as well."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    with choose(json=request.json, secrets=environment.secrets) as reporter, opened(environment) as fleet:
        run = rolling.begin(environment, reporter)
        states = fleet.observe()
        unfit = [
            one for name, state in states.items() for one in preflight.backup(state, fleet.targets[name].application)
        ]
        rolling.refuse(unfit, "a backup")

        def take(host: Host) -> None:
            app = fleet.targets[host.name].application
            _do(host, run, "back up", journal.direct(backups.take(app, run.release, BackupKind.MANUAL)))
            if request.fetch:
                found = _one(_look(host, fleet), run.release)
                if found is None:
                    raise StepFailed(f"{host.name}: the backup is not there after it was taken.")
                download(fleet.host(host.name), app, found, Path(request.fetch), run)

        return _ended(_each(fleet, take))


def show(request: Request) -> ExitCode:
    """Print the backups of every host. FAILED when a host cannot be reached."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    with opened(environment) as fleet:
        found = observe.on_each(fleet.hosts, environment.rollout.parallel, lambda host: _look(host, fleet))
    listed = {name: one for name, one in found.items() if isinstance(one, Listed)}
    lost = {name: str(one) for name, one in found.items() if isinstance(one, HostUnreachable)}
    render_backups(environment, listed, lost, json=request.json, out=sys.stdout)
    return ExitCode.FAILED if lost else ExitCode.DONE


def verify(request: Request) -> ExitCode:
    """Restore a backup of each host into a scratch place there and check it. FAILED when one is damaged."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    with choose(json=request.json, secrets=environment.secrets) as reporter, opened(environment) as fleet:
        run = rolling.begin(environment, reporter)
        found = chosen(every_backup(fleet), request.backup or LATEST, environment.name)

        def check(host: Host) -> None:
            one = found[host.name]
            if one.problem:
                raise StepFailed(f"{host.name}: backup {one.id} is damaged: {one.problem}.")
            app = fleet.targets[host.name].application
            _do(host, run, f"verify {one.id}", journal.direct(verification.verify(app, one)))

        return _ended(_each(fleet, check))


def fetch(request: Request) -> ExitCode:
    """Bring a backup of each host here as one archive, and compare it with its manifest."""
    if not request.fetch:
        raise ConfigError("Where to? Nothing was contacted.", next_step="add --to DIRECTORY")
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    with choose(json=request.json, secrets=environment.secrets) as reporter, opened(environment) as fleet:
        run = rolling.begin(environment, reporter)
        found = chosen(every_backup(fleet), request.backup or LATEST, environment.name)

        def bring(host: Host) -> None:
            app = fleet.targets[host.name].application
            download(fleet.host(host.name), app, found[host.name], Path(request.fetch), run)

        return _ended(_each(fleet, bring))


def every_backup(fleet: Fleet) -> dict[str, Listed]:
    """The backups of every host. Raises HostUnreachable that names all that could not be reached."""
    found = observe.on_each(fleet.hosts, fleet.environment.rollout.parallel, lambda host: _look(host, fleet))
    lost = [error for error in found.values() if isinstance(error, HostUnreachable)]
    if lost:
        raise HostUnreachable("\n".join(str(error) for error in lost))
    return {name: one for name, one in found.items() if isinstance(one, Listed)}


def chosen(found: Mapping[str, Listed], wanted: str, environment: str) -> dict[str, Backup]:
    """Each host's backup of that id, or its `latest`. Raises PreflightError that names every host without it."""
    picked = {name: _one(listed, wanted) for name, listed in found.items()}
    lacking = [_lacking(name, found[name], wanted) for name, one in picked.items() if one is None]
    if lacking:
        listed = "\n  ".join(lacking)
        raise PreflightError(
            f"the backup is not on every host; nothing was touched.\n  {listed}",
            next_step=f"inv backups --env {environment}; --hosts leaves a host out",
        )
    return {name: one for name, one in picked.items() if one is not None}


def _lacking(name: str, listed: Listed, wanted: str) -> str:
    newest = ", ".join(one.id for one in reversed(listed.backups[-3:])) or "none"
    return f"{name}: no backup {wanted!r}; the newest here: {newest}"


def _one(listed: Listed, wanted: str) -> Backup | None:
    if wanted == LATEST:
        return listed.backups[-1] if listed.backups else None
    return next((one for one in listed.backups if one.id == wanted), None)


def _look(host: Host, fleet: Fleet) -> Listed:
    app = fleet.targets[host.name].application
    answer = host.run(manifest.look(app), timeout_seconds=LOOK_SECONDS)
    try:
        return Listed(*manifest.parse(app, answer.output))
    except ValueError as error:
        raise HostUnreachable(f"{host.name}: {error}: {answer.last_words}") from error


def _do(host: Host, run: Run, title: str, script: Script) -> None:
    """Run one script that may take long and tell about it. Raises StepFailed."""
    run.say(Phase.STARTED, title, host.name, "backup")
    began = run.clock()
    answer = host.run(script, timeout_seconds=DATA_SECONDS)
    seconds = run.clock() - began
    if not answer.ok:
        run.say(Phase.FAILED, title, host.name, "backup", seconds, answer.last_words)
        raise StepFailed(f"{host.name}: {title}: failed (status {answer.status}).\n{answer.last_words}")
    run.say(Phase.DONE, title, host.name, "backup", seconds, answer.output.strip())


def _each(fleet: Fleet, do: Callable[[Host], None]) -> list[RollingError]:
    """Do it on every host at once; one host's failure is not the others'."""

    def one(host: Host) -> RollingError | None:
        try:
            do(host)
        except RollingError as error:
            return error
        return None

    results = observe.on_each(fleet.hosts, fleet.environment.rollout.parallel, one)
    return [error for error in results.values() if error is not None]


def _ended(errors: Sequence[RollingError]) -> ExitCode:
    """Raises what went wrong, all of it in one error."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise StepFailed("\n".join(str(error) for error in errors))
    return ExitCode.DONE
