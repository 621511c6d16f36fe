"""Build: images from source on this workstation, judged, compared, and pushed where asked. The story only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

from fabfile.errors import ExitCode
from fabfile.model import Built, Environment
from fabfile.remote import engine
from fabfile.report.output import Output
from fabfile.report.pipeline import built_lines, built_object, order_lines
from fabfile.workflows.build_order import Order, Request, differences, order

Say = Callable[[str], None]


def build(request: Request) -> ExitCode:
    """Build every service that says how; push them once all are built. Raises RollingError with its exit code."""
    ordered = order(request)
    say = voice(ordered.environment, aside=request.json)
    if request.dry_run:
        say_plan(ordered, say, push=request.push)
        return ExitCode.DONE
    built = make(ordered, say)
    if request.push:
        built = push(ordered, built, say)
    if request.json:
        content = {"tag": ordered.tag, "images": [built_object(one) for one in built]}
        Output(sys.stdout, ordered.environment.secrets).show([json.dumps(content, indent=2)])
    else:
        for line in built_lines(built):
            say(line)
    return ExitCode.DONE


def voice(environment: Environment, *, aside: bool = False) -> Say:
    """Where a line goes: standard output, or standard error `aside`, where the other has a program's reader."""
    output = Output(sys.stderr if aside else sys.stdout, environment.secrets)
    return lambda line: output.show([line])


def say_plan(ordered: Order, say: Say, *, push: bool) -> None:
    """Tell what would be done, with every command."""
    _warn(ordered, say)
    commands = {build.service: ordered.command(build) for build in ordered.builds}
    for line in order_lines(commands, ordered.references, push=push):
        say(line)


def make(ordered: Order, say: Say) -> tuple[Built, ...]:
    """Build every image, each judged by its scan hook. Raises StepFailed at the first that fails."""
    _warn(ordered, say)
    built = []
    for number, build in enumerate(ordered.builds, 1):
        reference = ordered.references[build.service]
        say(f"{build.service}: building {reference} from {build.context} ({number} of {len(ordered.builds)})")
        argv = ordered.command(build)
        one = engine.build(
            ordered.engine, build.service, reference, argv, _behind(build.service, say), platforms=ordered.platforms
        )
        if build.scan:
            say(f"{build.service}: scanning {reference}")
            engine.scan(build.scan, one, _behind(build.service, say))
        built.append(one)
    return tuple(built)


def push(ordered: Order, built: Sequence[Built], say: Say) -> tuple[Built, ...]:
    """Push the images, logged in where the env file says so; each comes back with its digest."""
    done = []
    with engine.logged_in(ordered.engine, ordered.login) as (folder, login):
        for one in built:
            say(f"{one.service}: pushing {one.reference}")
            voiced = _behind(one.service, say)
            done.append(engine.push(ordered.engine, one, folder, voiced, many=ordered.many, login=login))
            say(f"{one.service}: pushed as {done[-1].digest}")
    return tuple(done)


def _warn(ordered: Order, say: Say) -> None:
    """Say what --force lets by: in `inv full` it answers the deploy's question as well."""
    for line in differences(ordered.sources):
        say(f"warning: {line}; built as it is")


def _behind(service: str, say: Say) -> Say:
    return lambda line: say(f"{service} | {line}")
