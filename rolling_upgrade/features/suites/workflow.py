"""`inv test`: run the application's own test suites on this machine, one after the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.console.output import Output
from rolling_upgrade.engine import local_command, process_environment
from rolling_upgrade.engine.model import Ran, Suite, SuiteKind
from rolling_upgrade.errors import ConfigError, ConfigIssue, ExitCode, usage_error
from rolling_upgrade.features.build import spec
from rolling_upgrade.features.build.view import suite_lines

Say = Callable[[str], None]
ALL = "all"


def run_suites(env: str | None, *, root: Path, suite: str = ALL) -> ExitCode:
    """Run every chosen suite, even after a failure. FAILED when one failed."""
    check_kind(suite)
    name = env or os.environ.get("DEPLOY_ENV") or None
    if name:
        environment = spec.chosen(name, root, "")
        output = Output(sys.stdout, environment.secrets)
        suites, production = environment.pipeline.suites, spec.is_production(environment)
        variables = {"ENVIRONMENT": environment.targets[0].application.environment}
    else:
        suites, production, variables, output = config.suites(root), False, {}, Output(sys.stdout)
    results = run(select(suites, suite), lambda line: output.show([line]), production=production, env=variables)
    output.show(suite_lines(results))
    return ExitCode.DONE if all(result.well for result in results) else ExitCode.FAILED


def check_kind(kind: str) -> None:
    """Raise ConfigError for an unknown kind of suite."""
    known = [*(kind.value for kind in SuiteKind), ALL]
    if kind not in known:
        raise usage_error(("--suite", repr(kind), f"{', '.join(known[:-1])} or {ALL}"), nothing="run")


def select(suites: Sequence[Suite], kind: str) -> tuple[Suite, ...]:
    """Return the suites of a kind, in the order of the file. Raises ConfigError for none, or a missing folder."""
    found = tuple(suite for suite in suites if kind in {ALL, suite.kind.value})
    if not found:
        which = "suites" if kind == ALL else f"suites of the kind {kind}"
        raise ConfigError(
            f"services.yaml declares no {which}. Nothing was run.",
            next_step="declare them: suites: [{kind: unit, command: make test, folder: ../memoryark}]",
        )
    issues = [
        ConfigIssue("services.yaml", "suites", f"{suite.title}: {suite.folder}: no such folder", "a folder")
        for suite in found
        if not Path(suite.folder).is_dir()
    ]
    if issues:
        raise ConfigError("The suites cannot be run; none was started.", issues)
    return found


def run(suites: Sequence[Suite], say: Say, *, production: bool, env: Mapping[str, str]) -> tuple[Ran, ...]:
    """Run suites one after the other and pass on each line; a failure does not stop the others."""
    return tuple(_one(suite, say, production=production, env=env) for suite in suites)


def _one(suite: Suite, say: Say, *, production: bool, env: Mapping[str, str]) -> Ran:
    if suite.skipped(production=production):
        say(f"{suite.title}: skipped, production is not put under load")
        return Ran(suite, "skipped", detail="load suites are not run against production")
    say(f"{suite.title}: {suite.kind.value} suite in {suite.folder}")
    try:
        ended = local_command.run(
            suite.command,
            lambda line: say(f"{suite.title} | {line}"),
            folder=suite.folder,
            base=process_environment.for_application(os.environ, suite.pass_env),
            env={**env, **dict(suite.env)},
            timeout_seconds=suite.timeout_seconds,
            confined=True,
        )
    except OSError as error:
        return Ran(suite, "failed", detail=f"it could not be started: {error}")
    if ended.timed_out:
        return Ran(suite, "timed out", ended.seconds, f"stopped after {suite.timeout_seconds:g} s")
    if ended.left_running:
        return Ran(suite, "failed", ended.seconds, f"it left {ended.left_running} processes that could not be ended")
    say(f"{suite.title}: {'passed' if ended.ok else 'failed'} in {ended.seconds:.1f} s")
    return Ran(suite, "passed" if ended.ok else "failed", ended.seconds, "" if ended.ok else f"status {ended.status}")
