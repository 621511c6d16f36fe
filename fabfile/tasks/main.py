"""The tasks an operator uses most: deploy, rollback, status, history. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import COMMON, ROOT, chosen_hosts, end_with
from fabfile.tasks.names import task


@task(
    iterable=["image"],
    help={
        **COMMON,
        "tag": "the image tag to deploy; without it the tag in the env file, or APP_VERSION",
        "batch": "how many hosts at once: N or P%; without it as hosts.yaml says",
        "force": "do not ask; deploy again even where nothing changed",
        "dry-run": "show the plan with every command, change nothing",
        "strict": "an unknown key in the env file is an error",
        "transfer": "pull from the registry, or push from here what a host lacks; without it as hosts.yaml says",
        "image": "with --transfer push: SERVICE=PATH, an image archive or OCI layout; may be given more than once",
    },
)
def deploy(
    context: Any,
    env: str | None = None,
    tag: str = "",
    hosts: str | None = None,
    batch: str = "",
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
    strict: bool = False,
    transfer: str = "",
    image: Any = None,
) -> None:
    """Upgrade the application on its hosts without dropping a request."""
    from fabfile.workflows.deploy import Request
    from fabfile.workflows.deploy import deploy as run

    request = Request(
        env,
        ROOT,
        tag,
        chosen_hosts(context, hosts),
        batch,
        force=force,
        dry_run=dry_run,
        json=json,
        strict=strict,
        transfer=transfer,
        images=tuple(image or ()),
    )
    end_with(lambda: run(request))


@task(
    help={
        **COMMON,
        "to": "a release's id or an image tag; without it the last good release that does not run",
        "restore-db": "put the database back as that release left it; visitors get a 503 page meanwhile",
        "force": "do not ask",
        "dry-run": "show the plan with every command, change nothing",
    }
)
def rollback(
    context: Any,
    env: str | None = None,
    to: str = "",
    restore_db: bool = False,
    hosts: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Go back to the last good release, image and configuration together, without dropping a request."""
    from fabfile.workflows.rollback import Request
    from fabfile.workflows.rollback import rollback as run

    hosts_chosen = chosen_hosts(context, hosts)
    request = Request(env, ROOT, to, restore_db, hosts_chosen, force=force, dry_run=dry_run, json=json)
    end_with(lambda: run(request))


@task(help=COMMON | {"json": "one JSON object on stdout"})
def status(context: Any, env: str | None = None, hosts: str | None = None, json: bool = False) -> None:
    """Show what runs on each host and whether it is well."""
    from fabfile.workflows.status import status as run

    end_with(lambda: run(env, root=ROOT, hosts=chosen_hosts(context, hosts), json=json))


@task(
    help=COMMON
    | {
        "limit": "how many of the newest entries of each host to show; 0 shows all",
        "verify": "check that no line was changed or removed; exits with 1 when one was",
    }
)
def history(
    context: Any,
    env: str | None = None,
    hosts: str | None = None,
    limit: int = 20,
    verify: bool = False,
    json: bool = False,
) -> None:
    """Show what was done on each host, when, by whom and how it ended."""
    from fabfile.workflows.history import history as run

    chosen = chosen_hosts(context, hosts)
    end_with(lambda: run(env, root=ROOT, hosts=chosen, limit=limit, verify=verify, json=json))
