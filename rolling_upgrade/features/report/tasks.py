"""The task that reports a run. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import ROOT, WHERE, chosen_hosts, end_with
from fabfile.tasks.names import task


@task(
    help={
        **WHERE,
        "last": "the last run; the same as without --release",
        "release": "the run with this id, as inv history shows it",
        "html": "write one page for a browser into this file, complete in itself",
        "load": "a file of requests that were sent meanwhile, such as .demo/requests.jsonl",
        "json": "one JSON object on stdout",
    }
)
def report(
    context: Any,
    env: str | None = None,
    hosts: str | None = None,
    last: bool = False,
    release: str = "",
    html: str = "",
    load: str = "",
    json: bool = False,
) -> None:
    """Tell how a run passed on each host: what it changed, every step with its time, and the runs before it."""
    from fabfile.workflows.report import Request
    from fabfile.workflows.report import report as run

    request = Request(env, ROOT, chosen_hosts(context, hosts), release, last, html, load, json)
    end_with(lambda: run(request))
