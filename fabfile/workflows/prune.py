"""Prune: what is past its retention goes, under each host's lock and by what is there then. The story only."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from fabfile import config
from fabfile.commands import gone, journal
from fabfile.commands.gone import Mode
from fabfile.commands.shell import Script, script
from fabfile.errors import ExitCode, HostUnreachable, RollingError, StepFailed
from fabfile.model import Environment, HostState
from fabfile.plans import retention
from fabfile.remote import observe
from fabfile.remote.host import Answer, Host
from fabfile.report import tell
from fabfile.report.pruned import Found, pruned_json, pruned_lines
from fabfile.workflows import operator, rolling, shortly
from fabfile.workflows.fleet import Fleet, opened

#: What listing or deleting may take on a host.
PRUNE_SECONDS = 600.0


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    json: bool = False


def prune(request: Request) -> ExitCode:
    """Delete what is past its retention, or list it. Raises RollingError when nothing was begun."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    with opened(environment) as fleet:
        states = fleet.observe()
        found: dict[str, Found] = observe.on_each(
            fleet.hosts, environment.rollout.parallel, lambda host: _list(host, fleet, states[host.name])
        )
        if request.dry_run or _nothing(found):
            return _report(found, environment, request)
        dead = rolling.dead_locks(states, environment)
        if not request.json:
            tell(pruned_lines(found), sys.stdout, environment.secrets)
        hint = f"inv prune --env {environment.name} --force does not ask"
        force = request.force or not environment.rollout.confirm
        operator.confirm(f"Delete this on {environment.name}?", force=force, hint=hint)
        answers = shortly.look_and_do(
            fleet, lambda state: _body(fleet, state, Mode.TELL), reason="prune", seconds=PRUNE_SECONDS, dead=dead
        )
    done: dict[str, Found] = {
        name: answer if isinstance(answer, RollingError) else _read(name, answer) for name, answer in answers.items()
    }
    return _report(done, environment, request)


def _list(host: Host, fleet: Fleet, state: HostState) -> Found:
    return _read(host.name, host.run(journal.direct(_body(fleet, state, Mode.LIST)), timeout_seconds=PRUNE_SECONDS))


def _body(fleet: Fleet, state: HostState, mode: Mode) -> Script:
    selection = retention.prune(state, fleet.targets[state.host].application, fleet.environment.rollout, mode)
    return script(gone.free_bytes(), selection, gone.free_bytes())


def _read(name: str, answer: Answer) -> Found:
    if not answer.ok:
        return StepFailed(f"{name}: pruning did not finish (status {answer.status}).\n{answer.last_words}")
    return gone.parse(answer.output)


def _nothing(found: dict[str, Found]) -> bool:
    lost = [str(one) for one in found.values() if isinstance(one, RollingError)]
    if lost:
        raise HostUnreachable("\n".join(lost))
    return not any(one[0] for one in found.values() if not isinstance(one, RollingError))


def _report(found: dict[str, Found], environment: Environment, request: Request) -> ExitCode:
    if request.json:
        tell([pruned_json(found, environment.secrets)], sys.stdout, environment.secrets)
    else:
        tell(pruned_lines(found), sys.stdout, environment.secrets)
    failed = [one for one in found.values() if isinstance(one, RollingError)]
    if not failed:
        return ExitCode.DONE
    return ExitCode.PARTLY_DONE if len(failed) < len(found) else failed[0].exit_code
