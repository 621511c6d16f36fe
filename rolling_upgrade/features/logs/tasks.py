"""The task `logs`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import chosen_hosts, end_with, root, task, words_of


@task(
    iterable=["service"],
    help={
        "service": "only these services, separated by commas; may be given more than once; also nginx, and "
        "units for the application's systemd units",
        "since": "90s, 10m, 2h, 1d or a time such as 2026-11-23T07:00:00",
        "lines": "how many lines of each log at the most; 100 without --since, 0 for all",
        "follow": "go on as lines come, from color to color, until Ctrl-C (exit 0)",
        "grep": "only lines in which this regular expression is found",
        "color": "blue or green instead of the color that serves",
        "all-colors": "both colors, a failed candidate that was kept too",
    },
)
def logs(
    context: Any,
    service: list[str] | None = None,
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
    """Show what the services of all hosts log, merged by time, or follow it."""
    from rolling_upgrade.features.logs import workflow

    end_with(
        lambda: workflow.logs(
            env,
            root=root(),
            hosts=chosen_hosts(context, hosts),
            services=words_of(service),
            since=since,
            lines=lines,
            grep=grep,
            color=color,
            all_colors=all_colors,
            follow=follow,
            json=json,
        )
    )
