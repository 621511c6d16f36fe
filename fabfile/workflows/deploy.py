"""Deploy: look at the hosts, plan, show, confirm, roll out, report. The story only; each chapter is elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from fabfile import config, render
from fabfile.commands.maintenance import BY_SETTING
from fabfile.errors import (
    ConfigError,
    ExitCode,
    Mistake,
    PreflightError,
)
from fabfile.model import (
    Application,
    Environment,
    HostState,
    Image,
    Phase,
    Summary,
    Transfer,
)
from fabfile.plans import preflight
from fabfile.plans.batches import size
from fabfile.plans.deploy import plan_deploy
from fabfile.plans.preflight import Finding
from fabfile.plans.rollback import candidates
from fabfile.plans.step import Plan
from fabfile.plans.wanted import Wanted
from fabfile.remote import observe
from fabfile.remote.execute import Run
from fabfile.remote.host import Host
from fabfile.remote.rollout import Member
from fabfile.report import choose
from fabfile.workflows import rolling
from fabfile.workflows.fleet import Fleet, opened
from fabfile.workflows.pushing import Pushing, prepared
from fabfile.workflows.registry import log_in


@dataclass(frozen=True)
class Request:
    """What the operator asked for. `given` are images by service that stand instead of the env file's, with their
    digests, and `prove` asks the registry for them first; `heard` hears how the run ended."""

    environment: str | None
    root: Path
    tag: str = ""
    hosts: tuple[str, ...] = ()
    batch: str = ""
    force: bool = False
    dry_run: bool = False
    json: bool = False
    strict: bool = False
    transfer: str = ""
    images: tuple[str, ...] = ()
    given: Mapping[str, Image] = field(default_factory=dict)
    prove: bool = False
    heard: Callable[[Summary], None] = lambda _: None


def deploy(request: Request) -> ExitCode:
    """Bring the wanted release to the hosts. Raises RollingError with its exit code when nothing was begun."""
    began = time.time()
    environment = _environment(request)
    with choose(json=request.json, secrets=environment.secrets) as reporter, opened(environment) as fleet:
        run = rolling.begin(environment, reporter)
        for warning in environment.warnings:
            run.say(Phase.NOTE, f"warning: {warning}")
        states = fleet.observe()
        with _images(fleet, states, request, run) as (images, pushing):
            wanted = _Wanting(environment, request, run, images, pushing)
            members = [
                Member(host, wanted.of(host.name).application, states[host.name], wanted.plan(states[host.name]))
                for host in fleet.hosts
            ]
            rolling.refuse_unfit(_unfit(members), "a deploy", states, environment)
            story = _story(environment, members, request.hosts)
            run = replace(run, offer=pushing.offer(run)) if pushing else run
            roll = rolling.Roll(
                environment,
                reporter,
                run,
                story,
                began,
                force=request.force,
                dry_run=request.dry_run,
                heard=request.heard,
            )
            return roll.over(members, wanted.plan)


def _environment(request: Request) -> Environment:
    environment = config.load(
        request.environment, root=request.root, hosts=request.hosts, tag=request.tag, strict=request.strict
    )
    environment = replace(environment, rollout=replace(environment.rollout, transfer=_transfer(request, environment)))
    if request.given:
        targets = tuple(
            replace(target, application=_with(target.application, request.given)) for target in environment.targets
        )
        environment = replace(environment, targets=targets)
    if not request.batch:
        return environment
    try:
        size(request.batch, 1)
    except ValueError as error:
        mistake = Mistake("command line", "--batch", repr(request.batch), "a number of hosts, or a percentage above 0")
        raise ConfigError("The command line has a mistake; nothing was contacted.", [mistake]) from error
    return replace(environment, rollout=replace(environment.rollout, batch=request.batch))


def _transfer(request: Request, environment: Environment) -> Transfer:
    """How images come to the hosts: as the command line says, else as hosts.yaml does."""
    mistakes = []
    if request.transfer not in {"", *(kind.value for kind in Transfer)}:
        mistakes.append(Mistake("command line", "--transfer", repr(request.transfer), "pull or push"))
    chosen = environment.rollout.transfer if mistakes or not request.transfer else Transfer(request.transfer)
    if request.images and chosen is Transfer.PULL and not mistakes:
        mistakes.append(Mistake("command line", "--image", repr(request.images[0]), "--transfer push beside it"))
    if environment.rollout.signed_by and chosen is Transfer.PUSH:
        expected = "--transfer pull: signatures lie in a registry; or no signed_by under rollout in hosts.yaml"
        mistakes.append(Mistake("command line", "--transfer", repr(chosen.value), expected))
    named = [image.partition("=") for image in request.images]
    mistakes += [
        Mistake("command line", "--image", repr("".join(parts)), "SERVICE=PATH") for parts in named if not all(parts)
    ]
    if mistakes:
        raise ConfigError("The command line has a mistake; nothing was contacted.", mistakes)
    return chosen


@contextmanager
def _images(
    fleet: Fleet, states: Mapping[str, HostState], request: Request, run: Run
) -> Iterator[tuple[Mapping[str, Image], Pushing | None]]:
    """Every wanted image with its digest by reference; what is pushed comes from this workstation."""
    if fleet.environment.rollout.transfer is Transfer.PULL:
        logins = {target.name: login for target in fleet.environment.targets if (login := target.application.login)}
        if not request.dry_run:
            log_in(fleet, logins)
        if request.prove:
            observe.prove(_able(fleet, states), list(request.given.values()))
        yield _digests(fleet, states), None
        return
    sources = {name: Path(path).expanduser() for name, _, path in (image.partition("=") for image in request.images)}
    with prepared(fleet, sources, lambda text: run.say(Phase.NOTE, text)) as pushing:
        yield pushing.images, pushing


def _digests(fleet: Fleet, states: Mapping[str, HostState]) -> dict[str, Image]:
    """Every wanted image with its digest, resolved once for the whole run by the first host that can."""
    images = {
        service.image.reference: service.image
        for target in fleet.environment.targets
        for service in target.application.services
    }
    unknown = [image for image in images.values() if not image.digest]
    if not unknown:
        return {}
    return observe.resolve(_able(fleet, states), unknown)


def _able(fleet: Fleet, states: Mapping[str, HostState]) -> Host:
    """The first host that can ask a registry. Raises PreflightError when none can."""
    for host in fleet.hosts:
        if states[host.name].fact("has_skopeo") == "yes":
            return host
    raise PreflightError(
        "no host can ask a registry for a digest: skopeo is missing everywhere.",
        next_step="apt-get install skopeo on a host, or name images by digest",
    )


class _Wanting:
    """What this run wants of each host, and the plan that follows from what a host looks like."""

    def __init__(
        self,
        environment: Environment,
        request: Request,
        run: Run,
        digests: Mapping[str, Image],
        pushing: Pushing | None = None,
    ) -> None:
        self._pushing = pushing
        self._environment, self._force, self._run, self._digests = environment, request.force, run, digests
        self._signature = rolling.signature(request.root)
        self._targets = {target.name: target for target in environment.targets}

    def of(self, host: str) -> Wanted:
        """The wanted release for one host."""
        app = _pinned(self._targets[host].application, self._digests)
        site = render.nginx_site(app)
        return Wanted(
            environment=self._environment.name,
            application=app,
            site=site,
            site_hash=render.site_hash(site),
            release=self._run.release,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            force=self._force,
            page=render.maintenance_page(app, by=BY_SETTING) if app.maintenance else "",
            pushes=self._pushing.pushes(host) if self._pushing else (),
            **self._signature,
        )

    def plan(self, state: HostState) -> Plan:
        """The plan for a host that looks like this."""
        return plan_deploy(state, self.of(state.host), self._environment.rollout)


def _pinned(app: Application, digests: Mapping[str, Image]) -> Application:
    services = tuple(
        service if service.image.digest else replace(service, image=digests[service.image.reference])
        for service in app.services
    )
    return replace(app, services=services)


def _with(app: Application, given: Mapping[str, Image]) -> Application:
    return replace(
        app,
        services=tuple(replace(service, image=given.get(service.name, service.image)) for service in app.services),
    )


def _tags(members: Sequence[Member]) -> str:
    tags = {
        service.image.tag or service.image.digest[:19] for member in members for service in member.application.services
    }
    return ", ".join(sorted(tags))


def _unfit(members: Sequence[Member]) -> list[Finding]:
    return [finding for member in members for finding in preflight.findings(member.state, member.application)]


def _story(environment: Environment, members: Sequence[Member], asked: Sequence[str]) -> rolling.Story:
    return rolling.Story(
        action="deploy",
        reason=f"deploy {_tags(members)}",
        question=f"Deploy to {environment.name}?",
        hint=f"inv deploy --env {environment.name} --force deploys without asking",
        done="On the new release",
        undone="Back on the old release",
        nothing="Nothing to do: every host already is as wanted.",
        back=lambda changed: _back(changed, environment, asked),
    )


def _back(changed: Sequence[Member], environment: Environment, asked: Sequence[str]) -> str:
    """The rollback of these hosts, when each has a release to go back to."""
    for member in changed:
        new = member.plan.record.content if member.plan.record else frozenset()
        if not candidates(member.state.releases, new):
            return ""
    return (
        f"inv rollback --env {environment.name}{rolling.hosts_option(changed, environment, asked)}" if changed else ""
    )
