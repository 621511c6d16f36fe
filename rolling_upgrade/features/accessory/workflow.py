"""The accessory tasks on many hosts: observe, plan, confirm, run; show status and logs; run a command."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

from rolling_upgrade import config
from rolling_upgrade.console import identity
from rolling_upgrade.console.output import HostOutput, print_result
from rolling_upgrade.console.text import table, unreachable_lines
from rolling_upgrade.engine import accessory as containers
from rolling_upgrade.engine import preflight
from rolling_upgrade.engine.host import Cancelled
from rolling_upgrade.engine.model import Accessory, Application, Environment, HostState
from rolling_upgrade.engine.parallel import run_streams
from rolling_upgrade.engine.plan import Plan, Step
from rolling_upgrade.engine.podman import accessory_container
from rolling_upgrade.engine.shell import Script, direct, shell_join
from rolling_upgrade.errors import (
    PROGRAM,
    ConfigError,
    ConnectionDropped,
    ExitCode,
    Interrupted,
    PreflightError,
    RollingError,
    usage_error,
)
from rolling_upgrade.features import operation
from rolling_upgrade.features.accessory.plan import AccessorySpec, Action, plan
from rolling_upgrade.features.backup import shell as backups
from rolling_upgrade.features.backup.manifest import BackupKind
from rolling_upgrade.features.deploy import digests
from rolling_upgrade.features.exec import shell as commands
from rolling_upgrade.features.exec.input import has_input
from rolling_upgrade.features.exec.workflow import run_scripts
from rolling_upgrade.features.registry.workflow import log_in
from rolling_upgrade.features.status.workflow import accessory_json, accessory_row
from rolling_upgrade.ssh.fabric_host import FabricHost
from rolling_upgrade.ssh.fleet import Fleet, opened

#: The time limit of the backup before an upgrade.
BACKUP_SECONDS = 3600
_QUESTIONS = {
    Action.UP: "Start accessories of {environment}?",
    Action.RESTART: "Restart accessories of {environment}? Each stops for a moment.",
    Action.UPGRADE: "Upgrade accessories of {environment}? Each stops until its new container is healthy.",
    Action.DOWN: "Stop and remove accessories of {environment}?",
}


@dataclass(frozen=True)
class Options:
    """The options that the tasks share."""

    root: Path
    name: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    json: bool = False
    data: bool = False
    confirm: str = ""


def up(
    env: str | None,
    *,
    root: Path,
    name: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> ExitCode:
    """Start the accessories that are not up."""
    return _run(Action.UP, env, Options(root, name, hosts, force, dry_run, json))


def restart(
    env: str | None,
    *,
    root: Path,
    name: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> ExitCode:
    """Stop accessories and start them again."""
    return _run(Action.RESTART, env, Options(root, name, hosts, force, dry_run, json))


def upgrade(
    env: str | None,
    *,
    root: Path,
    name: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> ExitCode:
    """Replace the accessories that differ from the configuration."""
    return _run(Action.UPGRADE, env, Options(root, name, hosts, force, dry_run, json))


def down(
    env: str | None,
    *,
    root: Path,
    name: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
    data: bool = False,
    confirm: str = "",
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> ExitCode:
    """Stop and remove accessories; with `data`, also their volumes."""
    return _run(Action.DOWN, env, Options(root, name, hosts, force, dry_run, json, data, confirm))


def _run(action: Action, env: str | None, options: Options) -> ExitCode:
    """Run the task. Raises RollingError if it fails before it changes a host."""
    started_at = time.time()
    environment = config.load(env, root=options.root, hosts=options.hosts)
    if action is not Action.DOWN:
        _check_names(environment, options.name)
    with operation.started(
        environment, json=options.json, started_at=started_at, force=options.force, dry_run=options.dry_run
    ) as run:
        fleet, states = run.fleet, run.fleet.observe()
        if action is Action.DOWN:
            _check_names(environment, options.name, states)
        chosen = {target.name: _chosen(target.application, options.name) for target in environment.targets}
        resolved = digests.Resolved({})
        if action in {Action.UP, Action.UPGRADE}:
            resolved = _resolve(fleet, states, chosen, action, dry_run=options.dry_run)
            chosen = {host: _with_digests(accessories, resolved) for host, accessories in chosen.items()}
        lock = identity.lock(run.context.run_id, f"accessory.{action.value} {' '.join(options.name)}".rstrip())

        def plan_host(state: HostState) -> Plan:
            app = fleet.targets[state.host].application
            removed = options.name or containers.expected(app, state)
            spec = AccessorySpec(
                *(action, app, environment.name, run.context.run_id, lock, environment.rollout.lease_seconds),
                accessories=chosen[state.host],
                removed=tuple(removed) if action is Action.DOWN else (),
                data=options.data,
                replaceable_token=operation.replaceable_token(state),
                save=_save(app, run.context.run_id) if app.databases else None,
                notes=resolved.notes,
            )
            return plan(state, spec)

        spec = _operation_spec(action, environment, options)
        unfit = lambda host_run: preflight.accessories(host_run.state, chosen[host_run.name])  # noqa: E731
        return run.run(spec, operation.applications(environment), states, plan_host, unfit)


def _save(app: Application, run_id: str) -> Step:
    """Back up the databases, before an upgrade converts the data of one."""
    body = backups.take(app, run_id, BackupKind.DEPLOY)
    return Step("backup", "back up databases and configuration", body, BACKUP_SECONDS)


def _check_names(environment: Environment, names: Sequence[str], states: Mapping[str, HostState] | None = None) -> None:
    """Raise ConfigError for a name that no host declares, and without `--name` if there is no accessory.

    With the states of the hosts, the name of an accessory that only a host has is valid too.
    """
    known = {accessory.name for target in environment.targets for accessory in target.application.accessories}
    for state in (states or {}).values():
        known |= {*state.supposed_accessories, *(container.accessory for container in state.accessories)}
    issues = [
        (
            "--name",
            repr(name),
            f"one of: {', '.join(sorted(known))}" if known else "an accessory of services.yaml, which has none",
        )
        for name in names
        if name not in known
    ]
    if issues:
        raise usage_error(*issues)
    if not known:
        raise ConfigError(
            f"{environment.name} has no accessory; nothing was touched.",
            next_step="declare one below `accessories` in services.yaml, or choose other hosts",
        )


def _chosen(app: Application, names: Sequence[str]) -> tuple[Accessory, ...]:
    return tuple(accessory for accessory in app.accessories if not names or accessory.name in names)


def _resolve(
    fleet: Fleet,
    states: Mapping[str, HostState],
    chosen: Mapping[str, Sequence[Accessory]],
    action: Action,
    *,
    dry_run: bool,
) -> digests.Resolved:
    """Resolve the tags that the task needs: `up` keeps the image of an accessory that exists."""
    images = [
        accessory.image
        for host, accessories in chosen.items()
        for accessory in accessories
        if not accessory.image.digest and (action is Action.UPGRADE or states[host].accessory(accessory.name) is None)
    ]
    if not images:
        return digests.Resolved({})
    logins = {name: login for name, target in fleet.targets.items() if (login := target.application.login) is not None}
    if logins and not dry_run:
        log_in(fleet, logins)
    return digests.resolve(fleet, states, images)


def _with_digests(accessories: Sequence[Accessory], resolved: digests.Resolved) -> tuple[Accessory, ...]:
    return tuple(
        replace(accessory, image=resolved.images.get(accessory.image.exact, accessory.image))
        for accessory in accessories
    )


def _operation_spec(action: Action, environment: Environment, options: Options) -> operation.OperationSpec:
    task = f"{PROGRAM} accessory.{action.value} --env {environment.name}"
    task += "".join(f" --name {name}" for name in options.name)
    app = environment.targets[0].application.name
    question = _QUESTIONS[action].format(environment=environment.name)
    hint = f"{task} --force does so without asking"
    if options.data:
        question = f"This deletes the data of accessories of {environment.name}. Type the application's name:"
        hint = f"{task} --data --confirm {app}"
    return operation.OperationSpec(
        action=f"accessory.{action.value}",
        question=question,
        hint=hint,
        done="As declared",
        undone="Undone; the former containers run",
        nothing="Nothing to do.",
        name=app if options.data else "",
        typed=options.confirm,
    )


def status(
    env: str | None, *, root: Path, name: tuple[str, ...] = (), hosts: tuple[str, ...] = (), json: bool = False
) -> ExitCode:
    """Print the accessories of every host. FAILED when one is not healthy or a host is unreachable."""
    environment = config.load(env, root=root, hosts=hosts)
    with opened(environment) as fleet:
        states, unreachable = fleet.on_reachable(fleet.observe_one)
    named = {
        host: [
            accessory
            for accessory in containers.expected(fleet.targets[host].application, state)
            if not name or accessory in name
        ]
        for host, state in states.items()
    }
    unhealthy = any(containers.problem(one, states[host]) for host, names in named.items() for one in names)
    if json:
        rows: list[dict[str, Any]] = [
            {"host": host, "accessories": [accessory_json(one, states[host]) for one in names]}
            for host, names in named.items()
        ]
        rows += [{"host": host, "unreachable": error} for host, error in unreachable.items()]
        print_result({"environment": environment.name, "healthy": not unhealthy, "hosts": rows}, environment.secrets)
    else:
        head = ("", "ACCESSORY", "TAG", "DIGEST", "UPTIME", "HEALTH")
        lines = []
        for host, names in named.items():
            lines += [host if names else f"{host}  no accessories"]
            rows_of_host = [("", *accessory_row(one, states[host])[2:]) for one in names]
            lines += table([head, *rows_of_host]) if names else []
        print_result([*lines, *unreachable_lines(unreachable)], environment.secrets)
    return ExitCode.FAILED if unhealthy or unreachable else ExitCode.DONE


def logs(
    env: str | None,
    *,
    root: Path,
    name: str,
    hosts: tuple[str, ...] = (),
    lines: int = 100,
    follow: bool = False,
) -> int:
    """Print the end of an accessory's log on each host; with `follow`, also new lines until Ctrl-C."""
    environment, placed = _placed(env, root, hosts, name)
    options = [*(["--tail", str(lines)] if lines else []), *(["--follow"] if follow else [])]
    end = "trap '' TERM\n{ cat <&3 >/dev/null || :; pkill -TERM -s 0 || :; } &\n" if follow else ""

    def script(app: Application) -> Script:
        command = shell_join("podman", "logs", *options, accessory_container(app.name, name))
        return direct(f"{end}{command} 2>&1")

    return _stream(environment, placed, script)


def execute(env: str | None, argv: Sequence[str], *, root: Path, name: str, hosts: tuple[str, ...] = ()) -> int:
    """Run a command in an accessory on each of its hosts; on a terminal and one host, interactively."""
    if not argv:
        form = f"the command after `--`: {PROGRAM} accessory.exec --env ENV --name NAME -- CMD ARGS"
        raise usage_error(("--", "no command", form))
    environment, placed = _placed(env, root, hosts, name)
    if len(placed) == 1 and sys.stdin.isatty() and sys.stdout.isatty():
        with opened(environment) as fleet:
            host = fleet.host(placed[0])
            command = commands.interactive_in_accessory(fleet.targets[host.name].application, name, argv)
            try:
                return host.run_interactive(command, sys.stdin.fileno(), sys.stdout.fileno())
            except ConnectionDropped as error:
                raise ConnectionDropped(error.message, next_step="run the same command again") from error
    with_input = has_input()
    with opened(environment) as fleet:
        applications = {host: fleet.targets[host].application for host in placed}
        scripts = {
            host: commands.execute_in_accessory(app, name, argv, with_input=with_input)
            for host, app in applications.items()
        }
        return run_scripts(fleet, scripts, with_input=with_input)


def _placed(env: str | None, root: Path, hosts: tuple[str, ...], name: str) -> tuple[Environment, tuple[str, ...]]:
    """Load the environment; return it with the hosts that have the accessory. Raises ConfigError."""
    environment = config.load(env, root=root, hosts=hosts)
    names = {accessory.name for target in environment.targets for accessory in target.application.accessories}
    if not name and len(names) > 1:
        raise usage_error(("--name", "no name", f"one of: {', '.join(sorted(names))}"))
    _check_names(environment, (name,))
    placed = tuple(
        target.name
        for target in environment.targets
        if name in {accessory.name for accessory in target.application.accessories}
    )
    if not placed:
        raise PreflightError(f"no selected host has the accessory {name}.")
    return environment, placed


def _stream(environment: Environment, placed: Sequence[str], script: Callable[[Application], Script]) -> int:
    """Run a script on the hosts and pass its output on; return its status on one host, DONE or FAILED on several."""
    with opened(environment) as fleet:
        hosts = [host for host in fleet.hosts if host.name in placed]
        out = HostOutput(sys.stdout, hosts=list(placed), secrets=environment.secrets)
        err = HostOutput(sys.stderr, hosts=list(placed), secrets=environment.secrets)
        ended = Event()
        calls = [_call(host, script(fleet.targets[host.name].application), out, err, ended) for host in hosts]
        results = run_streams(calls, ended, lambda: out.closed)
    if any(isinstance(result, Cancelled) for result in results):
        raise Interrupted("interrupted.")
    for host, result in zip(hosts, results, strict=True):
        if isinstance(result, Exception):
            if len(hosts) == 1:
                raise result
            err.feed(host.name, f"{result}\n".encode())
    if len(results) == 1 and isinstance(results[0], int):
        return results[0]
    return ExitCode.DONE if not any(results) else ExitCode.FAILED


def _call(
    host: FabricHost, script: Script, out: HostOutput, err: HostOutput, ended: Event
) -> Callable[[], int | Exception]:
    def call() -> int | Exception:
        try:
            return host.stream(
                script,
                lambda piece: out.feed(host.name, piece),
                lambda piece: err.feed(host.name, piece),
                cancelled=ended,
            )
        except (RollingError, Cancelled) as error:
            return error
        finally:
            out.end(host.name)
            err.end(host.name)

    return call
