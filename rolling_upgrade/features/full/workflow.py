"""Full: from source to a watched release: build, test, push, deploy, health, monitor. The story only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fabfile import config
from fabfile.errors import ConfigError, ExitCode
from fabfile.model import Built, Environment, Image, Ran, StageResult, Suite, Summary, Transfer
from fabfile.report.pipeline import built_lines, built_object, stage_lines, suite_lines, suite_plan_lines
from fabfile.workflows import build_order, building, deploy, health, operator, suites, watchdog
from fabfile.workflows.build_order import Order
from fabfile.workflows.building import Say
from fabfile.workflows.stages import Done, Stages, moment, stage_objects, write_report

#: Stands for the digest that a push will give, in a plan that is only shown.
UNKNOWN_DIGEST = f"sha256:{'0' * 64}"


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    environment: str | None
    root: Path
    tag: str = ""
    suite: str = suites.ALL
    build_type: str = ""
    force: bool = False
    dry_run: bool = False


def full(request: Request) -> ExitCode:
    """Build, test, push, deploy, check and watch; stop at the first stage that fails, whose exit code this is."""
    began, clock = time.time(), time.monotonic()
    suites.check_kind(request.suite)
    if not request.environment:
        config.load(None, root=request.root)
    ordered = build_order.order(_of_build(request))
    environment = ordered.environment
    _refuse_silent_question(environment, request)
    run = _Run(request, ordered, _suites(environment, request), building.voice(environment))
    stages = Stages(run.say, building.voice(environment, aside=True))
    try:
        for name, work in run.works().items():
            stages.run(name, work)
    finally:
        seconds, shown = time.monotonic() - clock, ", shown only" if request.dry_run else ""
        for line in stage_lines(stages.results, f"full {ordered.tag} on {environment.name}{shown}", seconds):
            run.say(line)
        if not request.dry_run:
            run.report(stages.results, began, seconds)
    return ExitCode(stages.code)


def _of_build(request: Request) -> build_order.Request:
    return build_order.Request(
        request.environment,
        request.root,
        request.tag,
        request.build_type,
        force=request.force,
        dry_run=request.dry_run,
    )


def _suites(environment: Environment, request: Request) -> tuple[Suite, ...]:
    """The suites to run; none where the file declares none and none was asked for by its kind."""
    if not environment.pipeline.suites and request.suite == suites.ALL:
        return ()
    return suites.wanted(environment.pipeline.suites, request.suite)


def _refuse_silent_question(environment: Environment, request: Request) -> None:
    """The deploy's question is the last thing to be asked, and would come to nobody. Raises ConfigError."""
    if environment.rollout.confirm and not (request.force or request.dry_run or sys.stdin.isatty()):
        raise ConfigError(
            f"a deploy to {environment.name} needs a person's yes, and there is no terminal to ask on. "
            "Nothing was built.",
            next_step=f"inv full --env {environment.name} --force deploys without asking",
        )


class _Run:
    """What one run knows by now: what was built, what the suites said, how the deploy ended."""

    def __init__(self, request: Request, ordered: Order, wanted: tuple[Suite, ...], say: Say) -> None:
        self.request, self.ordered, self.suites, self.say = request, ordered, wanted, say
        self.environment = ordered.environment
        self.built: tuple[Built, ...] = ()
        self.ran: tuple[Ran, ...] = ()
        self.summary: Summary | None = None

    def works(self) -> dict[str, Callable[[], Done]]:
        """The stages by name, in order."""
        return {
            "build": self._build,
            "test": self._test,
            "push": self._push,
            "deploy": self._deploy,
            "health": self._health,
            "monitor": self._monitor,
        }

    def _build(self) -> Done:
        if self.request.dry_run:
            building.say_plan(self.ordered, self.say, push=False)
            return Done(detail="shown")
        self.built = building.make(self.ordered, self.say)
        for line in built_lines(self.built):
            self.say(line)
        return Done(detail=", ".join(one.reference for one in self.built))

    def _test(self) -> Done:
        if not self.suites:
            self.say("services.yaml declares no suites")
            return Done(detail="services.yaml declares no suites", skipped=True)
        production = build_order.is_production(self.environment)
        if self.request.dry_run:
            for line in suite_plan_lines(self.suites, production=production):
                self.say(line)
            return Done(detail="shown")
        told = {"ENVIRONMENT": self.environment.targets[0].application.environment}
        told |= {f"IMAGE_{one.service.upper().replace('-', '_')}": one.reference for one in self.built}
        self.ran = suites.run(self.suites, self.say, production=production, env=told)
        for line in suite_lines(self.ran):
            self.say(line)
        failed = [one.suite.title for one in self.ran if not one.well]
        if failed:
            return Done(ExitCode.FAILED, f"{', '.join(failed)}: nothing was pushed")
        return Done(detail=", ".join(f"{one.suite.title} {one.result}" for one in self.ran))

    def _push(self) -> Done:
        if self._carried:
            self.say("hosts.yaml says transfer: push: the deploy carries the images to the hosts itself")
            return Done(detail="transfer: push", skipped=True)
        if self.request.dry_run:
            for service, reference in self.ordered.references.items():
                self.say(f"{service}: push {reference}")
            return Done(detail="shown")
        self.built = building.push(self.ordered, self.built, self.say)
        return Done(detail=", ".join(f"{one.service} {one.digest[:19]}" for one in self.built))

    def _deploy(self) -> Done:
        if self.request.dry_run and not self._carried:
            self.say("the digests are known once the images are pushed: 000000000000 stands for them")
        if self.request.dry_run and self._carried:
            self.say(f"deploy {self.ordered.tag} from this workstation: its plan is known once the images are built")
            return Done(detail="shown")
        request = deploy.Request(
            self.environment.name,
            self.request.root,
            self.ordered.tag,
            force=self.request.force,
            dry_run=self.request.dry_run,
            given={} if self._carried else self._given(),
            heard=self._heard,
        )
        code = deploy.deploy(request)
        return Done(code, self.summary.message if self.summary else "shown")

    def _heard(self, summary: Summary) -> None:
        self.summary = summary

    def _health(self) -> Done:
        hosts = ", ".join(target.name for target in self.environment.targets)
        if self.request.dry_run:
            self.say(f"check {hosts}")
            return Done(detail="shown")
        code = health.health(health.Request(self.environment.name, self.request.root, once=True))
        return Done(code, f"{hosts} {'not well' if code else 'well'}")

    def _monitor(self) -> Done:
        hosts = ", ".join(target.name for target in self.environment.targets)
        if self.request.dry_run:
            self.say(f"make sure that the watchdog runs on {hosts}")
            return Done(detail="shown")
        code = watchdog.install(watchdog.Request(self.environment.name, self.request.root))
        return Done(code, f"watchdog on {hosts}")

    @property
    def _carried(self) -> bool:
        return self.environment.rollout.transfer is Transfer.PUSH

    def _given(self) -> dict[str, Image]:
        """Every image of the deploy: those that were pushed by their digests, the others as the env file has them."""
        digests = {one.service: one.digest for one in self.built}
        given = {
            service: Image.parse(reference).with_digest(digests.get(service) or UNKNOWN_DIGEST)
            for service, reference in self.ordered.references.items()
        }
        others = [s.name for s in self.environment.targets[0].application.services if s.name not in given]
        if others:
            app = config.load(self.environment.name, root=self.request.root).targets[0].application
            given |= {name: app.service(name).image for name in others}
        return given

    def report(self, results: list[StageResult], began: float, seconds: float) -> None:
        """Write the report; a folder that cannot be written to changes no result."""
        try:
            path = write_report(self.environment, began, self._content(results, began, seconds))
        except OSError as error:
            self.say(f"warning: the report could not be written: {error}")
        else:
            self.say(f"report: {path}")

    def _content(self, results: list[StageResult], began: float, seconds: float) -> Mapping[str, object]:
        code = next((one.exit_code for one in results if one.exit_code), 0)
        summary, request = self.summary, self.request
        return {
            "format": 1,
            "action": "full",
            "outcome": "done" if not code else "interrupted" if code == ExitCode.INTERRUPTED else "failed",
            "exit_code": code,
            "began": moment(began),
            "seconds": round(seconds, 1),
            "owner": operator.name(),
            "workstation": operator.workstation(),
            "clone": operator.revision(request.root),
            "environment": self.environment.name,
            "hosts": [target.name for target in self.environment.targets],
            "tag": self.ordered.tag,
            "build_type": self.ordered.build_type.value,
            "sources": {
                service: {"revision": found.revision, "branch": found.branch, "changed": list(found.dirty)}
                for service, found in self.ordered.sources.items()
            },
            "images": [built_object(one) for one in self.built],
            "suites": [
                {"name": one.suite.title, "kind": one.suite.kind.value, "result": one.result, "seconds": one.seconds}
                for one in self.ran
            ],
            "release": summary.release if summary else None,
            "deploy": [
                {"host": one.host, "result": one.result.value, "seconds": round(one.seconds, 1), "cause": one.cause}
                for one in (summary.hosts if summary else ())
            ],
            "stages": stage_objects(results),
        }
