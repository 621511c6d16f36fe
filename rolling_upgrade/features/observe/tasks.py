"""The tasks `observe.render`, `observe.install` and `observe.uninstall`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import exit_with, root, task

_CHANGES = {"dry-run": "show every command; change nothing"}


@task(help={"output": "output directory; default: observe/ENVIRONMENT"})
def render(context: Any, env: str | None = None, output: str = "") -> None:  # noqa: ARG001
    """Write prometheus.yml, alerting.yml, alertmanager.yml, blackbox.yml and a Grafana dashboard."""
    from rolling_upgrade.features.observe import workflow

    exit_with(lambda: workflow.render(env, root=root(), output=output))


@task(help=_CHANGES)
def install(
    context: Any,  # noqa: ARG001
    env: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Monitor an environment from the monitoring host in hosts.yaml: Prometheus, Alertmanager, probes of the site."""
    from rolling_upgrade.features.observe import workflow

    exit_with(lambda: workflow.install(env, root=root(), dry_run=dry_run, force=force, json=json))


@task(help=_CHANGES)
def uninstall(
    context: Any,  # noqa: ARG001
    env: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Remove an environment from the monitoring host; the programs stay."""
    from rolling_upgrade.features.observe import workflow

    exit_with(lambda: workflow.uninstall(env, root=root(), dry_run=dry_run, force=force, json=json))
