"""`inv test`: run the application's own test suites on this machine, one after the other."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rolling_upgrade.config.loader import load_suites
from rolling_upgrade.console.output import Output
from rolling_upgrade.console.text import indent, table
from rolling_upgrade.engine import local_command
from rolling_upgrade.engine.model import Suite, SuiteKind
from rolling_upgrade.errors import ConfigError, ConfigIssue, ExitCode, usage_error
from rolling_upgrade.features.build.builder import Log
from rolling_upgrade.features.build.plan import is_production
from rolling_upgrade.features.build.workflow import load_environment

ALL = "all"


@dataclass(frozen=True)
class SuiteResult:
    """The result of one suite: `passed`, `failed`, `timed out` or `skipped`, and the reason."""

    suite: Suite
    result: str
    seconds: float = 0.0
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether the suite passed or was skipped."""
        return self.result in {"passed", "skipped"}


def run_suites(env: str | None, *, root: Path, suite: str = ALL) -> ExitCode:
    """Run every chosen suite, even after a failure. FAILED when one failed."""
    check_kind(suite)
    name = env or os.environ.get("DEPLOY_ENV") or None
    if name:
        environment = load_environment(name, root, "")
        output = Output(sys.stdout, environment.secrets)
        suites, production = environment.pipeline.suites, is_production(environment)
        variables = {"ENVIRONMENT": environment.targets[0].application.environment}
    else:
        suites, production, variables, output = load_suites(root), False, {}, Output(sys.stdout)
    results = run(select(suites, suite), lambda line: output.show([line]), production=production, env=variables)
    output.show(suite_lines(results))
    return ExitCode.DONE if all(result.ok for result in results) else ExitCode.FAILED


def check_kind(kind: str) -> None:
    """Raise ConfigError for an unknown kind of suite."""
    known = [*(kind.value for kind in SuiteKind), ALL]
    if kind not in known:
        raise usage_error(("--suite", repr(kind), f"{', '.join(known[:-1])} or {ALL}"), nothing="run")


def select(suites: Sequence[Suite], kind: str) -> tuple[Suite, ...]:
    """Return the suites of a kind, in the order of the file. Raises ConfigError for none, or a missing directory."""
    selected = tuple(suite for suite in suites if kind in {ALL, suite.kind.value})
    if not selected:
        which = "suites" if kind == ALL else f"suites of the kind {kind}"
        raise ConfigError(
            f"services.yaml declares no {which}. Nothing was run.",
            next_step="declare them: suites: [{kind: unit, command: make test, folder: ../shop}]",
        )
    issues = [
        ConfigIssue("services.yaml", "suites", f"{suite.title}: {suite.folder}: no such directory", "a directory")
        for suite in selected
        if not Path(suite.folder).is_dir()
    ]
    if issues:
        raise ConfigError("The suites cannot be run; none was started.", issues)
    return selected


def run(suites: Sequence[Suite], log: Log, *, production: bool, env: Mapping[str, str]) -> tuple[SuiteResult, ...]:
    """Run suites one after the other and log each line of output; a failure does not stop the others."""
    return tuple(_run_suite(suite, log, production=production, env=env) for suite in suites)


def _run_suite(suite: Suite, log: Log, *, production: bool, env: Mapping[str, str]) -> SuiteResult:
    if suite.skipped(production=production):
        log(f"{suite.title}: skipped: load tests do not run against production")
        return SuiteResult(suite, "skipped", detail="load suites are not run against production")
    log(f"{suite.title}: {suite.kind.value} suite in {suite.folder}")
    try:
        ended = local_command.run(
            suite.command,
            lambda line: log(f"{suite.title} | {line}"),
            directory=suite.folder,
            base=local_command.application_environment(os.environ, suite.pass_env),
            env={**env, **dict(suite.env)},
            timeout_seconds=suite.timeout_seconds,
            confined=True,
        )
    except OSError as error:
        return SuiteResult(suite, "failed", detail=f"it could not be started: {error}")
    if ended.timed_out:
        return SuiteResult(suite, "timed out", ended.seconds, f"stopped after {suite.timeout_seconds:g} s")
    if ended.left_running:
        detail = f"it left {ended.left_running} processes that could not be ended"
        return SuiteResult(suite, "failed", ended.seconds, detail)
    result, detail = ("passed", "") if ended.ok else ("failed", f"status {ended.status}")
    log(f"{suite.title}: {result} in {ended.seconds:.1f} s")
    return SuiteResult(suite, result, ended.seconds, detail)


def suite_plan_lines(suites: Iterable[Suite], *, production: bool) -> list[str]:
    """Return the plan of the suites: each with its command, or the reason to skip it."""
    return [
        f"{suite.title}: would be skipped: load tests do not run against production"
        if suite.skipped(production=production)
        else f"{suite.title}: {shlex.join(suite.command)} in {suite.folder}"
        for suite in suites
    ]


def suite_lines(results: Sequence[SuiteResult]) -> list[str]:
    """Return a table of the suites, then the details of each."""
    rows = [("SUITE", "KIND", "RESULT", "SECONDS")]
    rows += [(run.suite.title, run.suite.kind.value, run.result, f"{run.seconds:.1f}") for run in results]
    lines = ["", *table(rows)]
    for run in results:
        if run.detail:
            first, *more = run.detail.splitlines()
            lines += [f"{run.suite.title}: {first}", *indent("\n".join(more), "  ")]
    return lines
