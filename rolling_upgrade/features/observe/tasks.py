"""The tasks for what watches an environment from outside: Prometheus, alerts, Grafana. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import COMMON, ROOT, WHERE, end_with
from fabfile.tasks.names import task

_ENV = {"env": WHERE["env"]}
_CHANGING = _ENV | {
    "dry-run": "show every command, change nothing",
    "force": "do not ask",
    "json": COMMON["json"],
}


@task(name="render", help=_ENV | {"output": "the folder to write them to; without it observe/ENVIRONMENT"})
def write(context: Any, env: str | None = None, output: str = "") -> None:  # noqa: ARG001
    """Write prometheus.yml, alerting.yml, alertmanager.yml, blackbox.yml and a dashboard for Grafana."""
    from fabfile.workflows.observe import Request
    from fabfile.workflows.observe import write as run

    end_with(lambda: run(Request(env, ROOT, output)))


@task(help=_CHANGING)
def install(
    context: Any,  # noqa: ARG001
    env: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Have the monitoring host of hosts.yaml watch an environment: Prometheus, Alertmanager, probes of the site."""
    from fabfile.workflows.observe import Request
    from fabfile.workflows.observe import install as run

    end_with(lambda: run(Request(env, ROOT, dry_run=dry_run, force=force, json=json)))


@task(help=_CHANGING)
def uninstall(
    context: Any,  # noqa: ARG001
    env: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Have the monitoring host forget an environment; the programs stay."""
    from fabfile.workflows.observe import Request
    from fabfile.workflows.observe import uninstall as run

    end_with(lambda: run(Request(env, ROOT, dry_run=dry_run, force=force, json=json)))
