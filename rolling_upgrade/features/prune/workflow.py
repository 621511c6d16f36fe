"""`inv prune`: delete expired images, backups, containers and journals under each host's lock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rolling_upgrade import config
from rolling_upgrade.console import prompt
from rolling_upgrade.console.output import print_lines, print_result
from rolling_upgrade.console.text import count, table
from rolling_upgrade.engine.host import Answer, Host
from rolling_upgrade.engine.model import Environment, HostState, exit_code
from rolling_upgrade.engine.prune_entry import Mode
from rolling_upgrade.engine.shell import Script, direct, script
from rolling_upgrade.engine.untrusted import size
from rolling_upgrade.errors import PROGRAM, ExitCode, HostUnreachable, RollingError, StepFailed
from rolling_upgrade.features import operation
from rolling_upgrade.features.prune import retention
from rolling_upgrade.ssh.fleet import Fleet, opened

#: The time limit for listing or deleting on a host.
PRUNE_SECONDS = 600.0


#: The expired items of one host and the freed bytes of its disk, or the error of the host.
PruneResult = tuple[tuple[retention.ExpiredItem, ...], int] | RollingError


def prune(
    env: str | None,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> ExitCode:
    """Delete expired items, or list them in a dry run. Raises RollingError if it fails before it changes a host."""
    environment = config.load(env, root=root, hosts=hosts)
    with opened(environment) as fleet:
        states = fleet.observe()
        listed: dict[str, PruneResult] = fleet.on_each(lambda host: _list(host, fleet, states[host.name]))
        if dry_run or not _any_expired(listed):
            return _report(listed, environment, json=json)
        operation.refuse_live_locks(states, environment)
        if not json:
            print_lines(prune_lines(listed), environment.secrets)
        hint = f"{PROGRAM} prune --env {environment.name} --force deletes without asking"
        force = force or not environment.rollout.confirm
        prompt.confirm(f"Delete these items on {environment.name}?", force=force, hint=hint)
        answers = operation.run_under_locks(
            fleet,
            states,
            lambda state: _script(fleet, state, Mode.REPORT),
            reason="prune",
            seconds=PRUNE_SECONDS,
            observe=True,
        )
    done: dict[str, PruneResult] = {
        name: answer if isinstance(answer, RollingError) else _parse(name, answer) for name, answer in answers.items()
    }
    return _report(done, environment, json=json)


def _list(host: Host, fleet: Fleet, state: HostState) -> PruneResult:
    answer = host.run(direct(_script(fleet, state, Mode.LIST)), timeout_seconds=PRUNE_SECONDS)
    return _parse(host.name, answer)


def _script(fleet: Fleet, state: HostState, mode: Mode) -> Script:
    body = retention.prune(state, fleet.targets[state.host].application, fleet.environment.rollout, mode)
    return script(retention.free_bytes(), body, retention.free_bytes())


def _parse(name: str, answer: Answer) -> PruneResult:
    if not answer.ok:
        return StepFailed(f"{name}: pruning did not finish (status {answer.status}).\n{answer.output_tail}")
    return retention.parse(answer.output)


def _any_expired(results: dict[str, PruneResult]) -> bool:
    """Whether a host has expired items. Raises HostUnreachable that names every host with an error."""
    errors = [str(result) for result in results.values() if isinstance(result, RollingError)]
    if errors:
        raise HostUnreachable("\n".join(errors))
    return any(result[0] for result in results.values() if not isinstance(result, RollingError))


def _report(results: dict[str, PruneResult], environment: Environment, *, json: bool) -> ExitCode:
    print_result(prune_json(results) if json else prune_lines(results), environment.secrets)
    return exit_code(result if isinstance(result, RollingError) else None for result in results.values())


def prune_lines(results: Mapping[str, PruneResult]) -> list[str]:
    """Return a table of the expired items of all hosts, then a line for each host."""
    rows = [
        (host, item.kind, size(item.bytes), item.verdict, item.name)
        for host, result in results.items()
        if not isinstance(result, RollingError)
        for item in result[0]
    ]
    lines = table([("HOST", "KIND", "SIZE", "", "NAME"), *rows]) if rows else []
    return [*lines, *(_host_line(host, result) for host, result in results.items())]


def _host_line(host: str, result: PruneResult) -> str:
    if isinstance(result, RollingError):
        return str(result)
    items, freed_bytes = result
    planned = [item for item in items if item.verdict == "would go"]
    if planned:
        most = size(sum(item.bytes for item in planned))
        return f"{host}: {count(len(planned), 'item')} expired, at most {most}"
    deleted = sum(item.verdict == "gone" for item in items)
    return (
        f"{host}: {count(deleted, 'item')} deleted, {size(freed_bytes)} freed"
        if deleted
        else f"{host}: nothing to delete"
    )


def prune_json(results: Mapping[str, PruneResult]) -> dict[str, Any]:
    """Return the JSON object of the results."""
    return {"hosts": [_host_json(host, result) for host, result in results.items()]}


def _host_json(host: str, result: PruneResult) -> dict[str, Any]:
    if isinstance(result, RollingError):
        return {"host": host, "error": str(result)}
    items, freed_bytes = result
    return {"host": host, "freed_bytes": freed_bytes, "things": items}
