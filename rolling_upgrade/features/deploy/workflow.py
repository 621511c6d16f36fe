"""Deploy: observe, plan, show, confirm, roll out, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from rolling_upgrade import config, rendering
from rolling_upgrade.console import operator
from rolling_upgrade.console.reporter import choose
from rolling_upgrade.engine import preflight
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.maintenance import BY_SETTING
from rolling_upgrade.engine.model import Application, Environment, HostState, Image, Phase, Summary, Transfer
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.engine.rollout import HostRun, batch_size
from rolling_upgrade.errors import PROGRAM, ExitCode, usage_error
from rolling_upgrade.features import operation
from rolling_upgrade.features.deploy import digests
from rolling_upgrade.features.deploy.digests import Resolved
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.deploy.push import Pushing, prepared
from rolling_upgrade.features.deploy.spec import DeploySpec
from rolling_upgrade.features.registry.workflow import log_in
from rolling_upgrade.features.rollback.selection import candidates
from rolling_upgrade.ssh.fleet import Fleet, opened


@dataclass(frozen=True)
class Promoted:
    """The images by service that another environment, the source of a promotion, runs."""

    source: str
    images: Mapping[str, Image]


def deploy(
    env: str | None,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    tag: str = "",
    batch: str = "",
    transfer: str = "",
    images: Sequence[str] = (),
    strict: bool = False,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
    promoted: Promoted | None = None,
    given: Mapping[str, Image] = MappingProxyType({}),
    on_finish: Callable[[Summary], None] = lambda _: None,
) -> ExitCode:
    """Bring the wanted release to the hosts. Raises RollingError with its exit code when nothing was begun.

    Args:
        given: Images with digests by service, which stand instead of the env file's.
        promoted: The environment whose images these are; its registries are asked for them too.
        on_finish: Called with the summary of the run.
    """
    started_at = time.time()
    environment = config.load(env, root=root, hosts=hosts, tag=tag, strict=strict)
    environment = _with_rollout(_with_images(environment, given), batch, transfer, images)
    with choose(json=json, secrets=environment.secrets) as reporter, opened(environment) as fleet:
        context = operation.new_context(environment, reporter)
        for warning in environment.warnings:
            context.emit(Phase.NOTE, f"warning: {warning}")
        states = fleet.observe()
        with _resolved(fleet, states, context, images, promoted, dry_run=dry_run) as (resolved, pushing):
            planner = _Planner(environment, root, context, resolved, pushing, force=force)
            host_runs = operation.host_runs(fleet.hosts, planner.applications, states, planner.plan)
            operation.refuse_unfit(_unfit(host_runs), "a deploy", states, environment)
            op_spec = _operation_spec(environment, hosts)
            context = replace(context, offer=pushing.offer(context)) if pushing else context
            run = operation.Operation(
                environment, reporter, context, op_spec, started_at, force=force, dry_run=dry_run, on_finish=on_finish
            )
            return run.run(host_runs, planner.plan)


def _with_images(environment: Environment, given: Mapping[str, Image]) -> Environment:
    targets = (replace(target, application=_with(target.application, given)) for target in environment.targets)
    return replace(environment, targets=tuple(targets))


def _with_rollout(environment: Environment, batch: str, transfer: str, images: Sequence[str]) -> Environment:
    """The environment with the batch size and transfer of the command line. Raises ConfigError."""
    try:
        batch_size(batch or "1", 1)
    except ValueError as error:
        raise usage_error(("--batch", repr(batch), "a number of hosts, or a percentage above 0")) from error
    rollout = replace(environment.rollout, transfer=_transfer(environment, transfer, images))
    return replace(environment, rollout=replace(rollout, batch=batch or rollout.batch))


def _transfer(environment: Environment, asked: str, archives: Sequence[str]) -> Transfer:
    """How images reach the hosts: from the command line, else from hosts.yaml."""
    issues = []
    if asked not in {"", *(kind.value for kind in Transfer)}:
        issues.append(("--transfer", repr(asked), "pull or push"))
    chosen = environment.rollout.transfer if issues or not asked else Transfer(asked)
    if archives and chosen is Transfer.PULL and not issues:
        issues.append(("--image", repr(archives[0]), "--transfer push beside it"))
    if environment.rollout.signed_by and chosen is Transfer.PUSH:
        expected = "--transfer pull: signatures lie in a registry; or no signed_by under rollout in hosts.yaml"
        issues.append(("--transfer", repr(chosen.value), expected))
    named = [image.partition("=") for image in archives]
    issues += [("--image", repr("".join(parts)), "SERVICE=PATH") for parts in named if not all(parts)]
    if issues:
        raise usage_error(*issues)
    return chosen


@contextmanager
def _resolved(
    fleet: Fleet,
    states: Mapping[str, HostState],
    context: RunContext,
    archives: Sequence[str],
    promoted: Promoted | None,
    *,
    dry_run: bool,
) -> Iterator[tuple[Resolved, Pushing | None]]:
    """Every desired image with its digest, keyed by `Image.exact`, and the images to push from this workstation."""
    if fleet.environment.rollout.transfer is Transfer.PULL:
        logins = {target.name: login for target in fleet.environment.targets if (login := target.application.login)}
        if not dry_run:
            log_in(fleet, logins)
        yield _digests(fleet, states, promoted), None
        return
    sources = {name: Path(path).expanduser() for name, _, path in (image.partition("=") for image in archives)}
    with prepared(fleet, sources, lambda text: context.emit(Phase.NOTE, text)) as pushing:
        yield Resolved(pushing.images), pushing


def _digests(fleet: Fleet, states: Mapping[str, HostState], promoted: Promoted | None) -> Resolved:
    """Every desired image with its digest, resolved once for the whole run, promoted images included."""
    images = [service.image for target in fleet.environment.targets for service in target.application.services]
    found = digests.resolve(fleet, states, [image for image in images if not image.digest or promoted])
    if promoted is None:
        return found
    compared = digests.compare_with_source(fleet, states, promoted.source, promoted.images, found.images)
    return replace(found, notes=(*found.notes, *compared))


class _Planner:
    """Derives the desired state of each host, and its plan."""

    def __init__(
        self,
        environment: Environment,
        root: Path,
        context: RunContext,
        resolved: Resolved,
        pushing: Pushing | None = None,
        *,
        force: bool,
    ) -> None:
        self._pushing = pushing
        self._environment, self._force, self._context, self._resolved = environment, force, context, resolved
        self._signature = operation.signature(root)
        self.applications = {
            target.name: _pinned(target.application, resolved.images) for target in environment.targets
        }
        self._lock = operator.lock(context.run_id, f"deploy {_tags(list(self.applications.values()))}")

    def spec(self, state: HostState) -> DeploySpec:
        """The desired state of the host with this observed state."""
        app = self.applications[state.host]
        site = rendering.nginx_site(app)
        return DeploySpec(
            environment=self._environment.name,
            application=app,
            site=site,
            site_hash=rendering.site_hash(site),
            run_id=self._context.run_id,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            lock=self._lock,
            dead_token=operation.dead_token(state),
            force=self._force,
            page=rendering.maintenance_page(app, by=BY_SETTING) if app.maintenance else "",
            pushes=self._pushing.pushes(state.host) if self._pushing else (),
            notes=self._resolved.notes,
            **self._signature,
        )

    def plan(self, state: HostState) -> Plan:
        """The plan for the host with this observed state."""
        return plan_deploy(state, self.spec(state), self._environment.rollout)


def _pinned(app: Application, known: Mapping[str, Image]) -> Application:
    services = tuple(replace(service, image=known.get(service.image.exact, service.image)) for service in app.services)
    return replace(app, services=services)


def _with(app: Application, given: Mapping[str, Image]) -> Application:
    return replace(
        app,
        services=tuple(replace(service, image=given.get(service.name, service.image)) for service in app.services),
    )


def _tags(applications: Sequence[Application]) -> str:
    tags = {service.image.tag or service.image.digest[:19] for app in applications for service in app.services}
    return ", ".join(sorted(tags))


def _unfit(host_runs: Sequence[HostRun]) -> list[Finding]:
    return [
        finding
        for host_run in host_runs
        for finding in preflight.findings(
            host_run.state, host_run.application, wanted_site=rendering.wanted_site(host_run.application)
        )
    ]


def _operation_spec(environment: Environment, asked: Sequence[str]) -> operation.OperationSpec:
    return operation.OperationSpec(
        action="deploy",
        question=f"Deploy to {environment.name}?",
        hint=f"{PROGRAM} deploy --env {environment.name} --force deploys without asking",
        done="On the new release",
        undone="Back on the old release",
        nothing="Nothing to do: every host already is as wanted.",
        undo_command=lambda changed: _undo_command(changed, environment, asked),
    )


def _undo_command(changed: Sequence[HostRun], environment: Environment, asked: Sequence[str]) -> str:
    """The command that rolls these hosts back, if each has a release to go back to."""
    for host_run in changed:
        new = host_run.plan.record.content if host_run.plan.record else frozenset()
        if not candidates(host_run.state.releases, new):
            return ""
    return (
        f"{PROGRAM} rollback --env {environment.name}{operation.hosts_option(changed, environment, asked)}"
        if changed
        else ""
    )
