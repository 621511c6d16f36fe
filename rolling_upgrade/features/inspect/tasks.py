"""The task `inspect`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, exit_with, root, selected_hosts, split_words, task


@task(
    iterable=["service"],
    help=ONE_OBJECT | {"service": "only these services, separated by commas; may be repeated"},
)
def inspect(
    context: Any,
    service: list[str] | None = None,
    env: str | None = None,
    hosts: list[str] | None = None,
    json: bool = False,
) -> None:
    """Show one page per host: containers, ports, images, resources, health, logs, the last run."""
    from rolling_upgrade.features.inspect import workflow

    chosen, services = selected_hosts(context, hosts), split_words(service)
    exit_with(lambda: workflow.inspect(env, root=root(), hosts=chosen, services=services, json=json))
