"""The message about the end of a run, from the workstation or from a host whose workstation is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from rolling_upgrade.engine.host_run import RunDocument, RunEnd
from rolling_upgrade.engine.model import HostResult, Notice, Occasion, exit_code
from rolling_upgrade.errors import PROGRAM, ExitCode

#: The phase of the occasion for each exit code; an interrupted run was undone.
PHASES = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "undone",
    ExitCode.INTERRUPTED: "undone",
    ExitCode.LOCKED: "partly",
    ExitCode.PARTLY_DONE: "partly",
    ExitCode.UNDO_FAILED: "failed",
}
#: Lines of each host's cause: the error, then the container's last output.
CAUSE_LINES = 12


def occasion(action: str, code: ExitCode) -> Occasion:
    """Return the occasion of a run that ended with this exit code."""
    return Occasion(f"{action} {PHASES.get(code, 'undone')}")


def cause(host: str, error: str) -> Iterator[str]:
    """Yield the lines of a host's error, the first one with its name."""
    lines = error.strip().splitlines()
    if lines:
        yield lines[0] if lines[0].startswith(host) else f"{host}: {lines[0]}"
        yield from (f"  {line}" for line in lines[1:CAUSE_LINES])


def of_host(document: RunDocument, end: RunEnd) -> Notice | None:
    """Return the message about one host; None for a run that changed nothing and was only cancelled."""
    started, host = document.notice, document.plan.host
    if started is None or (end.result is HostResult.NOT_STARTED and not end.error) or end.observation:
        return None
    lost = end.raised if end.error == "LockLost" else None
    code = exit_code([lost or end.result])
    done = code is ExitCode.DONE
    environment = document.plan.environment
    return replace(
        started,
        occasion=occasion(started.occasion.subject, code),
        at=time.time(),
        hosts=(host,),
        results=() if done else ((host, end.result),),
        seconds=end.seconds,
        cause="\n".join(cause(host, end.message)),
        next_command=f"{PROGRAM} {'history' if done else 'status'} --env {environment} --hosts {host}",
    )
