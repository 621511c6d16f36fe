"""The tasks that keep hosts in order between deploys. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import COMMON, ROOT, WHERE, chosen_hosts, end_with
from fabfile.tasks.names import task


@task(
    positional=["switch"],
    help={
        "switch": "on or off",
        **WHERE,
        "message": "what the page tells visitors, with on",
        "force": "do not ask",
    },
)
def maintenance(
    context: Any, switch: str, env: str | None = None, hosts: str | None = None, message: str = "", force: bool = False
) -> None:
    """Show visitors a maintenance page with 503, or no longer; health paths answer as before."""
    from fabfile.workflows.maintenance import Request
    from fabfile.workflows.maintenance import maintenance as run

    request = Request(env, ROOT, switch, chosen_hosts(context, hosts), message, force=force)
    end_with(lambda: run(request))


@task(
    help={
        **COMMON,
        "force": "do not ask",
        "dry-run": "list what would go, change nothing",
        "json": "one JSON object on stdout",
    }
)
def prune(
    context: Any,
    env: str | None = None,
    hosts: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Delete what is past its retention: images, containers, configurations, backups, journals."""
    from fabfile.workflows.prune import Request
    from fabfile.workflows.prune import prune as run

    request = Request(env, ROOT, chosen_hosts(context, hosts), force=force, dry_run=dry_run, json=json)
    end_with(lambda: run(request))


@task(help={**COMMON, "json": "one JSON object on stdout"})
def doctor(context: Any, env: str | None = None, hosts: str | None = None, json: bool = False) -> None:
    """Look for what is not well here and on the hosts; exits with 3 when a deploy would be refused."""
    from fabfile.workflows.doctor import doctor as run

    end_with(lambda: run(env, root=ROOT, hosts=chosen_hosts(context, hosts), json=json))
