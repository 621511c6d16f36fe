"""The tasks that keep hosts in order between deploys. Signatures and help only."""

from __future__ import annotations

from typing import Any

from invoke.tasks import task

from fabfile.tasks.ending import COMMON, ROOT, chosen_hosts, end_with

_WHERE = {key: COMMON[key] for key in ("env", "hosts")}


@task(
    positional=["switch"],
    help={
        "switch": "on or off",
        **_WHERE,
        "message": "what the page tells visitors, with on",
        "force": "do not ask",
    },
)
def maintenance(
    context: Any, switch: str, env: str | None = None, hosts: str = "", message: str = "", force: bool = False
) -> None:
    """Show visitors a maintenance page with 503, or no longer; health paths answer as before."""
    from fabfile.workflows.maintenance import Request
    from fabfile.workflows.maintenance import maintenance as run

    request = Request(env, ROOT, switch, chosen_hosts(context, hosts), message, force=force)
    end_with(lambda: run(request))
