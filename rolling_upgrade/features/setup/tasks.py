"""The tasks that prepare hosts and take an application off them: setup, teardown. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import COMMON, ROOT, chosen_hosts, end_with
from fabfile.tasks.names import task


@task(
    default=True,
    help={
        **COMMON,
        "dry-run": "show what is missing with every command, change nothing",
        "force": "do not ask",
    },
)
def setup(
    context: Any,
    env: str | None = None,
    hosts: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Prepare hosts for deploys, from a bare Debian or Ubuntu on; does what is missing, and a second time nothing."""
    from fabfile.workflows.setup import Request
    from fabfile.workflows.setup import setup as run

    request = Request(env, ROOT, chosen_hosts(context, hosts), dry_run=dry_run, force=force, json=json)
    end_with(lambda: run(request))


@task(help=COMMON)
def check(context: Any, env: str | None = None, hosts: str | None = None, json: bool = False) -> None:
    """Show what of a prepared host is missing or was changed, change nothing; exits with 1 when anything is."""
    from fabfile.workflows.setup import Request
    from fabfile.workflows.setup import setup as run

    end_with(lambda: run(Request(env, ROOT, chosen_hosts(context, hosts), check=True, json=json)))


@task(
    help={
        **COMMON,
        "data": "delete its data and backups as well",
        "confirm": "the application's name, where there is no terminal to type it on",
        "dry-run": "show what would go with every command, change nothing",
    }
)
def teardown(
    context: Any,
    env: str | None = None,
    hosts: str | None = None,
    dry_run: bool = False,
    data: bool = False,
    confirm: str = "",
    json: bool = False,
) -> None:
    """Take the application off its hosts, all that setup and deploys made; packages, users and data stay."""
    from fabfile.workflows.setup import Request
    from fabfile.workflows.setup import teardown as run

    where = chosen_hosts(context, hosts)
    end_with(lambda: run(Request(env, ROOT, where, dry_run=dry_run, json=json, data=data, confirmed=confirm)))
