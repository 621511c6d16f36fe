"""Rollback: each host back to its own last good release, image and configuration together. The story only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fabfile import config, render
from fabfile.commands import definition, journal
from fabfile.commands.maintenance import BY_RUN
from fabfile.errors import ExitCode, PreflightError
from fabfile.model import Application, Backup, Environment, HostState, Phase, Release
from fabfile.plans import data_back, preflight
from fabfile.plans import rollback as choosing
from fabfile.plans.deploy import plan_deploy
from fabfile.plans.preflight import Finding
from fabfile.plans.step import Plan
from fabfile.plans.wanted import Wanted
from fabfile.remote import observe
from fabfile.remote.execute import Run
from fabfile.remote.host import Host
from fabfile.remote.rollout import Member
from fabfile.report import choose
from fabfile.workflows import rolling
from fabfile.workflows.backups import every_backup
from fabfile.workflows.fleet import Fleet, opened

LOOK_SECONDS = 120.0
#: What visitors read while the database is put back.
MESSAGE = "An earlier version is being brought back. This takes a few minutes."


@dataclass(frozen=True)
class Request:
    """What the operator asked for; `to` is a release's id or an image tag, `restore_db` takes the database back too."""

    environment: str | None
    root: Path
    to: str = ""
    restore_db: bool = False
    hosts: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    json: bool = False


@dataclass(frozen=True)
class Return:
    """One host's way back: to which release, from which, what it is made of, and the data that goes with it."""

    target: Release
    left: Release | None
    application: Application
    backup: Backup | None = None


def rollback(request: Request) -> ExitCode:
    """Bring each host back to an earlier release. Raises RollingError with its exit code when nothing was begun."""
    began = time.time()
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    with choose(json=request.json, secrets=environment.secrets) as reporter, opened(environment) as fleet:
        run = rolling.begin(environment, reporter)
        states = fleet.observe()
        returns = _returns(fleet, states, request.to)
        if request.restore_db:
            returns = _with_data(fleet, states, returns)
        for name, back in returns.items():
            run.say(Phase.NOTE, f"goes back to {back.target.id} ({', '.join(choosing.tags(back.target))})", name)

        def plan(state: HostState) -> Plan:
            wanted = _wanted(returns[state.host], state, fleet, run, request)
            return plan_deploy(state, wanted, environment.rollout)

        today = rolling.applications(environment)
        members = [Member(host, today[host.name], states[host.name], plan(states[host.name])) for host in fleet.hosts]
        rolling.refuse_unfit(_unfit(members, returns), "a rollback", states, environment)
        story = _story(environment, returns, request.hosts, run.release)
        roll = rolling.Roll(environment, reporter, run, story, began, force=request.force, dry_run=request.dry_run)
        return roll.over(members, plan)


def _returns(fleet: Fleet, states: dict[str, HostState], named: str) -> dict[str, Return]:
    """Every host's way back, all of it checked to be available. Raises PreflightError."""
    chosen = {name: choosing.choose(state, named) for name, state in states.items()}
    rolling.refuse([one for one in chosen.values() if isinstance(one, Finding)], "a rollback")
    targets = {name: one for name, one in chosen.items() if isinstance(one, Release)}

    def look(host: Host) -> Return | tuple[Finding, ...]:
        today = fleet.targets[host.name].application
        return _look(host, today, states[host.name], targets[host.name])

    found = observe.on_each(fleet.hosts, fleet.environment.rollout.parallel, look)
    lost = [error for error in found.values() if isinstance(error, PreflightError)]
    if lost:
        raise type(lost[0])("\n".join(str(error) for error in lost))
    rolling.refuse([one for row in found.values() if isinstance(row, tuple) for one in row], "a rollback")
    return {name: back for name, back in found.items() if isinstance(back, Return)}


def _with_data(fleet: Fleet, states: dict[str, HostState], returns: dict[str, Return]) -> dict[str, Return]:
    """The same ways back with the backup of each host's data. Raises PreflightError."""
    listed = every_backup(fleet)
    found = {name: data_back.choose(states[name], back.target, listed[name].backups) for name, back in returns.items()}
    rolling.refuse([one for one in found.values() if isinstance(one, Finding)], "a rollback")
    chosen = {name: replace(returns[name], backup=one) for name, one in found.items() if isinstance(one, Backup)}
    today = rolling.applications(fleet.environment)
    unfitting = [
        finding
        for name, back in chosen.items()
        if back.backup
        for finding in data_back.unfitting(states[name], today[name], back.application, back.backup)
    ]
    rolling.refuse(unfitting, "a rollback")
    return chosen


def _look(host: Host, today: Application, state: HostState, target: Release) -> Return | tuple[Finding, ...]:
    """The release as it was, but under the names, ports and certificate of today: they are the host's root's to say."""
    answer = host.run(journal.direct(definition.look(today.home, target.id)), timeout_seconds=LOOK_SECONDS)
    try:
        app = definition.parse(answer.output, today.home)
        app = replace(app, domain=today.domain, http_port=today.http_port, https_port=today.https_port, tls=today.tls)
        app = replace(app, metrics_dir=today.metrics_dir, request_metrics=today.request_metrics)
    except ValueError:
        problem = f"the configuration of release {target.id} is past its retention"
        return (Finding(host.name, problem, f"Deploy its tag instead: {', '.join(choosing.tags(target))}"),)
    there = host.run(journal.direct(definition.available(app)), timeout_seconds=LOOK_SECONDS)
    missing = choosing.unavailable(host.name, target, app, there.output)
    left = choosing.current(state)
    return missing or Return(target, left, app)


def _wanted(back: Return, state: HostState, fleet: Fleet, run: Run, request: Request) -> Wanted:
    site = render.nginx_site(back.application)
    today = fleet.targets[state.host].application
    text = render.maintenance_page(today, MESSAGE, by=BY_RUN)
    return Wanted(
        environment=fleet.environment.name,
        application=back.application,
        site=site,
        site_hash=render.site_hash(site),
        release=run.release,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        action="rollback",
        target=back.target.id,
        left=back.left.id if back.left else "",
        force=back.backup is not None,
        data=data_back.steps(state, today, back.backup, run.release, text) if back.backup else None,
        pushes=(),
        **rolling.signature(request.root),
    )


def _unfit(members: Sequence[Member], returns: dict[str, Return]) -> list[Finding]:
    """What speaks against touching a host; room is needed only for images that have to be pulled."""
    return [
        finding
        for member in members
        for finding in preflight.findings(member.state, returns[member.name].application, room=_pulls(member.plan))
    ]


def _pulls(plan: Plan) -> bool:
    return any(step.id == "pull" for step in plan.prepare)


def _story(environment: Environment, returns: dict[str, Return], asked: Sequence[str], release: str) -> rolling.Story:
    restored = any(back.backup for back in returns.values())

    def back(changed: Sequence[Member]) -> str:
        left = [returns[member.name].left for member in changed]
        named = {one.id for one in left if one} if len({one.id for one in left if one}) == 1 else _common_tag(left)
        if not changed or not named or None in left:
            return ""
        option = rolling.hosts_option(changed, environment, asked)
        data = f" && inv restore {release} --env {environment.name} --only database{option}" if restored else ""
        return f"inv rollback --env {environment.name} --to {named.pop()}{option}{data}"

    return rolling.Story(
        action="rollback",
        reason=choosing.reason({name: back.target.id for name, back in returns.items()}),
        question=f"Roll {environment.name} back?",
        hint=f"inv rollback --env {environment.name} --force rolls back without asking",
        done="On the earlier release",
        undone="Still on the release that was to be left",
        nothing="Nothing to do: every host already runs that release.",
        back=back,
    )


def _common_tag(left: Sequence[Release | None]) -> set[str]:
    """The one tag of all these releases."""
    found = {tag for release in left if release for tag in choosing.tags(release)}
    return found if len(found) == 1 else set()
