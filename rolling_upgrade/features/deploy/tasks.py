"""The task `deploy`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(
    workflow="deploy",
    help={
        "tag": "image tag to deploy; default: the tag in the env file, or APP_VERSION",
        "batch": "hosts upgraded at the same time: N or P%; default: rollout.batch in hosts.yaml",
        "force": "skip the confirmation; create new containers even where nothing changed",
        "strict": "treat unknown keys in the env file as errors",
        "transfer": "pull from the registry, or push missing layers from here; default: rollout.transfer in hosts.yaml",
        "image": "with --transfer push: SERVICE=PATH, an image archive or OCI layout; may be repeated",
    },
)
def deploy(
    context: Any,
    env: str | None = None,
    tag: str = "",
    hosts: list[str] | None = None,
    batch: str = "",
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
    strict: bool = False,
    transfer: str = "",
    image: list[str] | None = None,
) -> None:
    """Upgrade the application on its hosts without dropping a request."""
