"""The access commands: list the keys on every host, grant and revoke keys, and sync the hosts with the directory.

An unreachable host does not stop the others: the summary names it with the command to repeat.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rolling_upgrade import config
from rolling_upgrade.console import prompt
from rolling_upgrade.console.output import print_result
from rolling_upgrade.console.reporter import Reporter, make_reporter
from rolling_upgrade.console.text import one_line, table, unreachable_lines
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import Environment, Event, HostResult, HostSummary, Phase, Summary
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.resource import as_root
from rolling_upgrade.engine.shell import direct
from rolling_upgrade.errors import PROGRAM, ExitCode, HostUnreachable, PreflightError, RollingError, StepFailed
from rolling_upgrade.features.access import keys, plan, shell
from rolling_upgrade.features.access.keys import Access, KeyChange, read_access
from rolling_upgrade.features.access.plan import AccessReport, DesiredAccess, Holder, Standing
from rolling_upgrade.features.access.shell import HostAccess
from rolling_upgrade.features.apply import exit_code_of, host_summaries, new_context, run_plan
from rolling_upgrade.ssh.connection import login_fingerprints
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
        name: plan.compare(DesiredAccess(environment.name, fleet.targets[name], access), current)
        for name, current in found.items()
    }
    names = [name for name, _ in access.granted]
    view = access_json if json else access_lines
    print_result(view(environment.name, reports, unreachable, granted=names), environment.secrets)
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
    return _sync(environment, change, hosts_named=bool(hosts), dry_run=dry_run, force=force, json=json)


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
    return _sync(environment, change, hosts_named=bool(hosts), dry_run=dry_run, force=force, json=json)


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
    change = keys.no_change(environment)
    options = {"exclusive": exclusive, "dry_run": dry_run, "force": force, "json": json}
    return _sync(environment, change, hosts_named=bool(hosts), **options)


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


def _sync(
    environment: Environment,
    change: KeyChange,
    *,
    hosts_named: bool,
    exclusive: bool = False,
    dry_run: bool,
    force: bool,
    json: bool,
) -> ExitCode:
    """Read the hosts, plan, confirm, write the directory and the hosts, verify.

    `hosts_named` means that --hosts selected the hosts. Raises HostUnreachable when no host is reachable, before
    anything changes.
    """
    started_at = time.time()
    desired = {
        target.name: DesiredAccess(environment.name, target, change.access, exclusive=exclusive)
        for target in environment.targets
    }
    with (
        make_reporter(json=json, secrets=environment.secrets) as reporter,
        opened(environment, as_setup_user=True) as fleet,
    ):
        found, unreachable = fleet.on_reachable(lambda host: _read_host(host, fleet))
        if not found:
            raise HostUnreachable("\n".join(unreachable.values()))
        _refuse_unread(found)
        plans = {name: plan.plan_access(desired[name], current) for name, current in found.items()}
        reporter.plan(list(plans.values()), scripts=dry_run)
        for name, error in unreachable.items():
            reporter.event(Event(time.time(), Phase.NOTE, f"unreachable, and left unchanged: {error}", name))
        if not force:
            _refuse_own_keys(environment, change.access, desired, found)
        if dry_run:
            return ExitCode.REFUSED if unreachable else ExitCode.DONE
        if change.title or not all(host_plan.empty for host_plan in plans.values()):
            _confirm(environment, change.title, force=force)
        change.write()
        rows = _write(fleet, plans, desired, unreachable, reporter)
        elsewhere = bool(change.title) and hosts_named
        summary = _summary(desired, found, rows, time.time() - started_at, elsewhere=elsewhere)
        reporter.summary(summary)
        return ExitCode(summary.exit_code)


def _write(
    fleet: Fleet,
    plans: Mapping[str, Plan],
    desired: Mapping[str, DesiredAccess],
    unreachable: Mapping[str, str],
    reporter: Reporter,
) -> tuple[HostSummary, ...]:
    """Execute the plans of the reachable hosts, and verify them."""
    context = new_context(fleet, reporter)

    def write(host: Host) -> HostSummary:
        if host.name in unreachable:
            raise HostUnreachable(unreachable[host.name])
        verify = partial(_verify, host, desired[host.name], fleet)
        return run_plan(fleet.host(host.name), plans[host.name], fleet, context, verify)

    return host_summaries(fleet.on_each(write, finish=True, on_interrupt=context.cancelled.set))


def _refuse_unread(found: Mapping[str, HostAccess]) -> None:
    unread = [f"{name}: {current.path}" for name, current in found.items() if not plan.is_read(current)]
    if unread:
        raise PreflightError(
            "sshd does not read the file of the authorized keys; nothing was touched.\n  " + "\n  ".join(unread),
            next_step="add .ssh/authorized_keys to AuthorizedKeysFile in sshd_config on these hosts",
        )


def _refuse_own_keys(
    environment: Environment, access: Access, desired: Mapping[str, DesiredAccess], found: Mapping[str, HostAccess]
) -> None:
    """Raise PreflightError when the plan removes a key with which the operator logs in as the deploy user."""
    removed = {name: plan.removed_keys(desired[name], current) for name, current in found.items()}
    with opened(environment) as fleet:
        hosts = [host for host in fleet.hosts if removed.get(host.name)]
        own = fleet.on_each(lambda host: _own_keys(host, fleet), hosts=hosts)
    for name, fingerprints in own.items():
        for fingerprint in sorted(removed[name] & fingerprints if isinstance(fingerprints, frozenset) else ()):
            raise PreflightError(
                f"{name}: {access.names.get(fingerprint, 'no name')} {fingerprint} is the key that you log in with; "
                "without it you could not deploy any more. Nothing was touched.",
                next_step="have another operator run the command, or use --force",
            )


def _confirm(environment: Environment, title: str, *, force: bool) -> None:
    question = title or f"Sync the hosts of {environment.name} with the directory of authorized keys"
    hint = "the same command with --force skips the question"
    prompt.confirm(f"{question}?", force=force or not environment.rollout.confirm, hint=hint)


def _verify(host: Host, desired: DesiredAccess, fleet: Fleet) -> None:
    if plan.is_wrong(desired, _read_host(host, fleet)):
        raise StepFailed(f"{host.name}: authorized_keys was written, but still differs from the directory.")


def _summary(
    desired: Mapping[str, DesiredAccess],
    found: Mapping[str, HostAccess],
    hosts: tuple[HostSummary, ...],
    seconds: float,
    *,
    elsewhere: bool,
) -> Summary:
    """Describe the keys that stay and the hosts without a sync; `elsewhere` includes hosts outside of --hosts."""
    environment, exclusive = next((wanted.environment, wanted.exclusive) for wanted in desired.values())
    lines: list[str] = []
    warnings: list[str] = []
    for name, current in found.items():
        for holder in plan.kept(desired[name], current):
            rows = lines if holder.standing is Standing.REVOKED else warnings
            rows.append(f"{name}: {plan.kept_line(holder)}")
    code = ExitCode.PARTLY_DONE if lines else exit_code_of(hosts)
    if elsewhere:
        sync_all = f"{PROGRAM} access.sync --env {environment}"
        warnings.insert(0, f"hosts outside of --hosts are not synced. Next: {sync_all}")
    if lines:
        lines.append(f"Next: revoke it with {PROGRAM} access.revoke in the other environment, or delete it by hand")
    behind = [row.host for row in hosts if row.result in {HostResult.UNKNOWN, HostResult.NOT_STARTED}]
    if behind:
        option = " --exclusive" if exclusive else ""
        lines.append(f"{', '.join(behind)}: not synced; the keys there are unchanged.")
        lines.append(f"Next: {PROGRAM} access.sync --env {environment} --hosts {','.join(behind)}{option}")
    if not lines:
        changed = any(row.result is HostResult.SYNCED for row in hosts)
        lines = ["Every host matches the directory." if changed else "Nothing to do: every host matches the directory."]
    return Summary("access", environment, "", code, seconds, hosts, "\n".join(lines), warnings=tuple(warnings))


def _own_keys(host: Host, fleet: Fleet) -> frozenset[str]:
    """Return the key of this session if the host exposes it, otherwise the keys that this workstation could offer."""
    target = fleet.targets[host.name]
    try:
        answer = host.run(direct(shell.session_key()), timeout_seconds=READ_SECONDS)
    except RollingError:
        return login_fingerprints(target.identity_file)
    fingerprint = answer.output.strip()
    return frozenset({fingerprint}) if fingerprint.startswith("SHA256:") else login_fingerprints(target.identity_file)


def access_lines(
    environment: str, hosts: Mapping[str, AccessReport], unreachable: Mapping[str, str], *, granted: Sequence[str]
) -> list[str]:
    """Return the granted names, the keys of each host, and the next command."""
    lines = [f"{environment}: granted to {', '.join(granted) or 'nobody'}", ""]
    lines += [line for name, access in hosts.items() for line in _host_lines(name, access)]
    lines += unreachable_lines(unreachable)
    if any(access.drift for access in hosts.values()):
        lines.append(
            f"The hosts differ from the directory of keys. Next: {PROGRAM} access.sync --env {environment} --dry-run"
        )
    return lines


def _host_lines(name: str, access: AccessReport) -> Iterator[str]:
    yield f"{name}  {'DIFFERS' if access.drift else 'matches the directory'}"
    yield from table([_row(holder) for holder in access.holders])
    yield from (f"  {one_line(fault)}" for fault in access.faults)
    yield ""


def _row(holder: Holder) -> tuple[str, ...]:
    options = f" with options {holder.options}" if holder.options else ""
    name = one_line(holder.name) or "no name"
    return ("", name, holder.key.fingerprint, holder.key.type, holder.standing.value, one_line(holder.place + options))


def access_json(
    environment: str, hosts: Mapping[str, AccessReport], unreachable: Mapping[str, str], *, granted: Sequence[str]
) -> dict[str, Any]:
    """Return the report as a JSON object."""
    objects = [_host_json(name, access) for name, access in hosts.items()]
    objects += [{"host": name, "unreachable": error} for name, error in unreachable.items()]
    return {"environment": environment, "granted": granted, "hosts": objects}


def _host_json(name: str, access: AccessReport) -> dict[str, Any]:
    keys = [
        {
            "name": holder.name,
            "fingerprint": holder.key.fingerprint,
            "type": holder.key.type,
            "standing": holder.standing.value.lower(),
            "file": holder.file,
            "block": holder.block,
            "options": holder.options,
        }
        for holder in access.holders
    ]
    return {"host": name, "drift": access.drift, "keys": keys, "faults": access.faults}
