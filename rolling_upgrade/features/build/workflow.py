"""`inv build`: build images from source on this workstation, scan them, and push them on request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rolling_upgrade.console.output import Output, print_json
from rolling_upgrade.engine.model import Built, Environment
from rolling_upgrade.errors import ExitCode
from rolling_upgrade.features.build import builder
from rolling_upgrade.features.build.spec import BuildPlan, differences, plan_build
from rolling_upgrade.features.build.view import build_json, build_lines, build_plan_lines

Say = Callable[[str], None]


def build(
    env: str | None,
    *,
    root: Path,
    tag: str = "",
    build_type: str = "",
    platform: str = "",
    services: Sequence[str] = (),
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
        services=services,
        force=force,
        dry_run=dry_run,
    )
    say = printer(plan.environment, aside=json)
    if dry_run:
        print_plan(plan, say, push=push)
        return ExitCode.DONE
    built = build_images(plan, say)
    if push:
        built = push_images(plan, built, say)
    if json:
        content = {"tag": plan.tag, "images": [build_json(image) for image in built]}
        print_json(content, sys.stdout, plan.environment.secrets)
    else:
        for line in build_lines(built):
            say(line)
    return ExitCode.DONE


def printer(environment: Environment, *, aside: bool = False) -> Say:
    """Return a function that prints a line: to standard output, or with `aside` to standard error."""
    output = Output(sys.stderr if aside else sys.stdout, environment.secrets)
    return lambda line: output.show([line])


def print_plan(plan: BuildPlan, say: Say, *, push: bool) -> None:
    """Print every command of the build."""
    _warn(plan, say)
    commands = {build.service: plan.command(build) for build in plan.builds}
    for line in build_plan_lines(commands, plan.references, push=push):
        say(line)


def build_images(plan: BuildPlan, say: Say) -> tuple[Built, ...]:
    """Build and scan every image. Raises StepFailed at the first failure."""
    _warn(plan, say)
    built = []
    for number, build in enumerate(plan.builds, 1):
        reference = plan.references[build.service]
        say(f"{build.service}: building {reference} from {build.context} ({number} of {len(plan.builds)})")
        argv = plan.command(build)
        image = builder.build(
            plan.engine, build.service, reference, argv, _prefixed(build.service, say), platforms=plan.platforms
        )
        if build.scan:
            say(f"{build.service}: scanning {reference}")
            builder.scan(plan.engine, build.scan, image, _prefixed(build.service, say))
        built.append(image)
    return tuple(built)


def push_images(plan: BuildPlan, built: Sequence[Built], say: Say) -> tuple[Built, ...]:
    """Push the images, with the login of the env file, and return them with their digests."""
    pushed = []
    with builder.logged_in(plan.engine, plan.login) as (folder, login):
        for image in built:
            say(f"{image.service}: pushing {image.reference}")
            prefixed = _prefixed(image.service, say)
            pushed.append(builder.push(plan.engine, image, folder, prefixed, many=plan.many, login=login))
            say(f"{image.service}: pushed as {pushed[-1].digest}")
    return tuple(pushed)


def _warn(plan: BuildPlan, say: Say) -> None:
    """Warn of dirty work trees, which --force accepts: in `inv full` it also skips the question of the deploy."""
    for line in differences(plan.sources):
        say(f"warning: {line}; built with these changes")


def _prefixed(service: str, say: Say) -> Say:
    return lambda line: say(f"{service} | {line}")
