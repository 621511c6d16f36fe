"""The tasks `exec`, `run` and `shell`."""

from __future__ import annotations

import sys
from typing import Any

from invoke.exceptions import Exit

from rolling_upgrade.console.task import exit_with, root, selected_hosts, task


@task(name="exec", help={"service": "service to run it in; default: the first in services.yaml"})
def execute(context: Any, env: str | None = None, service: str = "", hosts: list[str] | None = None) -> None:
    """Run the command after `--` in the active container of each host. Standard input is passed on."""
    from rolling_upgrade.features.exec import workflow

    command, chosen = _remainder(), selected_hosts(context, hosts)
    exit_with(lambda: workflow.execute(env, command, root=root(), hosts=chosen, service=service))
    # `fab` would run the words after `--` as a remote command; exiting here prevents that.
    raise Exit(code=0)


@task(
    name="run",
    help={
        "hosts": "the host; default: the first one with the service",
        "service": "service whose image, environment and mounts it gets; default: the first in services.yaml",
        "entrypoint": "program that replaces the image's entrypoint; '' for none",
    },
)
def run_once(
    context: Any,
    env: str | None = None,
    service: str = "",
    hosts: list[str] | None = None,
    entrypoint: str | None = None,
) -> None:
    """Run the command after `--` in a new container of the current release, which is removed at the end."""
    from rolling_upgrade.features.exec import workflow

    command, chosen = _remainder(), selected_hosts(context, hosts)
    exit_with(
        lambda: workflow.run(env, command, root=root(), hosts=chosen, service=service, entrypoint=entrypoint),
    )
    raise Exit(code=0)


@task(
    workflow="shell",
    help={"hosts": "the host", "service": "service to open the shell in; default: the first in services.yaml"},
)
def shell(context: Any, env: str | None = None, service: str = "", hosts: list[str] | None = None) -> None:
    """Open a shell in the active container of one host."""


def _remainder() -> tuple[str, ...]:
    """Return the words after `--`; Invoke's own remainder joins them with spaces."""
    return tuple(sys.argv[sys.argv.index("--") + 1 :]) if "--" in sys.argv else ()
