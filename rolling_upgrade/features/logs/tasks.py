"""The task `logs`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(
    workflow="logs",
    help={
        "service": "only these services, separated by commas; may be repeated; also nginx, and units for the "
        "application's systemd units",
        "job": "only these jobs, separated by commas; may be repeated",
        "since": "only newer lines: 90s, 10m, 2h, 1d, or a time such as 2026-11-23T07:00:00",
        "lines": "maximum number of lines of each log; default: 100 without --since; 0: all",
        "follow": "follow the logs across colors and deploys until Ctrl-C (exit code 0)",
        "grep": "only lines that match this regular expression",
        "color": "blue or green; default: the active color",
        "all-colors": "both colors, including a failed candidate that was kept",
    },
)
def logs(
    context: Any,
    service: list[str] | None = None,
    job: list[str] | None = None,
    env: str | None = None,
    hosts: list[str] | None = None,
    since: str = "",
    lines: str = "",
    follow: bool = False,
    grep: str = "",
    color: str = "",
    all_colors: bool = False,
    json: bool = False,
) -> None:
    """Show the logs of the services on all hosts, merged by time, or follow them."""
