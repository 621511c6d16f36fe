"""The access commands: list the keys on every host, grant and revoke keys, and sync the hosts with the directory.

An unreachable host does not stop the others: the summary names it with the command to repeat.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.console import operator
from rolling_upgrade.console.output import print_json, print_lines
from rolling_upgrade.console.reporter import Reporter, choose
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import Environment, Event, HostResult, HostSummary, Phase, Summary, exit_code
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.resource import as_root
from rolling_upgrade.engine.shell import direct
from rolling_upgrade.errors import PROGRAM, ExitCode, HostUnreachable, PreflightError, RollingError, StepFailed
from rolling_upgrade.features.access import keys, plan, shell
from rolling_upgrade.features.access.keys import KeyChange, read_access
from rolling_upgrade.features.access.plan import DesiredAccess
from rolling_upgrade.features.access.shell import HostAccess
from rolling_upgrade.features.access.view import AccessReport, access_json, access_lines
from rolling_upgrade.ssh.connection import offered_keys
from rolling_upgrade.ssh.fleet import Fleet, opened

READ_SECONDS = 60.0
#: Several files of a million bytes each, as base64.
_ANSWER_BYTES = 8 << 20


def show(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), json: bool = False) -> ExitCode:
    """Print the keys that each host accepts. FAILED when a host differs from the directory, or is unreachable."""
    environment = config.load(env, root=root, hosts=hosts)
    access = read_access(environment.access_directory)
    with opened(environment, as_setup_user=True) as fleet:
        found, unreachable = fleet.on_reachable(lambda host: _read_host(host, fleet))
    reports = {
        name: _compare(current, DesiredAccess(environment.name, fleet.targets[name], access))
        for name, current in found.items()
    }
    names = [name for name, _ in access.granted]
    if json:
        print_json(access_json(environment.name, reports, unreachable, granted=names), sys.stdout, environment.secrets)
    else:
        print_lines(
            access_lines(environment.name, reports, unreachable, granted=names), sys.stdout, environment.secrets
        )
    return ExitCode.FAILED if unreachable or any(report.drift for report in reports.values()) else ExitCode.DONE


def grant(
    env: str | None,
    name: str,
    key: str,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> ExitCode:
    """Grant a key on every host. `key` is a file or the key itself. Raises ConfigError for an invalid name or key."""
    environment = config.load(env, root=root, hosts=hosts)
    change = keys.grant(environment, name, key)
    return _Sync(environment, change, hosts_named=bool(hosts), dry_run=dry_run, force=force, json=json).run()


def revoke(
    env: str | None,
    name: str,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> ExitCode:
    """Revoke a key on every host. Raises PreflightError for the last key, and for the operator's own without force."""
    environment = config.load(env, root=root, hosts=hosts)
    change = keys.revoke(environment, name)
    return _Sync(environment, change, hosts_named=bool(hosts), dry_run=dry_run, force=force, json=json).run()


def sync(
    env: str | None,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    exclusive: bool = False,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> ExitCode:
    """Sync every host with the directory. PARTLY_DONE when a host was not synced, or still accepts a revoked key."""
    environment = config.load(env, root=root, hosts=hosts)
    change, named = keys.no_change(environment), bool(hosts)
    options = {"exclusive": exclusive, "dry_run": dry_run, "force": force, "json": json}
    return _Sync(environment, change, hosts_named=named, **options).run()


def _read_host(host: Host, fleet: Fleet) -> HostAccess:
    target = fleet.targets[host.name]
    script = as_root(shell.read_files(target.user), user=target.setup_user, seconds=READ_SECONDS - 5)
    answer = host.run(script.answering(_ANSWER_BYTES), timeout_seconds=READ_SECONDS)
    try:
        if not answer.ok:
            raise ValueError(answer.output_tail)
        return shell.parse(answer.output)
    except ValueError as error:
        raise HostUnreachable(
            f"{host.name}: cannot read the authorized keys of {target.user} as root through {target.setup_user}: {error}",
            next_step=f"{PROGRAM} setup prepares a host; setup_user in hosts.yaml must be root or have passwordless sudo",
        ) from error


def _compare(current: HostAccess, desired: DesiredAccess) -> AccessReport:
    return AccessReport(plan.holders(desired, current), plan.faults(desired, current, desired.environment))


@dataclass(frozen=True)
class _Sync:
    """One run: read the hosts, plan, confirm, write the directory and the hosts, verify.

    `hosts_named` means that --hosts selected the hosts.
    """

    environment: Environment
    change: KeyChange
    hosts_named: bool
    dry_run: bool
    force: bool
    json: bool
    exclusive: bool = False

    def _desired(self, host: str) -> DesiredAccess:
        target = next(target for target in self.environment.targets if target.name == host)
        return DesiredAccess(self.environment.name, target, self.change.access, exclusive=self.exclusive)

    def run(self) -> ExitCode:
        """Run the sync. Raises HostUnreachable when no host is reachable, before anything changes."""
        started_at, environment = time.time(), self.environment
        with (
            choose(json=self.json, secrets=environment.secrets) as reporter,
            opened(environment, as_setup_user=True) as fleet,
        ):
            found, unreachable = fleet.on_reachable(lambda host: _read_host(host, fleet))
            if not found:
                raise HostUnreachable("\n".join(unreachable.values()))
            self._refuse(found)
            plans = {name: plan.plan_access(self._desired(name), current) for name, current in found.items()}
            reporter.plan(list(plans.values()), scripts=self.dry_run)
            for name, error in unreachable.items():
                reporter.event(Event(time.time(), Phase.NOTE, f"unreachable, and left unchanged: {error}", name))
            if not self.force:
                self._keep_own(found)
            if self.dry_run:
                return ExitCode.REFUSED if unreachable else ExitCode.DONE
            self._confirm(plans)
            self.change.write()
            rows = fleet.on_each(
                lambda host: self._apply(host, plans[host.name], fleet, reporter),
                hosts=[host for host in fleet.hosts if host.name in plans],
                finish=True,
            )
            summary = self._summary({**rows, **unreachable}, found, time.time() - started_at)
            reporter.summary(summary)
            return ExitCode(summary.exit_code)

    def _refuse(self, found: Mapping[str, HostAccess]) -> None:
        unread = [f"{name}: {current.path}" for name, current in found.items() if not plan.is_read(current)]
        if unread:
            raise PreflightError(
                "sshd does not read the file of the authorized keys; nothing was touched.\n  " + "\n  ".join(unread),
                next_step="add .ssh/authorized_keys to AuthorizedKeysFile in sshd_config on these hosts",
            )

    def _keep_own(self, found: Mapping[str, HostAccess]) -> None:
        """Raise PreflightError when the plan removes a key with which the operator logs in as the deploy user."""
        removed = {name: plan.removed_keys(self._desired(name), current) for name, current in found.items()}
        with opened(self.environment) as fleet:
            hosts = [host for host in fleet.hosts if removed.get(host.name)]
            own = fleet.on_each(lambda host: _own_keys(host, fleet), hosts=hosts)
        for name, fingerprints in own.items():
            for fingerprint in sorted(removed[name] & fingerprints if isinstance(fingerprints, frozenset) else ()):
                who = self.change.access.names.get(fingerprint, "no name")
                raise PreflightError(
                    f"{name}: {who} {fingerprint} is the key that you log in with; without it you could not "
                    "deploy any more. Nothing was touched.",
                    next_step="have another operator run the command, or use --force",
                )

    def _confirm(self, plans: Mapping[str, Plan]) -> None:
        if not self.change.title and all(host_plan.empty for host_plan in plans.values()):
            return
        environment = self.environment
        what = self.change.title or f"Sync the hosts of {environment.name} with the directory of authorized keys"
        force = self.force or not environment.rollout.confirm
        operator.confirm(f"{what}?", force=force, hint="the same command with --force skips the question")

    def _apply(self, host: Host, host_plan: Plan, fleet: Fleet, reporter: Reporter) -> HostSummary:
        if host_plan.empty:
            return HostSummary(host.name, HostResult.UNCHANGED, 0)
        started_at, step = time.time(), host_plan.steps[0]
        reporter.event(Event(started_at, Phase.STARTED, step.title, host.name, step.id))
        try:
            answer = host.run(step.script, timeout_seconds=step.timeout_seconds)
            if not answer.ok:
                raise StepFailed(f"{host.name}: {step.title}: failed (status {answer.status}).\n{answer.output_tail}")
            if plan.is_wrong(self._desired(host.name), _read_host(host, fleet)):
                raise StepFailed(f"{host.name}: authorized_keys was written, but still differs from the directory.")
        except RollingError as error:
            reporter.event(Event(time.time(), Phase.FAILED, step.title, host.name, step.id, time.time() - started_at))
            return HostSummary(host.name, HostResult.UNKNOWN, time.time() - started_at, cause=str(error))
        reporter.event(Event(time.time(), Phase.DONE, step.title, host.name, step.id, time.time() - started_at))
        return HostSummary(host.name, host_plan.result, time.time() - started_at)

    def _summary(
        self, rows: Mapping[str, HostSummary | HostUnreachable | str], found: Mapping[str, HostAccess], seconds: float
    ) -> Summary:
        by_name = {
            name: row if isinstance(row, HostSummary) else HostSummary(name, HostResult.UNKNOWN, 0, cause=str(row))
            for name, row in rows.items()
        }
        hosts = tuple(by_name[target.name] for target in self.environment.targets)
        behind = [row.host for row in hosts if row.result is HostResult.UNKNOWN]
        kept = [
            f"{name}: {key}" for name, current in found.items() for key in plan.unsettled(self._desired(name), current)
        ]
        revoked = [key for key in kept if plan.REVOKED in key]
        code = ExitCode.PARTLY_DONE if revoked else exit_code(row.result for row in hosts)
        message = self._message(behind, revoked, changed=any(row.result is HostResult.SYNCED for row in hosts))
        warnings = (*self._elsewhere(), *(key for key in kept if key not in revoked))
        return Summary("access", self.environment.name, "", code, seconds, hosts, message, warnings=tuple(warnings))

    def _message(self, behind: list[str], revoked: list[str], *, changed: bool) -> str:
        exclusive = " --exclusive" if self.exclusive else ""
        lines = [*revoked]
        if revoked:
            lines.append(f"Next: revoke it with {PROGRAM} access.revoke in the other environment, or delete it by hand")
        if behind:
            names = ",".join(behind)
            lines.append(f"{', '.join(behind)}: not synced; the keys there are unchanged.")
            lines.append(f"Next: {PROGRAM} access.sync --env {self.environment.name} --hosts {names}{exclusive}")
        if not lines:
            lines.append(
                "Every host matches the directory." if changed else "Nothing to do: every host matches the directory."
            )
        return "\n".join(lines)

    def _elsewhere(self) -> tuple[str, ...]:
        if not (self.change.title and self.hosts_named):
            return ()
        return (f"hosts outside of --hosts are not synced. Next: {PROGRAM} access.sync --env {self.environment.name}",)


def _own_keys(host: Host, fleet: Fleet) -> frozenset[str]:
    """Return the key of this session if the host exposes it, otherwise the keys that this workstation could offer."""
    target = fleet.targets[host.name]
    try:
        answer = host.run(direct(shell.session_key()), timeout_seconds=READ_SECONDS)
    except RollingError:
        return offered_keys(target.identity_file)
    fingerprint = answer.output.strip()
    return frozenset({fingerprint}) if fingerprint.startswith("SHA256:") else offered_keys(target.identity_file)
