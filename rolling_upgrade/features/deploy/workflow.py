"""Deploy: observe, plan, show, confirm, roll out, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from typing import TYPE_CHECKING

from rolling_upgrade import config, rendering
from rolling_upgrade.console import identity
from rolling_upgrade.engine import preflight
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.maintenance import BY_SETTING
from rolling_upgrade.engine.model import (
    Application,
    Environment,
    HostState,
    Image,
    Phase,
    Service,
    Summary,
    Transfer,
)
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.engine.rollout import HostRun, batch_size
from rolling_upgrade.errors import PROGRAM, ExitCode, RollingError, usage_error
from rolling_upgrade.features import operation
from rolling_upgrade.features.deploy import digests
from rolling_upgrade.features.deploy.digests import Resolved
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.deploy.steps import DeploySpec
from rolling_upgrade.features.registry.workflow import log_in
from rolling_upgrade.features.rollback.selection import candidates
from rolling_upgrade.ssh.fleet import Fleet

if TYPE_CHECKING:
    from rolling_upgrade.features.deploy.push import LocalImages


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
    image: Sequence[str] = (),
    strict: bool = False,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
    promoted: Promoted | None = None,
    given: Mapping[str, Image] = MappingProxyType({}),
    on_finish: Callable[[Summary], None] = lambda _: None,
    caller: operation.Caller | None = None,
) -> ExitCode:
    """Upgrade the hosts to the desired release. Raises RollingError if it fails before it changes a host.

    Args:
        image: Image archives as SERVICE=PATH.
        promoted: The source of a promotion; its registries must have the images too.
        given: Images with digests by service, which replace the images of the env file.
    """
    started_at = time.time()
    loaded = config.load(env, root=root, hosts=hosts, tag=tag, strict=strict)
    chosen = _with_images(loaded, lambda service: given.get(service.name, service.image))
    environment = _with_rollout(chosen, batch, transfer, image)
    with operation.started(
        environment,
        json=json,
        started_at=started_at,
        force=force,
        dry_run=dry_run,
        on_finish=on_finish,
        action="deploy",
        caller=caller,
    ) as run:
        fleet, context = run.fleet, run.context
        for warning in environment.warnings:
            context.emit(Phase.NOTE, f"warning: {warning}")
        early = _early_answers(fleet, promoted)
        states = fleet.observe(on_connected=partial(_while_observed, fleet, early))
        with _resolved(fleet, states, context, image, promoted, early, dry_run=dry_run) as (resolved, local):
            wanted = _with_images(environment, lambda service: resolved.images.get(service.image.exact, service.image))
            plan = _planner(wanted, root, context, resolved.notes, local, force=force)
            if local:
                run = replace(run, context=replace(context, offer=local.offer(context)))
            return run.run(_operation_spec(environment, hosts), operation.applications(wanted), states, plan, _unfit)


def _with_images(environment: Environment, image_of: Callable[[Service], Image]) -> Environment:
    """Replace the image of every service."""
    targets = []
    for target in environment.targets:
        services = tuple(replace(service, image=image_of(service)) for service in target.application.services)
        targets.append(replace(target, application=replace(target.application, services=services)))
    return replace(environment, targets=tuple(targets))


def _with_rollout(environment: Environment, batch: str, transfer: str, archives: Sequence[str]) -> Environment:
    """Apply the batch size and the transfer of the command line. Raises ConfigError."""
    try:
        batch_size(batch or "1", 1)
    except ValueError as error:
        raise usage_error(("--batch", repr(batch), "a number of hosts, or a percentage above 0")) from error
    rollout = environment.rollout
    return replace(
        environment,
        rollout=replace(rollout, transfer=_transfer(environment, transfer, archives), batch=batch or rollout.batch),
    )


def _transfer(environment: Environment, option: str, archives: Sequence[str]) -> Transfer:
    """Return how images reach the hosts: from the command line, else from hosts.yaml. Raises ConfigError."""
    issues = []
    if option not in {"", *(transfer.value for transfer in Transfer)}:
        issues.append(("--transfer", repr(option), "pull or push"))
    chosen = environment.rollout.transfer if issues or not option else Transfer(option)
    if archives and chosen is Transfer.PULL and not issues:
        issues.append(("--image", repr(archives[0]), "--transfer push beside it"))
    if environment.rollout.signed_by and chosen is Transfer.PUSH:
        expected = "--transfer pull, because only a registry has signatures; or no rollout.signed_by in hosts.yaml"
        issues.append(("--transfer", repr(chosen.value), expected))
    named = [archive.partition("=") for archive in archives]
    issues += [("--image", repr("".join(parts)), "SERVICE=PATH") for parts in named if not all(parts)]
    if issues:
        raise usage_error(*issues)
    return chosen


def _while_observed(fleet: Fleet, early: digests.EarlyAnswers, host: Host) -> None:
    """Use the time in which a connected host answers: ask it for digests, and render what the run needs."""
    early.ask(host)
    if host.name == fleet.hosts[0].name:
        Thread(target=_render, args=(fleet.targets[host.name].application,), daemon=True).start()


def _render(app: Application) -> None:
    """Pack the engine and load the template of the site. Both are kept; an error is raised again by their users."""
    with suppress(RollingError):
        rendering.engine()
        rendering.nginx_site(app)


def _early_answers(fleet: Fleet, promoted: Promoted | None) -> digests.EarlyAnswers:
    """Return what asks hosts while they are observed: nothing if a login or a promotion comes first."""
    is_later = (
        promoted is not None
        or fleet.environment.rollout.transfer is not Transfer.PULL
        or any(target.application.login for target in fleet.environment.targets)
        or digests.can_ask_here()
    )
    return digests.EarlyAnswers(fleet.hosts, [] if is_later else _without_digest(fleet.environment))


def _without_digest(environment: Environment) -> list[Image]:
    services = [service for target in environment.targets for service in target.application.services]
    return [service.image for service in services if not service.image.digest]


@contextmanager
def _resolved(
    fleet: Fleet,
    states: Mapping[str, HostState],
    context: RunContext,
    archives: Sequence[str],
    promoted: Promoted | None,
    early: digests.EarlyAnswers,
    *,
    dry_run: bool,
) -> Iterator[tuple[Resolved, LocalImages | None]]:
    """Yield every desired image with its digest, keyed by `Image.exact`, and the images that the workstation pushes."""
    if fleet.environment.rollout.transfer is Transfer.PULL:
        logins = {target.name: login for target in fleet.environment.targets if (login := target.application.login)}
        if not dry_run:
            log_in(fleet, logins)
        yield _digests(fleet, states, promoted, early), None
        return
    from rolling_upgrade.features.deploy.push import prepared

    paths = {name: Path(path).expanduser() for name, _, path in (archive.partition("=") for archive in archives)}
    with prepared(fleet, paths, lambda text: context.emit(Phase.NOTE, text)) as local:
        yield Resolved(local.images), local


def _digests(
    fleet: Fleet, states: Mapping[str, HostState], promoted: Promoted | None, early: digests.EarlyAnswers
) -> Resolved:
    """Resolve every desired image once for the whole run, promoted images included."""
    if promoted is None:
        return digests.resolve(fleet, states, _without_digest(fleet.environment), early)
    images = [service.image for target in fleet.environment.targets for service in target.application.services]
    resolved = digests.resolve(fleet, states, images)
    compared = digests.compare_with_source(fleet, states, promoted.source, promoted.images, resolved.images)
    return replace(resolved, notes=(*resolved.notes, *compared))


def _planner(
    environment: Environment,
    root: Path,
    context: RunContext,
    notes: tuple[str, ...],
    local: LocalImages | None,
    *,
    force: bool,
) -> Callable[[HostState], Plan]:
    """Return the function that plans a host; `environment` has all digests."""
    apps, record = operation.applications(environment), operation.new_record(context, "deploy", root)
    images = [service.image for app in apps.values() for service in app.services]
    tags = {image.tag or image.digest[:19] for image in images}
    lock = identity.lock(context.run_id, f"deploy {', '.join(sorted(tags))}")

    def plan(state: HostState) -> Plan:
        app = apps[state.host]
        site = rendering.nginx_site(app)
        spec = DeploySpec(
            environment=environment.name,
            application=app,
            site=site,
            site_hash=rendering.site_hash(site),
            record=record,
            lock=lock,
            replaceable_token=operation.replaceable_token(state),
            force=force,
            page=_page(app),
            pushes=local.pushes(state.host, app) if local else (),
            notes=notes,
        )
        return plan_deploy(state, spec, environment.rollout)

    return plan


def _page(app: Application) -> str | None:
    """Return the text of the maintenance page, '' for none, and None for a host without a site."""
    if not app.has_site:
        return None
    return rendering.maintenance_page(app, by=BY_SETTING) if app.maintenance else ""


def _unfit(host_run: HostRun) -> Sequence[Finding]:
    app = host_run.application
    site_hash = rendering.site_hash(rendering.nginx_site(app))
    return preflight.findings(host_run.state, app, site_hash=site_hash, program_sum=rendering.site_program_sum)


def _operation_spec(environment: Environment, hosts: Sequence[str]) -> operation.OperationSpec:
    return operation.OperationSpec(
        action="deploy",
        question=f"Deploy to {environment.name}?",
        hint=f"{PROGRAM} deploy --env {environment.name} --force deploys without asking",
        done="On the new release",
        undone="Back on the old release",
        nothing="Nothing to do: every host is up to date.",
        undo_command=lambda changed: _undo_command(changed, environment, hosts),
    )


def _undo_command(changed: Sequence[HostRun], environment: Environment, hosts: Sequence[str]) -> str:
    """Return the command that rolls these hosts back, if each has an earlier release, else ''.

    A rollback leaves hosts alone on which nothing is placed.
    """
    changed = [host_run for host_run in changed if host_run.application.services]
    for host_run in changed:
        new = host_run.plan.record.content if host_run.plan.record else frozenset()
        if not candidates(host_run.state.releases, new):
            return ""
    option = operation.hosts_option(changed, environment, hosts)
    return f"{PROGRAM} rollback --env {environment.name}{option}" if changed else ""
