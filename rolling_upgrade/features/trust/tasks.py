"""The task `trust`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import chosen_hosts, end_with, root, task


@task(
    iterable=["fingerprint", "replace"],
    help={
        "fingerprint": "accept this key alone, without a question: SHA256:…; may be given more than once",
        "replace": "a host whose changed key you have verified; may be given more than once",
        "force": "do not ask: record what hosts offer, unverified; never a changed key",
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
    """Show the host keys and, once confirmed, record new ones in known_hosts; a changed one is refused."""
    from rolling_upgrade.features.trust import workflow

    end_with(
        lambda: workflow.trust(
            env,
            root=root(),
            hosts=chosen_hosts(context, hosts),
            fingerprints=tuple(fingerprint or ()),
            changed=tuple(replace or ()),
            force=force,
        )
    )
