"""The task `trust`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(
    workflow="trust",
    help={
        "fingerprint": "accept exactly this key without asking: SHA256:…; may be repeated",
        "replace": "host whose changed key you have verified; may be repeated",
        "force": "skip the confirmation: record offered keys unverified; never a changed key",
    },
)
def trust(
    context: Any,
    env: str | None = None,
    hosts: list[str] | None = None,
    force: bool = False,
    fingerprint: list[str] | None = None,
    replace: list[str] | None = None,
) -> None:
    """Show the host keys and record new ones in known_hosts once confirmed; refuses changed keys."""
