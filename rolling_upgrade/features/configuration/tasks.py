"""The tasks `config.check` and `config.show`. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import COMMON, ROOT, chosen_hosts, end_with
from fabfile.tasks.names import task


@task(
    help={
        "env": "only this environment; without it all of them",
        "strict": "an unknown key in an env file is a mistake",
    }
)
def check(context: Any, env: str | None = None, strict: bool = False) -> None:  # noqa: ARG001
    """Find every mistake in the configuration; contacts nothing, exits with 2 when there is one."""
    from fabfile.workflows.configuration import check as run

    end_with(lambda: run(env, root=ROOT, strict=strict))


@task(help={**COMMON, "tag": "as a deploy of this image tag would have it", "json": "one JSON object on stdout"})
def show(context: Any, env: str | None = None, hosts: str | None = None, tag: str = "", json: bool = False) -> None:
    """Show every effective value and where it came from, secrets masked; contacts nothing."""
    from fabfile.workflows.configuration import show as run

    end_with(lambda: run(env, root=ROOT, hosts=chosen_hosts(context, hosts), tag=tag, json=json))
