"""Tasks for the lab: real hosts on this machine for the demo and the tests."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import exit_with, task
from rolling_upgrade.errors import ExitCode

_NAME = "name of the lab and of its environment"


@task(
    help={
        "hosts": "number of hosts",
        "release": "trixie (Debian 13) or bookworm (Debian 12); with -bare, a host with nothing but sshd",
        "name": _NAME,
    }
)
def up(context: Any, hosts: int = 2, release: str = "trixie", name: str = "lab") -> None:  # noqa: ARG001
    """Start real Debian hosts and a registry on this machine; safe to repeat."""
    from lab import laboratory

    def start() -> None:
        laboratory.up(hosts, release, name, log=print)

    exit_with(start)


@task(help={"name": _NAME})
def down(context: Any, name: str = "lab") -> None:  # noqa: ARG001
    """Remove a lab: its hosts, registry, network and files."""
    from lab import laboratory

    exit_with(lambda: laboratory.down(name, log=print))


@task
def status(context: Any) -> None:  # noqa: ARG001
    """List the hosts of every lab of this clone."""
    from lab import laboratory

    def show() -> None:
        for line in laboratory.status():
            print(f"{line.lab:<12} {line.host:<10} {line.role:<9} {line.address:<15} {line.state}")

    exit_with(show)


@task(help={"host": "host to log in to, as the deploy user", "name": _NAME}, positional=["host"])
def shell(context: Any, host: str = "web1", name: str = "lab") -> None:  # noqa: ARG001
    """Open a shell on a lab host."""
    from lab import laboratory

    exit_with(lambda: ExitCode.FAILED if laboratory.open_shell(name, host) else ExitCode.DONE)
