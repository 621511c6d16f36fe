"""The tasks `config.check` and `config.show`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, chosen_hosts, end_with, root, task


@task(
    help={
        "env": "only this environment; without it all of them",
        "strict": "an unknown key in an env file is a mistake",
    }
)
def check(context: Any, env: str | None = None, strict: bool = False) -> None:  # noqa: ARG001
    """Find every mistake in the configuration; contacts nothing, exits with 2 when there is one."""
    from rolling_upgrade.features.configuration import workflow

    end_with(lambda: workflow.check(env, root=root(), strict=strict))


@task(help=ONE_OBJECT | {"tag": "as a deploy of this image tag would have it"})
def show(
    context: Any, env: str | None = None, hosts: list[str] | None = None, tag: str = "", json: bool = False
) -> None:
    """Show every effective value and where it came from, secrets masked; contacts nothing."""
    from rolling_upgrade.features.configuration import workflow

    end_with(lambda: workflow.show(env, root=root(), hosts=chosen_hosts(context, hosts), tag=tag, json=json))
