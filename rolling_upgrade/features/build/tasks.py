"""The task `build`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ON_PROCESSES, task


@task(
    workflow="build",
    isolated=True,
    interrupted=ON_PROCESSES,
    help={
        "env": "environment that names the images; default: DEPLOY_ENV, or any whose env file is here",
        "tag": "tag of the images; default: derived from Git",
        "build-type": "release or debug; default: release",
        "push": "push the images when all are built",
        "platform": "os/arch, or several separated by commas; default: this machine's platform",
        "force": "build a work tree that differs from its commit",
        "service": "only these services, separated by commas; may be repeated",
        "dry-run": "show every command; build nothing",
        "json": "print one JSON object on stdout, progress on stderr",
    },
)
def build(
    context: Any,
    env: str | None = None,
    tag: str = "",
    build_type: str = "",
    push: bool = False,
    platform: str = "",
    force: bool = False,
    service: list[str] | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Build the images of the services from source on this workstation."""
