"""The tasks `observe.render`, `observe.install` and `observe.uninstall`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task

_CHANGES = {"dry-run": "show every command; change nothing"}


@task(workflow="render", help={"output": "output directory; default: observe/ENVIRONMENT"})
def render(context: Any, env: str | None = None, output: str = "") -> None:
    """Write prometheus.yml, alerting.yml, alertmanager.yml, blackbox.yml and a Grafana dashboard."""


@task(workflow="install", help=_CHANGES)
def install(
    context: Any, env: str | None = None, dry_run: bool = False, force: bool = False, json: bool = False
) -> None:
    """Monitor an environment from the monitoring host in hosts.yaml: Prometheus, Alertmanager, probes of the site."""


@task(workflow="uninstall", help=_CHANGES)
def uninstall(
    context: Any, env: str | None = None, dry_run: bool = False, force: bool = False, json: bool = False
) -> None:
    """Remove an environment from the monitoring host; the programs stay."""
