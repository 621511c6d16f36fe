"""Executes runs of fake hosts in this process: the real code of a host, with a function that answers scripts."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from rolling_upgrade.engine import journal
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.host_run import RunDocument, RunEnd, RunExecutor
from rolling_upgrade.engine.journal import CANCEL, Words
from rolling_upgrade.engine.model import Event
from rolling_upgrade.engine.plan import Plan, Step, step_groups
from rolling_upgrade.engine.progress import Progress
from rolling_upgrade.engine.serialization import from_plain, to_plain
from rolling_upgrade.engine.shell import Script, direct
from rolling_upgrade.errors import ConnectionDropped, HostUnreachable, RollingError

#: Answers the text of a script; `# step ID` is the first line of a step's text.
Respond = Callable[[str], Answer]
#: Writes to a script.
Send = Callable[[bytes], None]
_PLAN = re.compile(r"printf %s (\S+) \| write \S+/plan\.json")


def is_run(text: str) -> bool:
    """Return whether a script starts a run."""
    return _PLAN.search(text) is not None


def step_of(text: str) -> str:
    """Return the id of the step that a script belongs to, or ''."""
    found = re.match(r"# step (\S+)\n", text)
    return found[1] if found else ""


def document_of(text: str) -> RunDocument:
    """Return the document in a script that starts a run."""
    found = _PLAN.search(text)
    assert found is not None
    document: RunDocument = from_plain(RunDocument, json.loads(base64.b64decode(found[1].strip("'"))))
    return document


def execute(
    text: str,
    respond: Respond,
    on_output: Callable[[bytes], None],
    on_open: Callable[[Send], None],
    *,
    clock: Callable[[], float] = time.time,
    interrupted: threading.Event | None = None,
) -> int:
    """Execute the run that a script starts, as the host would, and return the exit status of its follower.

    Once `interrupted` is set, each step ends only after the run has received `cancel`.
    """
    document = document_of(text)
    words, lock = Words(), threading.Lock()

    def write(message: dict[str, Any]) -> None:
        with lock:
            on_output(json.dumps(message).encode() + b"\n")

    def receive(data: bytes) -> None:
        for word in data.decode().split():
            words.add(word)

    def report(event: Event) -> None:
        write({"event": to_plain(event)})

    on_open(receive)
    write(journal.FOLLOWING)
    runner = _Runner(document.plan, respond, words, interrupted)
    context = RunContext(document.plan.run_id, document.lease_seconds, report, clock, words.cancelled)
    run = RunExecutor(
        document, _Host(document.plan.host, respond), runner, words, context, lambda name: write({"state": name})
    )
    try:
        end: RunEnd = run.execute()
    except _Lost as lost:
        raise lost.error from None
    write({journal.END: to_plain(end)})
    return 0


class _Lost(BaseException):
    """The connection was lost: the follower ends, whatever becomes of the run."""

    def __init__(self, error: RollingError) -> None:
        self.error = error


class _Host:
    """Passes the scripts that are no steps to the function."""

    def __init__(self, name: str, respond: Respond) -> None:
        self.name, self._respond = name, respond

    def run(self, script: Script, *, timeout_seconds: float, cancelled: threading.Event | None = None) -> Answer:
        return self._respond(script.text)

    def close(self) -> None:
        """Hold no connection."""


class _Runner:
    """Passes the steps to the function; those that run at the same time one after the other, in the plan's order."""

    def __init__(self, plan: Plan, respond: Respond, words: Words, interrupted: threading.Event | None) -> None:
        self._respond, self._words, self._interrupted = respond, words, interrupted
        groups = [[step.id for step in group] for group in step_groups(plan.steps)]
        self._earlier = {step: group[:place] for group in groups for place, step in enumerate(group)}
        self._answered = {step: threading.Event() for step in self._earlier}

    def renew(self, seconds: float = 0.0) -> str:
        return ""

    def run(self, step: Step, *, stop: Callable[[], bool], on_progress: Callable[[Progress], None]) -> Answer:
        for earlier in self._earlier.get(step.id, ()):
            assert self._answered[earlier].wait(10)
        try:
            answer = self._respond(f"# step {step.id}\n{direct(step.script).text}")
        except (ConnectionDropped, HostUnreachable) as error:
            raise _Lost(error) from None
        finally:
            self._answered.get(step.id, threading.Event()).set()
        if self._interrupted is not None and self._interrupted.is_set():
            assert self._words.cancelled.wait(10), f"no {CANCEL} arrived"
        return answer
