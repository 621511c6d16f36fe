"""The task `deploy`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import chosen_hosts, end_with, root, task


@task(
    iterable=["image"],
    help={
        "tag": "the image tag to deploy; without it the tag in the env file, or APP_VERSION",
        "batch": "how many hosts at once: N or P%; without it as hosts.yaml says",
        "force": "do not ask; deploy again even where nothing changed",
        "strict": "an unknown key in the env file is an error",
        "transfer": "pull from the registry, or push from here what a host lacks; without it as hosts.yaml says",
        "image": "with --transfer push: SERVICE=PATH, an image archive or OCI layout; may be given more than once",
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
    from rolling_upgrade.features.deploy import workflow

    end_with(
        lambda: workflow.deploy(
            env,
            root=root(),
            hosts=chosen_hosts(context, hosts),
            tag=tag,
            batch=batch,
            transfer=transfer,
            images=tuple(image or ()),
            strict=strict,
            force=force,
            dry_run=dry_run,
            json=json,
        )
    )
