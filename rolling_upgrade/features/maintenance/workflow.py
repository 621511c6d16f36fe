"""Maintenance: the page up or down on every host, proved by a visitor's request. The story only."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fabfile import config, render
from fabfile.commands import maintenance as page
from fabfile.commands.shell import Script
from fabfile.errors import ConfigError, ExitCode, Mistake, PreflightError, RollingError
from fabfile.model import Environment, HostState, Target
from fabfile.remote.host import Answer
from fabfile.report import tell
from fabfile.workflows import operator, rolling, shortly
from fabfile.workflows.fleet import opened

#: What switching may take on a host, its proof included.
SWITCH_SECONDS = 30.0
LONGEST_MESSAGE = 500


@dataclass(frozen=True)
class Request:
    """What the operator asked for; `switch` is `on` or `off`."""

    environment: str | None
    root: Path
    switch: str
    hosts: tuple[str, ...] = ()
    message: str = ""
    force: bool = False


def maintenance(request: Request) -> ExitCode:
    """Switch the maintenance page. Raises RollingError when nothing was begun."""
    _check(request)
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    with opened(environment) as fleet:
        states = fleet.observe()
        if request.switch == "on":
            _refuse_unable(fleet.targets, states)
        dead = rolling.dead_locks(states, environment)
        question = f"Show visitors of {environment.name} the maintenance page?"
        if request.switch == "off":
            question = f"Take the maintenance page of {environment.name} down?"
        hint = f"inv maintenance {request.switch} --env {environment.name} --force does not ask"
        operator.confirm(question, force=request.force or not environment.rollout.confirm, hint=hint)
        bodies = {name: _body(request, target) for name, target in fleet.targets.items()}
        reason = f"maintenance {request.switch}"
        answers = shortly.under_locks(fleet, bodies, reason=reason, seconds=SWITCH_SECONDS, dead=dead)
    return _report(request, environment, answers)


def _check(request: Request) -> None:
    mistakes = []
    if request.switch not in {"on", "off"}:
        mistakes.append(Mistake("command line", "", repr(request.switch), "on or off"))
    if request.message and request.switch == "off":
        mistakes.append(Mistake("command line", "--message", "a message with off", "a message with on alone"))
    if len(request.message) > LONGEST_MESSAGE:
        found = f"{len(request.message)} characters"
        mistakes.append(Mistake("command line", "--message", found, f"{LONGEST_MESSAGE} at the most"))
    if mistakes:
        raise ConfigError("The command line has a mistake; nothing was contacted.", mistakes)


def _refuse_unable(targets: Mapping[str, Target], states: Mapping[str, HostState]) -> None:
    unable = [name for name, state in states.items() if not page.is_known(targets[name].application, state.site)]
    if unable:
        raise PreflightError(
            f"{', '.join(unable)}: the Nginx site there does not know the maintenance page yet; nothing was touched.",
            next_step="inv setup, then inv deploy, which installs the site of today",
        )
    hidden = [name for name, target in targets.items() if not page.shown_path(target.application)]
    if hidden:
        raise PreflightError(f"{', '.join(hidden)}: no service has a route that visitors reach; nothing was touched.")


def _body(request: Request, target: Target) -> Script:
    app = target.application
    if request.switch == "off":
        return page.prove_off(app)
    return page.prove_on(app, render.maintenance_page(app, request.message))


def _report(request: Request, environment: Environment, answers: Mapping[str, Answer | RollingError]) -> ExitCode:
    lines = []
    for name, answer in answers.items():
        if isinstance(answer, RollingError):
            lines.append(str(answer))
        elif not answer.ok:
            lines.append(f"{name}: the page could not be switched {request.switch}: {answer.last_words}")
        elif request.switch == "on":
            lines.append(f"{name}: maintenance is on: visitors get the page with 503; health paths answer as before")
        else:
            lines.append(f"{name}: maintenance is off: {answer.output.strip()}")
    code = shortly.exit_code(answers)
    if code is not ExitCode.DONE:
        lines.append(f"Next: inv status --env {environment.name}; the same command tries again")
    tell(lines, sys.stdout, environment.secrets)
    return code
