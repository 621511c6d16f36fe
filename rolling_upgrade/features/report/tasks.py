"""The task `report`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, task
from rolling_upgrade.errors import PROGRAM


@task(
    workflow="report",
    help=ONE_OBJECT
    | {
        "last": "report the last run, which is the default",
        "release": f"id of the run, as {PROGRAM} history shows it",
        "html": "write a self-contained HTML page to this file",
        "load": "file with the requests sent during the run, such as .demo/requests.jsonl",
    },
)
def report(
    context: Any,
    env: str | None = None,
    hosts: list[str] | None = None,
    last: bool = False,
    release: str = "",
    html: str = "",
    load: str = "",
    json: bool = False,
) -> None:
    """Report a run: the changes on each host, every step with its time, and earlier runs."""
