"""Who may deploy: list it, grant it, revoke it, and make every host as the folder of keys says.

A host that is not reached keeps nothing from happening on the others: it is named, with the command to repeat.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fabfile import config
from fabfile.commands import access as commands
from fabfile.commands import journal
from fabfile.commands.access import Seen
from fabfile.commands.item import as_root
from fabfile.config.access import read_access
from fabfile.errors import ExitCode, HostUnreachable, PreflightError, RollingError, StepFailed
from fabfile.model import Environment, Event, HostResult, HostSummary, Phase, Summary
from fabfile.plans import access as planning
from fabfile.plans.access import Wanted
from fabfile.plans.step import Plan
from fabfile.remote import observe
from fabfile.remote.connecting import offered_keys
from fabfile.remote.host import Host
from fabfile.report import Reporter, choose
from fabfile.report.access import Told, render_access
from fabfile.workflows import granting, operator
from fabfile.workflows.fleet import Fleet, opened

LOOK_SECONDS = 60.0


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    exclusive: bool = False
    dry_run: bool = False
    force: bool = False
    json: bool = False


def show(request: Request) -> ExitCode:
    """Print who can log in to each host. FAILED when folder and hosts differ, or a host cannot be reached."""
    environment = _load(request)
    access = read_access(environment.access_folder)
    with opened(environment, as_setup_user=True) as fleet:
        found, lost = _look(fleet)
    told = {
        name: _told(seen, Wanted(environment.name, fleet.targets[name], access), environment)
        for name, seen in found.items()
    }
    names = [name for name, _ in access.granted]
    errors = {name: str(error) for name, error in lost.items()}
    render_access(environment, told, errors, granted=names, json=request.json, out=sys.stdout)
    return ExitCode.FAILED if lost or any(one.drift for one in told.values()) else ExitCode.DONE


def grant(request: Request, name: str, key: str) -> ExitCode:
    """Let a key in on every host. `key` is a file or the key itself. Raises ConfigError for one that is not fit."""
    environment = _load(request)
    return _Sync(request, environment, granting.granted(environment, name, key)).run()


def revoke(request: Request, name: str) -> ExitCode:
    """Take a key away everywhere. Raises PreflightError for the last one, and for the operator's own without force."""
    environment = _load(request)
    return _Sync(request, environment, granting.revoked(environment, name)).run()


def sync(request: Request) -> ExitCode:
    """Make every host as the folder says. PARTLY_DONE when one is behind, or lets a revoked key in."""
    environment = _load(request)
    return _Sync(request, environment, granting.unchanged(environment)).run()


def _load(request: Request) -> Environment:
    return config.load(request.environment, root=request.root, hosts=request.hosts)


def _look(fleet: Fleet) -> tuple[dict[str, Seen], dict[str, HostUnreachable]]:
    found = observe.on_each(fleet.hosts, fleet.environment.rollout.parallel, lambda host: _look_at(host, fleet))
    seen = {name: one for name, one in found.items() if isinstance(one, Seen)}
    return seen, {name: one for name, one in found.items() if isinstance(one, HostUnreachable)}


def _look_at(host: Host, fleet: Fleet) -> Seen:
    target = fleet.targets[host.name]
    answer = host.run(as_root(commands.look(target.user), user=target.setup_user), timeout_seconds=LOOK_SECONDS)
    try:
        if not answer.ok:
            raise ValueError(answer.last_words)
        return commands.parse(answer.output)
    except ValueError as error:
        raise HostUnreachable(
            f"{host.name}: cannot see who may log in as {target.user}, looking as root through {target.setup_user}: "
            f"{error}",
            next_step="inv setup prepares a host; setup_user in hosts.yaml is root, or has passwordless sudo",
        ) from error


def _told(seen: Seen, wanted: Wanted, environment: Environment) -> Told:
    return Told(planning.holders(wanted, seen), planning.faults(wanted, seen, environment.name))


class _Sync:
    """One run: look, plan, show, ask, write the folder and the hosts, look again."""

    def __init__(self, request: Request, environment: Environment, change: granting.Change) -> None:
        self._request, self._environment, self._change = request, environment, change
        self._wanted = {
            target.name: Wanted(environment.name, target, change.access, exclusive=request.exclusive)
            for target in environment.targets
        }

    def run(self) -> ExitCode:
        """Do it. Raises HostUnreachable when no host can be reached: nothing was touched."""
        began, environment, request = time.time(), self._environment, self._request
        with (
            choose(json=request.json, secrets=environment.secrets) as reporter,
            opened(environment, as_setup_user=True) as fleet,
        ):
            found, lost = _look(fleet)
            if not found:
                raise HostUnreachable("\n".join(str(error) for error in lost.values()))
            self._refuse(found)
            plans = {name: planning.plan_access(self._wanted[name], seen) for name, seen in found.items()}
            reporter.plan(list(plans.values()), scripts=request.dry_run)
            for name, error in lost.items():
                reporter.event(Event(time.time(), Phase.NOTE, f"not reached, and left as it is: {error}", name))
            if not request.force:
                self._keep_own(found)
            if request.dry_run:
                return ExitCode.REFUSED if lost else ExitCode.DONE
            self._confirm(plans)
            self._change.write()
            rows = observe.on_each(
                [host for host in fleet.hosts if host.name in plans],
                environment.rollout.parallel,
                lambda host: self._apply(host, plans[host.name], fleet, reporter),
            )
            summary = self._summary({**rows, **lost}, found, time.time() - began)
            reporter.summary(summary)
            return ExitCode(summary.exit_code)

    def _refuse(self, found: Mapping[str, Seen]) -> None:
        unread = [f"{name}: {seen.path}" for name, seen in found.items() if not planning.is_read(seen)]
        if unread:
            raise PreflightError(
                "sshd does not read the file in which keys are granted; nothing was touched.\n  " + "\n  ".join(unread),
                next_step="add .ssh/authorized_keys to AuthorizedKeysFile in sshd_config there",
            )

    def _keep_own(self, found: Mapping[str, Seen]) -> None:
        """Raises PreflightError when a key goes with which the operator logs in as the deploy user."""
        lost = {name: planning.lost(self._wanted[name], seen) for name, seen in found.items()}
        with opened(self._environment) as fleet:
            hosts = [host for host in fleet.hosts if lost.get(host.name)]
            own = observe.on_each(hosts, fleet.environment.rollout.parallel, lambda host: _own_keys(host, fleet))
        for name, keys in own.items():
            for fingerprint in sorted(lost[name] & keys if isinstance(keys, frozenset) else ()):
                who = self._change.access.names.get(fingerprint, "no name")
                raise PreflightError(
                    f"{name}: {who} {fingerprint} is the key that you log in with here; without it you could not "
                    "deploy any more. Nothing was touched.",
                    next_step="let a colleague do it, or repeat the command with --force if that is what you want",
                )

    def _confirm(self, plans: Mapping[str, Plan]) -> None:
        if not self._change.title and all(plan.empty for plan in plans.values()):
            return
        environment = self._environment
        what = self._change.title or f"Make the hosts of {environment.name} as the folder says"
        force = self._request.force or not environment.rollout.confirm
        operator.confirm(f"{what}?", force=force, hint="the same command with --force does it without asking")

    def _apply(self, host: Host, plan: Plan, fleet: Fleet, reporter: Reporter) -> HostSummary:
        if plan.empty:
            return HostSummary(host.name, HostResult.UNCHANGED, 0)
        began, step = time.time(), plan.steps[0]
        reporter.event(Event(began, Phase.STARTED, step.title, host.name, step.id))
        try:
            answer = host.run(step.script, timeout_seconds=step.timeout_seconds)
            if not answer.ok:
                raise StepFailed(f"{host.name}: {step.title}: failed (status {answer.status}).\n{answer.last_words}")
            if planning.is_wrong(self._wanted[host.name], _look_at(host, fleet)):
                raise StepFailed(f"{host.name}: still not as the folder says, after it was written.")
        except RollingError as error:
            reporter.event(Event(time.time(), Phase.FAILED, step.title, host.name, step.id, time.time() - began))
            return HostSummary(host.name, HostResult.UNKNOWN, time.time() - began, cause=str(error))
        reporter.event(Event(time.time(), Phase.DONE, step.title, host.name, step.id, time.time() - began))
        return HostSummary(host.name, plan.result, time.time() - began)

    def _summary(
        self, rows: Mapping[str, HostSummary | HostUnreachable], found: Mapping[str, Seen], seconds: float
    ) -> Summary:
        by_name = {
            name: row if isinstance(row, HostSummary) else HostSummary(name, HostResult.UNKNOWN, 0, cause=str(row))
            for name, row in rows.items()
        }
        hosts = tuple(by_name[target.name] for target in self._environment.targets)
        behind = [row.host for row in hosts if row.result is HostResult.UNKNOWN]
        let_in = [
            f"{name}: {said}" for name, seen in found.items() for said in planning.unsettled(self._wanted[name], seen)
        ]
        revoked = [said for said in let_in if planning.REVOKED in said]
        code = ExitCode.PARTLY_DONE if behind or revoked else ExitCode.DONE
        message = self._message(behind, revoked, changed=any(row.result is HostResult.SYNCED for row in hosts))
        warnings = (*self._elsewhere(), *(said for said in let_in if said not in revoked))
        return Summary("access", self._environment.name, "", code, seconds, hosts, message, warnings=tuple(warnings))

    def _message(self, behind: list[str], revoked: list[str], *, changed: bool) -> str:
        exclusive = " --exclusive" if self._request.exclusive else ""
        lines = [*revoked]
        if revoked:
            lines.append("Next: take it out there: inv access.revoke in the other environment, or by hand")
        if behind:
            names = ",".join(behind)
            lines.append(f"{', '.join(behind)}: not synced; whoever got in there still does.")
            lines.append(f"Next: inv access.sync --env {self._environment.name} --hosts {names}{exclusive}")
        if not lines:
            lines.append("Every host is as the folder says." if changed else "Nothing to do: it is as the folder says.")
        return "\n".join(lines)

    def _elsewhere(self) -> tuple[str, ...]:
        if not (self._change.title and self._request.hosts):
            return ()
        return (f"hosts that --hosts left out are behind: inv access.sync --env {self._environment.name}",)


def _own_keys(host: Host, fleet: Fleet) -> frozenset[str]:
    """The keys with which this workstation logs in as the deploy user: the host's own word, where it gives it."""
    target = fleet.targets[host.name]
    try:
        answer = host.run(journal.direct(commands.disclosed()), timeout_seconds=LOOK_SECONDS)
    except RollingError:
        return offered_keys(target.identity_file)
    told = answer.output.strip()
    return frozenset({told}) if told.startswith("SHA256:") else offered_keys(target.identity_file)
