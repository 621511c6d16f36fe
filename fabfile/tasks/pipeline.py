"""The tasks from source to a release: build, test, full, promote. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import COMMON, ROOT, end_with
from fabfile.tasks.names import task

_STOPPED = "what ran here was ended; no host was contacted. Next: the same command again"
_ENV = {"env": COMMON["env"]}
_SUITE = "unit, integration, load or all"
_BUILD_TYPE = {"build-type": "release or debug; release without it"}


@task(
    help={
        "env": "the environment whose images they are; without it DEPLOY_ENV, or any whose env file is here",
        "tag": "the tag of the images; without it one made from Git",
        **_BUILD_TYPE,
        "push": "push the images once all are built",
        "platform": "os/arch, or several separated by commas; without it that of this machine",
        "force": "build a work tree that differs from its commit",
        "service": "only these services, separated by commas",
        "dry-run": "show every command, build nothing",
        "json": "one JSON object on stdout, the progress on stderr",
    }
)
def build(
    context: Any,  # noqa: ARG001
    env: str | None = None,
    tag: str = "",
    build_type: str = "",
    push: bool = False,
    platform: str = "",
    force: bool = False,
    service: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Build the images of the services from their source, on this workstation."""
    from fabfile.workflows.build_order import Request
    from fabfile.workflows.building import build as run

    services = (
        () if service is None else tuple(name.strip() for name in service.split(",") if name.strip()) or (service,)
    )
    request = Request(env, ROOT, tag, build_type, push, platform, force, services, dry_run, json)
    end_with(lambda: run(request), interrupted=_STOPPED)


@task(
    name="test",
    help={
        "env": "the environment that is meant; none without it",
        "suite": _SUITE,
    },
)
def run_suites(
    context: Any,  # noqa: ARG001
    env: str | None = None,
    suite: str = "all",
) -> None:
    """Run the application's own suites, as services.yaml declares them; exits with 1 when one failed."""
    from fabfile.workflows.suites import Request
    from fabfile.workflows.suites import test as run

    end_with(lambda: run(Request(env, ROOT, suite)), interrupted=_STOPPED)


@task(
    help={
        **_ENV,
        "tag": "the tag of the images; without it one made from Git",
        "suite": f"{_SUITE}; all without it",
        **_BUILD_TYPE,
        "force": "do not ask; build a work tree that differs from its commit",
        "dry-run": "show the plan of every stage, change nothing",
    }
)
def full(
    context: Any,  # noqa: ARG001
    env: str | None = None,
    tag: str = "",
    suite: str = "all",
    build_type: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> None:
    """Build, test, push, deploy, check and watch; stop at the first stage that fails."""
    from fabfile.workflows.full import Request
    from fabfile.workflows.full import full as run

    request = Request(env, ROOT, tag, suite, build_type, force, dry_run)
    end_with(lambda: run(request))


@task(
    help={
        "from": "the environment whose release is good",
        "to": "the environment that gets the very same images",
        "force": "do not ask; deploy again even where nothing changed",
        "dry-run": "show the plan with every command, change nothing",
        "json": COMMON["json"],
    }
)
def promote(
    context: Any,  # noqa: ARG001
    force: bool = False,
    dry_run: bool = False,
    from_: str = "",
    to: str = "",
    json: bool = False,
) -> None:
    """Deploy to one environment the digests that another one has proved good, whatever its tags say now."""
    from fabfile.workflows.promote import Request
    from fabfile.workflows.promote import promote as run

    end_with(lambda: run(Request(from_, to, ROOT, force=force, dry_run=dry_run, json=json)))
