"""`inv build`: build images from source on this workstation, scan them, and push them on request."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.config.locate import list_environments_with_values
from rolling_upgrade.console.output import Output, print_result
from rolling_upgrade.console.task import split_words
from rolling_upgrade.console.text import table
from rolling_upgrade.engine.model import Environment
from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.build import builder
from rolling_upgrade.features.build.builder import BuildResult, Log
from rolling_upgrade.features.build.plan import BuildPlan, differences, is_production, plan_build

#: The placeholder for the tag while only the repositories of the images matter.
_NO_TAG = "unbuilt"


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
        load_environment(env, root, tag),
        tag=tag,
        build_type=build_type,
        platform=platform,
        # An empty value (--service "$EMPTY") selects no service; it must not select all.
        services=split_words(service),
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
    content = {"tag": plan.tag, "images": built}
    print_result(content if json else build_lines(built), plan.environment.secrets)
    return ExitCode.DONE


def load_environment(name: str | None, root: Path, tag: str) -> Environment:
    """Load the named environment, the one in DEPLOY_ENV, or one with a local env file. Raises ConfigError.

    If several environments have an env file, their settings for builds must be equal.
    """
    name = name or os.environ.get("DEPLOY_ENV") or None
    names = (name,) if name else list_environments_with_values(root)
    if not names:
        return config.load(None, root=root)
    environments = [config.load(name, root=root, tag=tag or _NO_TAG) for name in names]
    if len({_build_settings(environment) for environment in environments}) > 1:
        raise ConfigError(
            f"No environment was named, and {', '.join(names)} differ in their images, builds or registry login. "
            "Nothing was built.",
            next_step="name one with --env, or with DEPLOY_ENV in this shell",
        )
    return min(environments, key=is_production)


def _build_settings(environment: Environment) -> tuple[object, ...]:
    images = tuple(
        (service.name, service.image.repository)
        for target in environment.targets
        for service in target.application.services
    )
    return environment.pipeline, frozenset(images), environment.targets[0].application.login


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
    with builder.logged_in(plan.engine, plan.environment.targets[0].application.login) as (directory, login):
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


def build_plan_lines(commands: Mapping[str, Sequence[str]], references: Mapping[str, str], *, push: bool) -> list[str]:
    """Return the plan of a build, with every command."""
    lines = []
    for service, argv in commands.items():
        lines += [f"{service}: build {references[service]}", f"  {shlex.join(argv)}"]
    return [*lines, *(f"{service}: push {reference}" for service, reference in references.items() if push)]


def build_lines(built: Sequence[BuildResult]) -> list[str]:
    """Return a table of the built images, each with its size and the change from the previous image."""
    rows = [("SERVICE", "IMAGE", "SECONDS", "SIZE", "CHANGE", "DIGEST")]
    for image in built:
        size = f"{image.bytes / 1e6:.1f} MB" if image.bytes else "-"
        digest = image.digest or "not pushed"
        rows.append((image.service, image.reference, f"{image.seconds:.1f}", size, _change(image), digest))
    return ["", *table(rows)]


def _change(built: BuildResult) -> str:
    if not built.previous_bytes or not built.bytes:
        return "-"
    change = built.bytes - built.previous_bytes
    return f"{change / 1e6:+.1f} MB, {change * 100 / built.previous_bytes:+.0f}%"
