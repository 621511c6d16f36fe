"""`inv observe`: render the Prometheus files of an environment, or install them on its monitoring host."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from rolling_upgrade import config, rendering
from rolling_upgrade.console import prompt
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.console.reporter import make_reporter
from rolling_upgrade.engine.local_file import IGNORE_ALL, PRIVATE, PUBLIC, NewFile, replace_all
from rolling_upgrade.engine.model import MONITORING_HOST, Environment, HostResult, Target
from rolling_upgrade.errors import PROGRAM, ConfigError, ConfigIssue, ExitCode, usage_error
from rolling_upgrade.features.apply import ApplySpec, apply_resources
from rolling_upgrade.features.observe import files, monitoring_host
from rolling_upgrade.ssh.fleet import monitor_of, opened

#: The files with passwords: of the notification channels, and in the headers of health checks.
_SECRET = frozenset({"alertmanager.yml", "blackbox.yml"})


def render(env: str | None, *, root: Path, output: str = "") -> ExitCode:
    """Write all files for an existing Prometheus and Grafana, or none; no host is contacted."""
    environment = config.load(env, root=root)
    default = root / "observe"
    directory = Path(output).expanduser() if output else default / environment.name
    if directory.exists() and not directory.is_dir():
        raise usage_error(("--output", repr(output), "a directory, not a file"), nothing="written")
    texts = dict(files.complete_files(environment))
    texts["dashboard.json"] = files.dashboard(environment.targets[0].application, environment.name)
    new_files = [
        NewFile(directory / name, text.encode(), PRIVATE if name in _SECRET else PUBLIC) for name, text in texts.items()
    ]
    gitignore = default / ".gitignore"
    ignore = [] if output or os.path.lexists(gitignore) else [NewFile(gitignore, IGNORE_ALL, PUBLIC)]
    replace_all([*ignore, *new_files])
    print_lines([str(file.path) for file in new_files], environment.secrets)
    return ExitCode.DONE


def install(env: str | None, *, root: Path, dry_run: bool = False, force: bool = False, json: bool = False) -> ExitCode:
    """Install the environment on its monitoring host.

    Raises PreflightError if an operator has to fix a prerequisite first.
    """
    environment, monitor = _monitored(env, root)
    name, program = files.name_of(environment), rendering.host_program("observe")
    resources = monitoring_host.resources(name, program, files.heads(), files.parts(environment))
    nothing = "Nothing to do: the monitoring host is up to date."
    spec = ApplySpec("observe", HostResult.PREPARED, nothing, {MONITORING_HOST: resources})
    question = f"Install monitoring of {environment.name} on {environment.monitoring.address}?"
    return _apply(environment, monitor, spec, question, dry_run=dry_run, force=force, json=json)


def uninstall(
    env: str | None, *, root: Path, dry_run: bool = False, force: bool = False, json: bool = False
) -> ExitCode:
    """Remove the environment from its monitoring host; the programs and the recorded data stay."""
    environment, monitor = _monitored(env, root)
    nothing = "Nothing to do: the monitoring host does not monitor the environment."
    resources = monitoring_host.removal(files.name_of(environment))
    spec = ApplySpec("observe", HostResult.TORN_DOWN, nothing, {MONITORING_HOST: resources})
    question = f"Remove monitoring of {environment.name} from {environment.monitoring.address}?"
    return _apply(environment, monitor, spec, question, dry_run=dry_run, force=force, json=json)


def _monitored(env: str | None, root: Path) -> tuple[Environment, Target]:
    """The environment and its monitoring host. Raises ConfigError for an environment without one."""
    environment = config.load(env, root=root)
    monitor = monitor_of(environment)
    if monitor is None:
        place = f"environments.{environment.name}.monitoring.address"
        issue = ConfigIssue("hosts.yaml", place, "", "the address of the host that runs Prometheus")
        raise ConfigError(
            f"{environment.name} has no monitoring host. Nothing was contacted.",
            [issue],
            next_step=f"add it, or {PROGRAM} observe.render --env {environment.name} writes the files for your own "
            "monitoring host",
        )
    return environment, monitor


def _apply(
    environment: Environment, monitor: Target, spec: ApplySpec, question: str, *, dry_run: bool, force: bool, json: bool
) -> ExitCode:
    alone = replace(environment, targets=(monitor,))
    hint = "--force does it without asking"
    force = force or not environment.rollout.confirm
    with (
        make_reporter(json=json, secrets=environment.secrets) as reporter,
        opened(alone, as_setup_user=True) as fleet,
    ):
        ask = partial(prompt.confirm, question, force=force, hint=hint)
        return apply_resources(fleet, spec, reporter, ask, dry_run=dry_run)
