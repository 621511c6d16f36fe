"""Full: build, test, push, deploy, check and watch."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.console import operator
from rolling_upgrade.engine.model import Built, Environment, Image, Ran, StageResult, Suite, Summary, Transfer
from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.build import spec
from rolling_upgrade.features.build import workflow as building
from rolling_upgrade.features.build.spec import BuildPlan
from rolling_upgrade.features.build.view import build_json, build_lines, stage_lines, suite_lines, suite_plan_lines
from rolling_upgrade.features.build.workflow import Say
from rolling_upgrade.features.deploy import workflow as deploy
from rolling_upgrade.features.full.stages import Done, Stages, moment, stage_objects, write_report
from rolling_upgrade.features.health import workflow as health
from rolling_upgrade.features.suites import workflow as suites
from rolling_upgrade.features.watchdog import workflow as watchdog
from rolling_upgrade.ssh import agent

#: The placeholder in a dry run for the digest that a push will give.
UNKNOWN_DIGEST = f"sha256:{'0' * 64}"


def full(
    env: str | None,
    *,
    root: Path,
    tag: str = "",
    build_type: str = "",
    suite: str = suites.ALL,
    force: bool = False,
    dry_run: bool = False,
) -> ExitCode:
    """Build, test, push, deploy, check and watch. Stop at the first stage that fails and return its exit code."""
    began, clock = time.time(), time.monotonic()
    suites.check_kind(suite)
    agent.check_deploy_key()
    if not env:
        config.load(None, root=root)
    build_plan = spec.plan_build(env, root=root, tag=tag, build_type=build_type, force=force, dry_run=dry_run)
    environment = build_plan.environment
    _refuse_silent_question(environment, force=force, dry_run=dry_run)
    # Before any code of the application can change the clone.
    operator.revision(root)
    run = _Run(
        root, build_plan, _suites(environment, suite), building.printer(environment), force=force, dry_run=dry_run
    )
    stages = Stages(run.say, building.printer(environment, aside=True))
    try:
        with run.held:
            for name, work in run.works().items():
                stages.run(name, work)
    finally:
        seconds, shown = time.monotonic() - clock, ", shown only" if dry_run else ""
        for line in stage_lines(stages.results, f"full {build_plan.tag} on {environment.name}{shown}", seconds):
            run.say(line)
        if not dry_run:
            run.report(stages.results, began, seconds)
    return ExitCode(stages.code)


def _suites(environment: Environment, suite: str) -> tuple[Suite, ...]:
    """The suites to run; none if the file declares none and no kind was named."""
    if not environment.pipeline.suites and suite == suites.ALL:
        return ()
    return suites.select(environment.pipeline.suites, suite)


def _refuse_silent_question(environment: Environment, *, force: bool, dry_run: bool) -> None:
    """Refuse a run whose confirmation, asked last, would find no terminal. Raises ConfigError."""
    if environment.rollout.confirm and not (force or dry_run or sys.stdin.isatty()):
        raise ConfigError(
            f"a deploy to {environment.name} requires confirmation, but stdin is not a terminal. Nothing was built.",
            next_step=f"inv full --env {environment.name} --force deploys without asking",
        )


class _Run:
    """The state of one run: the images, the results of the suites, the summary of the deploy."""

    def __init__(
        self, root: Path, build_plan: BuildPlan, wanted: tuple[Suite, ...], say: Say, *, force: bool, dry_run: bool
    ) -> None:
        self.root, self.build_plan, self.suites, self.say = root, build_plan, wanted, say
        self.force, self.dry_run = force, dry_run
        self.environment = build_plan.environment
        self.built: tuple[Built, ...] = ()
        self.ran: tuple[Ran, ...] = ()
        self.summary: Summary | None = None
        self.held = contextlib.ExitStack()

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
        if self.dry_run:
            building.print_plan(self.build_plan, self.say, push=False)
            return Done(detail="shown")
        self.built = building.build_images(self.build_plan, self.say)
        for line in build_lines(self.built):
            self.say(line)
        return Done(detail=", ".join(one.reference for one in self.built))

    def _test(self) -> Done:
        if not self.suites:
            self.say("services.yaml declares no suites")
            return Done(detail="services.yaml declares no suites", skipped=True)
        production = spec.is_production(self.environment)
        if self.dry_run:
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
        if self.dry_run:
            for service, reference in self.build_plan.references.items():
                self.say(f"{service}: push {reference}")
            return Done(detail="shown")
        self.built = building.push_images(self.build_plan, self.built, self.say)
        return Done(detail=", ".join(f"{one.service} {one.digest[:19]}" for one in self.built))

    def _deploy(self) -> Done:
        if self.dry_run and not self._carried:
            self.say("the digests are known once the images are pushed: 000000000000 stands for them")
        if self.dry_run and self._carried:
            self.say(f"deploy {self.build_plan.tag} from this workstation: its plan is known once the images are built")
            return Done(detail="shown")
        # The application's own code has ended by now: before, it could have reached an agent.
        self.held.enter_context(agent.with_deploy_key())
        code = deploy.deploy(
            self.environment.name,
            root=self.root,
            tag=self.build_plan.tag,
            force=self.force,
            dry_run=self.dry_run,
            given={} if self._carried else self._given(),
            on_finish=self._on_finish,
        )
        return Done(code, self.summary.message if self.summary else "shown")

    def _on_finish(self, summary: Summary) -> None:
        self.summary = summary

    def _health(self) -> Done:
        hosts = ", ".join(target.name for target in self.environment.targets)
        if self.dry_run:
            self.say(f"check {hosts}")
            return Done(detail="shown")
        code = health.health(self.environment.name, root=self.root, once=True)
        return Done(code, f"{hosts} {'not well' if code else 'well'}")

    def _monitor(self) -> Done:
        hosts = ", ".join(target.name for target in self.environment.targets)
        if self.dry_run:
            self.say(f"make sure that the watchdog runs on {hosts}")
            return Done(detail="shown")
        code = watchdog.install(self.environment.name, root=self.root)
        return Done(code, f"watchdog on {hosts}")

    @property
    def _carried(self) -> bool:
        return self.environment.rollout.transfer is Transfer.PUSH

    def _given(self) -> dict[str, Image]:
        """Every image of the deploy: pushed ones by digest, the others as the env file names them."""
        digests = {one.service: one.digest for one in self.built}
        given = {
            service: Image.parse(reference).with_digest(digests.get(service) or UNKNOWN_DIGEST)
            for service, reference in self.build_plan.references.items()
        }
        others = [s.name for s in self.environment.targets[0].application.services if s.name not in given]
        if others:
            app = config.load(self.environment.name, root=self.root).targets[0].application
            given |= {name: app.service(name).image for name in others}
        return given

    def report(self, results: list[StageResult], began: float, seconds: float) -> None:
        """Write the report; a failure to write it does not change the result."""
        try:
            path = write_report(self.environment, began, self._content(results, began, seconds))
        except OSError as error:
            self.say(f"warning: the report could not be written: {error}")
        else:
            self.say(f"report: {path}")

    def _content(self, results: list[StageResult], began: float, seconds: float) -> Mapping[str, object]:
        code = next((one.exit_code for one in results if one.exit_code), 0)
        summary = self.summary
        return {
            "format": 1,
            "action": "full",
            "outcome": "done" if not code else "interrupted" if code == ExitCode.INTERRUPTED else "failed",
            "exit_code": code,
            "began": moment(began),
            "seconds": round(seconds, 1),
            "owner": operator.name(),
            "workstation": operator.workstation(),
            "clone": operator.revision(self.root),
            "environment": self.environment.name,
            "hosts": [target.name for target in self.environment.targets],
            "tag": self.build_plan.tag,
            "build_type": self.build_plan.build_type.value,
            "sources": {
                service: {"revision": found.revision, "branch": found.branch, "changed": list(found.dirty)}
                for service, found in self.build_plan.sources.items()
            },
            "images": [build_json(one) for one in self.built],
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
