"""`inv build`: build images from source on this workstation, scan them, and push them on request."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rolling_upgrade.console.output import Output, print_json
from rolling_upgrade.console.task import split_words
from rolling_upgrade.engine.model import Environment
from rolling_upgrade.errors import ExitCode
from rolling_upgrade.features.build import builder
from rolling_upgrade.features.build.builder import BuildResult, Log
from rolling_upgrade.features.build.spec import BuildPlan, differences, plan_build
from rolling_upgrade.features.build.view import build_json, build_lines, build_plan_lines


def build(
    env: str | None,
    *,
    root: Path,
    tag: str = "",
    build_type: str = "",
    platform: str = "",
    service: Sequence[str] = (),
    push: bool = False,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> ExitCode:
    """Build every service with a `build:` section; push the images once all are built. Raises RollingError."""
    plan = plan_build(
        env,
        root=root,
        tag=tag,
        build_type=build_type,
        platform=platform,
        # An empty value (--service "$EMPTY") selects no service; it must not select all.
        services=split_words(service) or service,
        force=force,
        dry_run=dry_run,
    )
    log = printer(plan.environment, to_stderr=json)
    if dry_run:
        print_plan(plan, log, push=push)
        return ExitCode.DONE
    built = build_images(plan, log)
    if push:
        built = push_images(plan, built, log)
    if json:
        content = {"tag": plan.tag, "images": [build_json(image) for image in built]}
        print_json(content, sys.stdout, plan.environment.secrets)
    else:
        log("\n".join(build_lines(built)))
    return ExitCode.DONE


def printer(environment: Environment, *, to_stderr: bool = False) -> Log:
    """Return a function that prints a line, with the secrets of the environment masked."""
    output = Output(sys.stderr if to_stderr else sys.stdout, environment.secrets)
    return lambda line: output.show([line])


def print_plan(plan: BuildPlan, log: Log, *, push: bool) -> None:
    """Print every command of the build."""
    _warn(plan, log)
    commands = {build.service: plan.command(build) for build in plan.builds}
    log("\n".join(build_plan_lines(commands, plan.references, push=push)))


def build_images(plan: BuildPlan, log: Log) -> tuple[BuildResult, ...]:
    """Build and scan every image. Raises StepFailed at the first failure."""
    _warn(plan, log)
    built = []
    for number, build in enumerate(plan.builds, 1):
        reference = plan.references[build.service]
        log(f"{build.service}: building {reference} from {build.context} ({number} of {len(plan.builds)})")
        argv = plan.command(build)
        image = builder.build(
            plan.engine, build.service, reference, argv, _prefixed(build.service, log), platforms=plan.platforms
        )
        if build.scan:
            log(f"{build.service}: scanning {reference}")
            builder.scan(plan.engine, build.scan, image, _prefixed(build.service, log))
        built.append(image)
    return tuple(built)


def push_images(plan: BuildPlan, built: Sequence[BuildResult], log: Log) -> tuple[BuildResult, ...]:
    """Push the images with the login of the env file. Return them with their digests."""
    pushed = []
    with builder.logged_in(plan.engine, plan.login) as (directory, login):
        for image in built:
            log(f"{image.service}: pushing {image.reference}")
            prefixed = _prefixed(image.service, log)
            pushed.append(builder.push(plan.engine, image, directory, prefixed, many=plan.many, login=login))
            log(f"{image.service}: pushed as {pushed[-1].digest}")
    return tuple(pushed)


def _warn(plan: BuildPlan, log: Log) -> None:
    """Warn of dirty work trees. --force accepts them, and `inv full --force` may mean only to skip the confirmation."""
    for line in differences(plan.sources):
        log(f"warning: {line}; built with these changes")


def _prefixed(service: str, log: Log) -> Log:
    return lambda line: log(f"{service} | {line}")
