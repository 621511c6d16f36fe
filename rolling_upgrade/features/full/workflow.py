"""The full pipeline: build, test, push, deploy, health check and monitor."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.console import identity
from rolling_upgrade.console.text import duration, one_line, table
from rolling_upgrade.engine.local_file import IGNORE_ALL
from rolling_upgrade.engine.masking import safe
from rolling_upgrade.engine.model import Environment, Image, Suite, Summary, Transfer, new_run_id
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.errors import PROGRAM, ConfigError, ExitCode, RollingError
from rolling_upgrade.features.build import workflow as building
from rolling_upgrade.features.build.builder import BuildResult, Log
from rolling_upgrade.features.build.plan import BuildPlan, is_production, plan_build
from rolling_upgrade.features.deploy import workflow as deploy
from rolling_upgrade.features.health import workflow as health
from rolling_upgrade.features.suites import workflow as suites
from rolling_upgrade.features.suites.workflow import SuiteResult, suite_lines, suite_plan_lines
from rolling_upgrade.features.watchdog import workflow as watchdog
from rolling_upgrade.ssh import agent

#: The placeholder in a dry run for a digest that only a push reveals.
UNKNOWN_DIGEST = f"sha256:{'0' * 64}"


@dataclass(frozen=True)
class PhaseOutcome:
    """The return value of a phase: its exit code, a detail for the report, and whether it had nothing to do."""

    code: int = ExitCode.DONE
    detail: str = ""
    skipped: bool = False


@dataclass(frozen=True)
class PhaseRecord:
    """One phase in the report; `began` is an ISO 8601 time, None if the phase did not run."""

    name: str = field(metadata={"key": "stage"})
    result: str
    began: str | None = None
    seconds: float = 0.0
    exit_code: int = 0
    detail: str = ""


@dataclass
class Phases:
    """The phases of one run; after a failed phase, the others are only listed."""

    log: Log
    log_error: Log
    records: list[PhaseRecord] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The exit code of the failed phase, 0 without one."""
        return next((record.exit_code for record in self.records if record.exit_code), int(ExitCode.DONE))

    def run(self, name: str, work: Callable[[], PhaseOutcome]) -> None:
        """Run one phase unless an earlier one failed. Record every exception; raise all but RollingError again."""
        if self.code:
            self.records.append(PhaseRecord(name, "not run"))
            return
        started_at, clock = time.time(), time.monotonic()
        self.log(f"== {name}")

        def record(result: str, code: int, detail: str) -> None:
            seconds = round(time.monotonic() - clock, 1)
            self.records.append(PhaseRecord(name, result, _iso_time(started_at), seconds, code, detail))

        try:
            outcome = work()
        except RollingError as error:
            self.log_error(str(error))
            record("failed", int(error.exit_code), error.message.splitlines()[0])
        except KeyboardInterrupt:
            record("interrupted", int(ExitCode.INTERRUPTED), "")
            raise
        except BaseException as error:
            record("failed", int(ExitCode.FAILED), f"{type(error).__name__}: {error}")
            raise
        else:
            result = "skipped" if outcome.skipped else "failed" if outcome.code else "done"
            record(result, int(outcome.code), outcome.detail)


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
    """Build, test, push, deploy, check and monitor. Stop at the first phase that fails and return its exit code."""
    started_at, clock = time.time(), time.monotonic()
    suites.check_kind(suite)
    agent.check_deploy_key()
    if not env:
        config.load(None, root=root)
    environment = building.load_environment(env, root, tag)
    build_plan = plan_build(environment, tag=tag, build_type=build_type, force=force, dry_run=dry_run)
    _refuse_silent_question(environment, force=force, dry_run=dry_run)
    # Read now: code of the application could change the clone later.
    identity.revision(root)
    run = _Run(root, build_plan, _suites(environment, suite), force=force, dry_run=dry_run)
    try:
        with run.held:
            for name, work in run.works().items():
                run.phases.run(name, work)
    finally:
        seconds, shown = time.monotonic() - clock, ", shown only" if dry_run else ""
        title = f"full {build_plan.tag} on {environment.name}{shown}"
        run.log("\n".join(phase_lines(run.phases.records, title, seconds)))
        if not dry_run:
            run.report(started_at, seconds)
    return ExitCode(run.phases.code)


def _suites(environment: Environment, suite: str) -> tuple[Suite, ...]:
    """Return the suites to run; none if the file declares none and the operator named no kind."""
    if not environment.pipeline.suites and suite == suites.ALL:
        return ()
    return suites.select(environment.pipeline.suites, suite)


def _refuse_silent_question(environment: Environment, *, force: bool, dry_run: bool) -> None:
    """Raise ConfigError when the deploy, the fourth phase, would need a confirmation and there is no terminal."""
    if environment.rollout.confirm and not (force or dry_run or sys.stdin.isatty()):
        raise ConfigError(
            f"a deploy to {environment.name} requires confirmation, but stdin is not a terminal. Nothing was built.",
            next_step=f"{PROGRAM} full --env {environment.name} --force deploys without asking",
        )


class _Run:
    """The state of one run: the images, the results of the suites, the summary of the deploy."""

    def __init__(
        self, root: Path, build_plan: BuildPlan, selected: tuple[Suite, ...], *, force: bool, dry_run: bool
    ) -> None:
        self.root, self.build_plan, self.suites = root, build_plan, selected
        self.force, self.dry_run = force, dry_run
        self.environment = build_plan.environment
        self.log = building.printer(self.environment)
        self.phases = Phases(self.log, building.printer(self.environment, to_stderr=True))
        self.hosts = ", ".join(target.name for target in self.environment.targets)
        self.pushes_from_here = self.environment.rollout.transfer is Transfer.PUSH
        self.built: tuple[BuildResult, ...] = ()
        self.suite_results: tuple[SuiteResult, ...] = ()
        self.summary: Summary | None = None
        self.held = contextlib.ExitStack()

    def works(self) -> dict[str, Callable[[], PhaseOutcome]]:
        """Return the phases by name, in order."""
        return {
            "build": self._build,
            "test": self._test,
            "push": self._push,
            "deploy": self._deploy,
            "health": self._health,
            "monitor": self._monitor,
        }

    def _shown(self, *lines: str) -> PhaseOutcome:
        """Show the plan of a phase."""
        for line in lines:
            self.log(line)
        return PhaseOutcome(detail="shown")

    def _build(self) -> PhaseOutcome:
        if self.dry_run:
            building.print_plan(self.build_plan, self.log, push=False)
            return self._shown()
        self.built = building.build_images(self.build_plan, self.log)
        self.log("\n".join(building.build_lines(self.built)))
        return PhaseOutcome(detail=", ".join(image.reference for image in self.built))

    def _test(self) -> PhaseOutcome:
        if not self.suites:
            self.log("services.yaml declares no suites")
            return PhaseOutcome(detail="services.yaml declares no suites", skipped=True)
        production = is_production(self.environment)
        if self.dry_run:
            return self._shown(*suite_plan_lines(self.suites, production=production))
        variables = {"ENVIRONMENT": self.environment.targets[0].application.environment}
        variables |= {f"IMAGE_{image.service.upper().replace('-', '_')}": image.reference for image in self.built}
        results = self.suite_results = suites.run(self.suites, self.log, production=production, env=variables)
        self.log("\n".join(suite_lines(results)))
        failed = [result.suite.title for result in results if not result.ok]
        if failed:
            return PhaseOutcome(ExitCode.FAILED, f"{', '.join(failed)}: nothing was pushed")
        return PhaseOutcome(detail=", ".join(f"{result.suite.title} {result.result}" for result in results))

    def _push(self) -> PhaseOutcome:
        if self.pushes_from_here:
            self.log("transfer: push is set in hosts.yaml: the deploy sends the images to the hosts")
            return PhaseOutcome(detail="transfer: push", skipped=True)
        if self.dry_run:
            return self._shown(*(f"{name}: push {image}" for name, image in self.build_plan.references.items()))
        self.built = building.push_images(self.build_plan, self.built, self.log)
        return PhaseOutcome(detail=", ".join(f"{image.service} {image.digest[:19]}" for image in self.built))

    def _deploy(self) -> PhaseOutcome:
        if self.dry_run and not self.pushes_from_here:
            self.log("the digests are unknown until the push; 000000000000 is a placeholder")
        if self.dry_run and self.pushes_from_here:
            return self._shown(f"deploy {self.build_plan.tag} from this workstation: the plan needs the built images")
        # No process of the application is left: an earlier one could have reached the agent.
        self.held.enter_context(agent.with_deploy_key())
        code = deploy.deploy(
            self.environment.name,
            root=self.root,
            tag=self.build_plan.tag,
            force=self.force,
            dry_run=self.dry_run,
            given={} if self.pushes_from_here else self._given(),
            on_finish=self._on_finish,
        )
        return PhaseOutcome(code, self.summary.message if self.summary else "shown")

    def _on_finish(self, summary: Summary) -> None:
        self.summary = summary

    def _health(self) -> PhaseOutcome:
        if self.dry_run:
            return self._shown(f"check {self.hosts}")
        code = health.health(self.environment.name, root=self.root, once=True)
        return PhaseOutcome(code, f"{self.hosts} {'unhealthy' if code else 'healthy'}")

    def _monitor(self) -> PhaseOutcome:
        if self.dry_run:
            return self._shown(f"make sure that the watchdog runs on {self.hosts}")
        code = watchdog.install(self.environment.name, root=self.root)
        return PhaseOutcome(code, f"watchdog on {self.hosts}")

    def _given(self) -> dict[str, Image]:
        """Return every image of the deploy: pushed ones by digest, the others as the env file names them."""
        digests = {image.service: image.digest for image in self.built}
        given = {
            service: Image.parse(reference).with_digest(digests.get(service) or UNKNOWN_DIGEST)
            for service, reference in self.build_plan.references.items()
        }
        if any(service.name not in given for service in self.environment.services):
            loaded = config.load(self.environment.name, root=self.root)
            given |= {service.name: service.image for service in loaded.services if service.name not in given}
        return given

    def report(self, started_at: float, seconds: float) -> None:
        """Write the report; a failure to write it does not change the result."""
        try:
            path = write_report(self.environment, started_at, self._content(started_at, seconds))
        except OSError as error:
            self.log(f"warning: the report could not be written: {error}")
        else:
            self.log(f"report: {path}")

    def _content(self, started_at: float, seconds: float) -> dict[str, object]:
        code, summary = self.phases.code, self.summary
        return {
            "format": 1,
            "action": "full",
            "outcome": "done" if not code else "interrupted" if code == ExitCode.INTERRUPTED else "failed",
            "exit_code": code,
            "began": _iso_time(started_at),
            "seconds": round(seconds, 1),
            "owner": identity.name(),
            "workstation": identity.workstation(),
            "clone": identity.revision(self.root),
            "environment": self.environment.name,
            "hosts": [target.name for target in self.environment.targets],
            "tag": self.build_plan.tag,
            "build_type": self.build_plan.build_type.value,
            "sources": {
                service: {"revision": tree.revision, "branch": tree.branch, "changed": list(tree.dirty)}
                for service, tree in self.build_plan.sources.items()
            },
            "images": self.built,
            "suites": [
                {"name": run.suite.title, "kind": run.suite.kind.value, "result": run.result, "seconds": run.seconds}
                for run in self.suite_results
            ],
            "release": summary.release if summary else None,
            "deploy": [
                {"host": host.host, "result": host.result.value, "seconds": round(host.seconds, 1), "cause": host.cause}
                for host in (summary.hosts if summary else ())
            ],
            "stages": self.phases.records,
        }


def phase_lines(records: Sequence[PhaseRecord], pipeline: str, seconds: float) -> list[str]:
    """Return a table of the phases, then the result of the pipeline."""
    rows = [("PHASE", "RESULT", "SECONDS", "DETAIL")]
    for phase in records:
        took = f"{phase.seconds:.1f}" if phase.began else "-"
        rows.append((phase.name, phase.result, took, one_line(phase.detail) or "-"))
    failed = next((phase.name for phase in records if phase.exit_code), "")
    result = f"stopped at {failed}" if failed else "done"
    return ["", *table(rows), "", f"{pipeline}: {result} ({duration(seconds)})"]


def write_report(environment: Environment, started_at: float, content: Mapping[str, object]) -> str:
    """Write the report atomically into the environment's report directory and return its path. Raises OSError.

    Git ignores the files of a report directory that this function creates.
    """
    directory = Path(environment.pipeline.reports)
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    if is_new:
        (directory / ".gitignore").write_bytes(IGNORE_ALL)
    path = directory / f"{environment.name}-{new_run_id(started_at)}.json"
    text = safe(json.dumps(to_plain(content), indent=2, ensure_ascii=False), environment.secrets)
    partial = path.with_suffix(".half")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
    return str(path)


def _iso_time(at: float) -> str:
    """Format Unix seconds as an ISO 8601 time."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
