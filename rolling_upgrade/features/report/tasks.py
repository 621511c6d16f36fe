"""The task `report`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, chosen_hosts, end_with, root, task


@task(
    help=ONE_OBJECT
    | {
        "last": "the last run; the same as without --release",
        "release": "the run with this id, as inv history shows it",
        "html": "write one page for a browser into this file, complete in itself",
        "load": "a file of requests that were sent meanwhile, such as .demo/requests.jsonl",
    }
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
    """Tell how a run passed on each host: what it changed, every step with its time, and the runs before it."""
    from rolling_upgrade.features.report import workflow

    end_with(
        lambda: workflow.report(
            env,
            root=root(),
            hosts=chosen_hosts(context, hosts),
            release=release,
            last=last,
            html=html,
            load=load,
            json=json,
        )
    )
