"""Turn the maintenance page on or off on every host, and verify it with a visitor's request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rolling_upgrade import config, rendering
from rolling_upgrade.console import prompt
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.engine import maintenance as page
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.model import Environment, HostState, Target, exit_code
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import PROGRAM, ExitCode, PreflightError, RollingError, usage_error
from rolling_upgrade.features import operation
from rolling_upgrade.ssh.fleet import opened

#: The time limit for switching on one host, proof included.
SWITCH_SECONDS = 30.0
MAX_MESSAGE_LENGTH = 500


def maintenance(
    switch: str, env: str | None, *, root: Path, hosts: tuple[str, ...] = (), message: str = "", force: bool = False
) -> ExitCode:
    """Turn the maintenance page on or off. Raises RollingError if it fails before it changes a host."""
    _check_options(switch, message)
    environment = _with_sites(config.load(env, root=root, hosts=hosts))
    with opened(environment) as fleet:
        states = fleet.observe()
        if switch == "on":
            _check_hosts(fleet.targets, states)
        operation.refuse_live_locks(states, environment)
        question = f"Turn the maintenance page of {environment.name} {switch}?"
        hint = f"{PROGRAM} maintenance {switch} --env {environment.name} --force skips the question"
        prompt.confirm(question, force=force or not environment.rollout.confirm, hint=hint)
        answers = operation.run_under_locks(
            fleet,
            states,
            lambda state: _body(switch, message, fleet.targets[state.host]),
            reason=f"maintenance {switch}",
            seconds=SWITCH_SECONDS,
        )
    return _report(switch, environment, answers)


def _check_options(switch: str, message: str) -> None:
    issues = []
    if switch not in {"on", "off"}:
        issues.append(("", repr(switch), "on or off"))
    if message and switch == "off":
        issues.append(("--message", "a message with off", "--message only with on"))
    if len(message) > MAX_MESSAGE_LENGTH:
        found = f"{len(message)} characters"
        issues.append(("--message", found, f"{MAX_MESSAGE_LENGTH} at most"))
    if issues:
        raise usage_error(*issues)


def _with_sites(environment: Environment) -> Environment:
    """Return the environment with only the hosts that have a site. Raises PreflightError without any."""
    targets = tuple(target for target in environment.targets if target.application.has_site)
    if not targets:
        names = ", ".join(target.name for target in environment.targets)
        raise PreflightError(f"{names}: no service with a port runs there, so there is no site; nothing was touched.")
    return replace(environment, targets=targets)


def _check_hosts(targets: Mapping[str, Target], states: Mapping[str, HostState]) -> None:
    lacking = [name for name, state in states.items() if not page.is_supported(targets[name].application, state.site)]
    if lacking:
        raise PreflightError(
            f"{', '.join(lacking)}: the Nginx site there has no maintenance page yet; nothing was touched.",
            next_step=f"{PROGRAM} setup, then {PROGRAM} deploy, which installs the current site",
        )
    without_route = [name for name, target in targets.items() if not page.shown_path(target.application)]
    if without_route:
        raise PreflightError(f"{', '.join(without_route)}: no service has a public route; nothing was touched.")


def _body(switch: str, message: str, target: Target) -> Script:
    app = target.application
    if switch == "off":
        return page.disable_verified(app)
    return page.enable_verified(app, rendering.maintenance_page(app, message))


def _report(switch: str, environment: Environment, answers: Mapping[str, Answer | RollingError]) -> ExitCode:
    lines = []
    for name, answer in answers.items():
        if isinstance(answer, RollingError):
            lines.append(str(answer))
        elif not answer.ok:
            lines.append(f"{name}: the page could not be turned {switch}: {answer.output_tail}")
        elif switch == "on":
            lines.append(f"{name}: maintenance is on: visitors get the page with 503; health paths answer as before")
        else:
            lines.append(f"{name}: maintenance is off: {answer.output.strip()}")
    code = exit_code(operation.failure(answer) for answer in answers.values())
    if code is not ExitCode.DONE:
        lines.append(f"Next: {PROGRAM} status --env {environment.name}; run the same command again")
    print_lines(lines, environment.secrets)
    return code
