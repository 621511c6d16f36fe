"""The locks of hosts: status, acquire, release. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import ROOT, WHERE, chosen_hosts, end_with
from fabfile.tasks.names import task


@task(help={**WHERE, "json": "one JSON object on stdout"})
def status(context: Any, env: str | None = None, hosts: str | None = None, json: bool = False) -> None:
    """Show who holds each host, why, since when and for how long."""
    from fabfile.workflows.locks import Request
    from fabfile.workflows.locks import status as run

    end_with(lambda: run(Request(env, ROOT, chosen_hosts(context, hosts), json=json)))


@task(help={**WHERE, "reason": "what for: whoever is refused reads it", "for": "how long: 30m, 2h, 1d; 1h without it"})
def acquire(context: Any, env: str | None = None, reason: str = "", hosts: str | None = None, for_: str = "1h") -> None:
    """Keep deploys away from hosts while you work on them by hand; again, it renews."""
    from fabfile.workflows.locks import Request
    from fabfile.workflows.locks import acquire as run

    end_with(lambda: run(Request(env, ROOT, chosen_hosts(context, hosts), reason, for_)))


@task(help={**WHERE, "force": "free another's lock, or a run's, too; a stage that runs is let end"})
def release(context: Any, env: str | None = None, hosts: str | None = None, force: bool = False) -> None:
    """Free what you locked by hand."""
    from fabfile.workflows.locks import Request
    from fabfile.workflows.locks import release as run

    end_with(lambda: run(Request(env, ROOT, chosen_hosts(context, hosts), force=force)))
