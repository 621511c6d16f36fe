"""Setup, its check, and teardown: which items each host of an environment is to have, or to have no longer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fabfile import config, render
from fabfile.commands import setup as parts
from fabfile.commands import teardown as taking
from fabfile.commands.authorized_keys import block_name
from fabfile.commands.item import Item
from fabfile.config.access import read_access
from fabfile.errors import ExitCode
from fabfile.model import Environment, HostResult, Target
from fabfile.report import choose
from fabfile.workflows import converging, operator
from fabfile.workflows import watchdog as watchdogs
from fabfile.workflows.converging import Work
from fabfile.workflows.fleet import opened


@dataclass(frozen=True)
class Request:
    """What the operator asked for; `data` and `confirmed` (the application's name) are teardown's."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    dry_run: bool = False
    check: bool = False
    force: bool = False
    json: bool = False
    data: bool = False
    confirmed: str = ""


def setup(request: Request) -> ExitCode:
    """Prepare the hosts for deploys, or say what of it is missing: FAILED then.

    Raises PreflightError when something must be made by hand first.
    """
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    items = {target.name: _items(environment, target) for target in environment.targets}
    work = Work("setup", HostResult.PREPARED, "Nothing to do: every host is prepared.", items)
    hint = f"inv setup --env {environment.name} --force prepares without asking"
    force = request.force or not environment.rollout.confirm
    question = f"Prepare the hosts of {environment.name}?"
    with (
        choose(json=request.json, secrets=environment.secrets) as reporter,
        opened(environment, as_setup_user=True) as fleet,
    ):
        planned = converging.plans(fleet, work)
        reporter.plan(planned, scripts=request.dry_run)
        if request.check:
            return ExitCode.DONE if all(plan.empty for plan in planned) else ExitCode.FAILED
        if request.dry_run:
            return ExitCode.DONE
        ask = lambda: operator.confirm(question, force=force, hint=hint)  # noqa: E731
        return converging.converge(fleet, work, planned, reporter, ask)


def teardown(request: Request) -> ExitCode:
    """Take the application off the hosts; its data stays unless it is asked for."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    items = {
        target.name: taking.items(target.application, target.user, data=request.data) for target in environment.targets
    }
    notes = {target.name: (taking.stays(target.application, data=request.data),) for target in environment.targets}
    work = Work("teardown", HostResult.TORN_DOWN, "Nothing to do: nothing of it is there.", items, notes)
    with (
        choose(json=request.json, secrets=environment.secrets) as reporter,
        opened(environment, as_setup_user=True) as fleet,
    ):
        planned = converging.plans(fleet, work)
        reporter.plan(planned, scripts=request.dry_run)
        if request.dry_run:
            return ExitCode.DONE
        return converging.converge(fleet, work, planned, reporter, lambda: _confirm_name(environment, request))


def _confirm_name(environment: Environment, request: Request) -> None:
    name = environment.targets[0].application.name
    kept = "with all its data" if request.data else "but for its data"
    hint = f"inv teardown --env {environment.name} --confirm {name}"
    question = f"This takes {name} off {environment.name}, {kept}. Type its name:"
    operator.confirm_by_name(question, name, request.confirmed, hint=hint)


def _items(environment: Environment, target: Target) -> tuple[Item, ...]:
    app, rules = target.application, environment.preparation
    watchdog = watchdogs.installation(environment, target) if rules.watchdog else None
    files = parts.Files(
        site=render.nginx_site(app),
        helper=render.host_program("site"),
        boot=render.host_program("boot"),
        unit=render.boot_unit(app),
        backup_units=render.backup_units(app),
        rotation_units=render.rotation_units(app),
        requests=render.host_program("requests"),
        requests_units=render.requests_units(app),
        watchdog=watchdog[0] if watchdog else None,
        watchdog_version=watchdog[1] if watchdog else "",
        granted=read_access(environment.access_folder),
        block=block_name(app.name, environment.name),
    )
    return parts.items(target, rules, files)
