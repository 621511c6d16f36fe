"""What watches an environment from outside: written as files, installed on a host, taken away. The story only."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fabfile import config, render
from fabfile.commands import monitoring as parts
from fabfile.commands.item import Item
from fabfile.errors import ConfigError, ExitCode, Mistake
from fabfile.model import MONITORING_HOST, Environment, HostResult, Target
from fabfile.render import dashboard
from fabfile.render import observe as rendering
from fabfile.report import choose, tell
from fabfile.workflows import converging, operator
from fabfile.workflows.converging import Work
from fabfile.workflows.fleet import monitor_of, opened
from fabfile.workflows.replacing import PRIVATE, PUBLIC, NewFile, replace_all


@dataclass(frozen=True)
class Request:
    """What the operator asked for; `output` is a folder, '' for observe/ENVIRONMENT in the project."""

    environment: str | None
    root: Path
    output: str = ""
    dry_run: bool = False
    force: bool = False
    json: bool = False


def write(request: Request) -> ExitCode:
    """Write every file, whole, for a Prometheus and a Grafana of one's own; all of them or none. Contacts nothing."""
    environment = config.load(request.environment, root=request.root)
    folder = Path(request.output).expanduser() if request.output else request.root / "observe" / environment.name
    if folder.exists() and not folder.is_dir():
        mistake = Mistake("command line", "--output", repr(request.output), "a folder, not a file")
        raise ConfigError("The command line has a mistake; nothing was written.", [mistake])
    texts = dict(rendering.whole(environment))
    texts["dashboard.json"] = dashboard.dashboard(environment.targets[0].application, environment.name)
    files = [
        NewFile(folder / name, text.encode(), PRIVATE if name == "alertmanager.yml" else PUBLIC)
        for name, text in texts.items()
    ]
    replace_all(files)
    tell([f"{file.path}" for file in files], sys.stdout, environment.secrets)
    return ExitCode.DONE


def install(request: Request) -> ExitCode:
    """Have the monitoring host watch the environment; the same again changes nothing.

    Raises PreflightError when something must be made by hand first.
    """
    environment, monitor = _monitored(request)
    program, heads = render.host_program("observe"), rendering.heads()
    items = parts.items(rendering.name_of(environment), program, heads, rendering.parts(environment))
    work = Work("observe", HostResult.PREPARED, "Nothing to do: it is watched as it is meant to be.", _on_it(items))
    return _converge(
        environment, monitor, work, request, f"Have {environment.monitoring.address} watch {environment.name}?"
    )


def uninstall(request: Request) -> ExitCode:
    """Have the monitoring host forget the environment; its programs and what they recorded stay."""
    environment, monitor = _monitored(request)
    nothing = "Nothing to do: it is not watched."
    work = Work("observe", HostResult.TORN_DOWN, nothing, _on_it(parts.gone(rendering.name_of(environment))))
    return _converge(
        environment, monitor, work, request, f"Have {environment.monitoring.address} forget {environment.name}?"
    )


def _on_it(items: tuple[Item, ...]) -> Mapping[str, tuple[Item, ...]]:
    return {MONITORING_HOST: items}


def _monitored(request: Request) -> tuple[Environment, Target]:
    """The environment and the host that watches it. Raises ConfigError where it names none."""
    environment = config.load(request.environment, root=request.root)
    monitor = monitor_of(environment)
    if monitor is None:
        place = f"environments.{environment.name}.monitoring.address"
        mistake = Mistake("hosts.yaml", place, "nothing", "the address of the host that runs Prometheus")
        raise ConfigError(f"{environment.name} has no monitoring host. Nothing was contacted.", [mistake])
    return environment, monitor


def _converge(environment: Environment, monitor: Target, work: Work, request: Request, question: str) -> ExitCode:
    alone = replace(environment, targets=(monitor,))
    hint = "--force does it without asking"
    force = request.force or not environment.rollout.confirm
    with (
        choose(json=request.json, secrets=environment.secrets) as reporter,
        opened(alone, as_setup_user=True) as fleet,
    ):
        planned = converging.plans(fleet, work)
        reporter.plan(planned, scripts=request.dry_run)
        if request.dry_run:
            return ExitCode.DONE
        return converging.converge(
            fleet, work, planned, reporter, lambda: operator.confirm(question, force=force, hint=hint)
        )
