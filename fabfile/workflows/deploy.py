"""Deploy: look at the hosts, plan, show, confirm, roll out, report. The story only; each chapter is elsewhere."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fabfile import config, render
from fabfile.errors import (
    ConfigError,
    ExitCode,
    LockLost,
    Mistake,
    PartlyDone,
    PreflightError,
)
from fabfile.model import (
    Application,
    Environment,
    HostResult,
    HostState,
    HostSummary,
    Image,
    Lock,
    Phase,
    Summary,
)
from fabfile.plans import opening, preflight
from fabfile.plans.batches import size, split
from fabfile.plans.deploy import Wanted, plan_deploy
from fabfile.plans.step import Change, Plan
from fabfile.remote import observe
from fabfile.remote.execute import Run
from fabfile.remote.rollout import Ending, Member, held, roll_out
from fabfile.report import Reporter, choose
from fabfile.workflows import operator
from fabfile.workflows.fleet import Fleet, opened


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    environment: str | None
    root: Path
    tag: str = ""
    hosts: tuple[str, ...] = ()
    batch: str = ""
    force: bool = False
    dry_run: bool = False
    json: bool = False
    strict: bool = False


def deploy(request: Request) -> ExitCode:
    """Bring the wanted release to the hosts. Raises RollingError with its exit code when nothing was begun."""
    began = time.time()
    environment = _environment(request)
    with choose(json=request.json, secrets=environment.secrets) as reporter, opened(environment) as fleet:
        run = _run(environment, reporter)
        for warning in environment.warnings:
            run.say(Phase.NOTE, f"warning: {warning}")
        states = fleet.observe()
        wanted = _Wanting(environment, request, run, _digests(fleet, states))
        members = [
            Member(host, wanted.of(host.name).application, states[host.name], wanted.plan(states[host.name]))
            for host in fleet.hosts
        ]
        _refuse_unfit(members)
        lock = operator.lock(run.release, f"deploy {_tags(members)}")
        plans = [_with_lock(member, lock, environment) for member in members]
        reporter.plan(
            plans,
            scripts=request.dry_run,
            batches=split([plan.host for plan in plans], environment.rollout.batch),
        )
        if request.dry_run:
            return ExitCode.DONE
        dead = _dead_locks(members, environment)
        if any(not plan.empty for plan in plans):
            hint = f"inv deploy --env {environment.name} --force deploys without asking"
            operator.confirm(
                f"Deploy to {environment.name}?",
                force=request.force or not environment.rollout.confirm,
                hint=hint,
            )
        endings = roll_out(members, lock, dead, lambda _, state: wanted.plan(state), environment.rollout, run)
        summary = _summary(environment, run, endings, members, time.time() - began)
        reporter.summary(summary)
        return ExitCode(summary.exit_code)


def _environment(request: Request) -> Environment:
    environment = config.load(
        request.environment, root=request.root, hosts=request.hosts, tag=request.tag, strict=request.strict
    )
    if not request.batch:
        return environment
    try:
        size(request.batch, 1)
    except ValueError as error:
        mistake = Mistake("command line", "--batch", repr(request.batch), "a number of hosts, or a percentage above 0")
        raise ConfigError("The command line has a mistake; nothing was contacted.", [mistake]) from error
    return replace(environment, rollout=replace(environment.rollout, batch=request.batch))


def _run(environment: Environment, reporter: Reporter) -> Run:
    now = datetime.now(UTC)
    release = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    return Run(release, environment.rollout.lease_seconds, reporter.event, time.time, time.sleep)


def _digests(fleet: Fleet, states: Mapping[str, HostState]) -> dict[str, str]:
    """Every wanted image's digest, resolved once for the whole run by the first host that can."""
    images = {
        service.image.reference: service.image
        for target in fleet.environment.targets
        for service in target.application.services
    }
    unknown = [image for image in images.values() if not image.digest]
    if not unknown:
        return {}
    able = [host for host in fleet.hosts if states[host.name].fact("has_skopeo") == "yes"]
    if not able:
        raise PreflightError(
            "no host can ask a registry for a digest: skopeo is missing everywhere.",
            next_step="apt-get install skopeo on a host, or name images by digest",
        )
    return observe.resolve(able[0], unknown)


class _Wanting:
    """What this run wants of each host, and the plan that follows from what a host looks like."""

    def __init__(self, environment: Environment, request: Request, run: Run, digests: Mapping[str, str]) -> None:
        self._environment, self._force, self._run, self._digests = environment, request.force, run, digests
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
            owner=operator.name(),
            force=self._force,
        )

    def plan(self, state: HostState) -> Plan:
        """The plan for a host that looks like this."""
        return plan_deploy(state, self.of(state.host), self._environment.rollout)


def _pinned(app: Application, digests: Mapping[str, str]) -> Application:
    services = tuple(
        replace(service, image=_pin(service.image, digests)) if not service.image.digest else service
        for service in app.services
    )
    return replace(app, services=services)


def _pin(image: Image, digests: Mapping[str, str]) -> Image:
    return image.with_digest(digests[image.reference])


def _refuse_unfit(members: Sequence[Member]) -> None:
    found = [finding for member in members for finding in preflight.findings(member.state, member.application)]
    if found:
        listed = "\n  ".join(str(finding) for finding in found)
        raise PreflightError(f"not fit for a deploy; nothing was touched.\n  {listed}")


def _dead_locks(members: Sequence[Member], environment: Environment) -> dict[str, str]:
    """Tokens of dead runs by host. Raises LockHeld for a live one, before anything is asked."""
    dead: dict[str, str] = {}
    for member in members:
        lock = member.state.lock
        if lock is None or lock.expires_at <= member.state.now:
            continue
        if not operator.is_dead(lock):
            raise held(member.name, lock, environment.name, member.state.now)
        dead[member.name] = lock.token
    return dead


def _with_lock(member: Member, lock: Lock, environment: Environment) -> Plan:
    if member.plan.empty:
        return member.plan
    step = opening.lock_step(member.application, lock, lease_seconds=environment.rollout.lease_seconds)
    return replace(member.plan, lock=(step,))


def _tags(members: Sequence[Member]) -> str:
    tags = {
        service.image.tag or service.image.digest[:19] for member in members for service in member.application.services
    }
    return ", ".join(sorted(tags))


def _summary(
    environment: Environment, run: Run, endings: Sequence[Ending], members: Sequence[Member], seconds: float
) -> Summary:
    code = _exit_code(endings, run)
    return Summary(
        action="deploy",
        environment=environment.name,
        release=run.release,
        exit_code=code,
        seconds=seconds,
        hosts=tuple(ending.summary for ending in endings),
        message=_message(code, endings, environment),
        undo_command=_undo_command(members, endings, environment),
        warnings=environment.warnings,
    )


def _exit_code(endings: Sequence[Ending], run: Run) -> ExitCode:
    results = [ending.summary.result for ending in endings]
    if HostResult.UNDO_FAILED in results:
        return ExitCode.UNDO_FAILED
    if any(isinstance(ending.error, LockLost) for ending in endings):
        return ExitCode.LOCKED
    failed = [result for result in results if result not in {HostResult.UPGRADED, HostResult.UNCHANGED}]
    if not failed:
        return ExitCode.DONE
    if HostResult.UPGRADED in results or HostResult.UNKNOWN in results:
        return PartlyDone.exit_code
    return ExitCode.INTERRUPTED if run.cancelled.is_set() else ExitCode.FAILED


def _message(code: ExitCode, endings: Sequence[Ending], environment: Environment) -> str:
    def names(*results: HostResult) -> str:
        return ", ".join(ending.summary.host for ending in endings if ending.summary.result in results)

    if code is ExitCode.DONE:
        upgraded = names(HostResult.UPGRADED)
        return f"{upgraded} upgraded." if upgraded else "Nothing to do: every host already is as wanted."
    parts = [
        f"{label}: {found}."
        for label, found in (
            ("On the new release", names(HostResult.UPGRADED, HostResult.UNCHANGED)),
            ("Back on the old release", names(HostResult.UNDONE)),
            ("Left as it was", names(HostResult.NOT_STARTED)),
            ("Outcome unknown, the color that serves has passed its gate", names(HostResult.UNKNOWN)),
            ("The undo failed, a person has to look", names(HostResult.UNDO_FAILED)),
        )
        if found
    ]
    steps = [ending.error.next_step for ending in endings if ending.error is not None and ending.error.next_step]
    next_step = steps[0] if steps else f"inv status --env {environment.name}; the same command tries again"
    return f"{' '.join(parts)} Next: {next_step}"


def _undo_command(members: Sequence[Member], endings: Sequence[Ending], environment: Environment) -> str:
    """How to go back to what ran before, when every service of the upgraded hosts ran one tag."""
    upgraded: list[HostSummary] = [e.summary for e in endings if e.summary.result is HostResult.UPGRADED]
    names = {summary.host for summary in upgraded}
    before = {
        choice.current.tag
        for member in members
        if member.name in names
        for choice in member.plan.services
        if choice.current and choice.change is not Change.KEEP
    }
    wanted = {choice.wanted.tag for member in members for choice in member.plan.services}
    if not names or len(before) != 1 or "" in before or before & wanted:
        return ""
    everyone = len(names) == len(members)
    hosts = "" if everyone else f" --hosts {','.join(sorted(names))}"
    return f"inv deploy --env {environment.name} --tag {before.pop()}{hosts}"
