"""Test: the application's own suites, run here one after the other, each told as it goes. The story only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fabfile import config
from fabfile.errors import ConfigError, ExitCode, Mistake
from fabfile.model import Ran, Suite, SuiteKind
from fabfile.remote import local_command
from fabfile.report.output import Output
from fabfile.report.pipeline import suite_lines
from fabfile.workflows import build_order

Say = Callable[[str], None]
ALL = "all"


@dataclass(frozen=True)
class Request:
    """What the operator asked for; `suite` is a kind, or all."""

    environment: str | None
    root: Path
    suite: str = ALL


def test(request: Request) -> ExitCode:
    """Run the suites that are asked for, all of them whatever fails. FAILED when one did."""
    check_kind(request.suite)
    name = request.environment or os.environ.get("DEPLOY_ENV") or None
    if name:
        environment = build_order.chosen(name, request.root, "")
        output = Output(sys.stdout, environment.secrets)
        suites, production = environment.pipeline.suites, build_order.is_production(environment)
        told = {"ENVIRONMENT": environment.targets[0].application.environment}
    else:
        suites, production, told, output = config.suites(request.root), False, {}, Output(sys.stdout)
    ran = run(wanted(suites, request.suite), lambda line: output.show([line]), production=production, env=told)
    output.show(suite_lines(ran))
    return ExitCode.DONE if all(one.well for one in ran) else ExitCode.FAILED


def check_kind(kind: str) -> None:
    """Refuse a kind of suites that there is not. Raises ConfigError."""
    known = [*(one.value for one in SuiteKind), ALL]
    if kind not in known:
        mistake = Mistake("command line", "--suite", repr(kind), f"{', '.join(known[:-1])} or {ALL}")
        raise ConfigError("The command line has a mistake; nothing was run.", [mistake])


def wanted(suites: Sequence[Suite], kind: str) -> tuple[Suite, ...]:
    """The suites of a kind, in the order of the file. Raises ConfigError for none, or a missing folder."""
    found = tuple(suite for suite in suites if kind in {ALL, suite.kind.value})
    if not found:
        which = "suites" if kind == ALL else f"suites of the kind {kind}"
        raise ConfigError(
            f"services.yaml declares no {which}. Nothing was run.",
            next_step="declare them: suites: [{kind: unit, command: make test, folder: ../memoryark}]",
        )
    mistakes = [
        Mistake("services.yaml", "suites", f"{suite.title}: {suite.folder}: no such folder", "a folder")
        for suite in found
        if not Path(suite.folder).is_dir()
    ]
    if mistakes:
        raise ConfigError("The suites cannot be run; none was begun.", mistakes)
    return found


def run(suites: Sequence[Suite], say: Say, *, production: bool, env: Mapping[str, str]) -> tuple[Ran, ...]:
    """Run suites one after the other, each line told as it comes; what fails keeps none of the others from running."""
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
            env={**env, **dict(suite.env)},
            timeout_seconds=suite.timeout_seconds,
        )
    except OSError as error:
        return Ran(suite, "failed", detail=f"cannot be started: {error}")
    if ended.timed_out:
        return Ran(suite, "timed out", ended.seconds, f"ended after {suite.timeout_seconds:g} s")
    say(f"{suite.title}: {'passed' if ended.ok else 'failed'} in {ended.seconds:.1f} s")
    return Ran(suite, "passed" if ended.ok else "failed", ended.seconds, "" if ended.ok else f"status {ended.status}")
