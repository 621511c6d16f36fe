"""The shapes of a plan: steps, what changes per service, and the plan of one host. It decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fabfile.commands.shell import Script
from fabfile.commands.transfer import Push
from fabfile.model import Application, Color, HostResult, Image, Release


class Change(str, Enum):
    """What a plan does with one service: nothing, start it where nothing serves, or replace what serves."""

    KEEP = "keep"
    FIRST = "first"
    REPLACE = "replace"


@dataclass(frozen=True)
class Step:
    """One script on one host: what it is called, what it does, what reverses it, how long it may take.

    A step is safe to repeat, and so is its undo; an undo also works when the step stopped half-way. `pushes` are images
    that the workstation offers to the host while it runs.
    """

    id: str
    title: str
    script: Script
    timeout_seconds: float
    undo: Script | None = None
    undo_title: str = ""
    pushes: tuple[Push, ...] = ()


@dataclass(frozen=True)
class ServicePlan:
    """One service in a plan: from which image and color to which, and what else differs."""

    service: str
    change: Change
    wanted: Image
    color: Color
    current: Image | None = None
    current_color: Color | None = None
    env_changes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All that a run will do on one host, in order.

    `lock` comes first. `prepare` runs on every host before any host goes on (the barrier); `steps` change what
    visitors get and are undone in reverse when one fails; `finish` records and frees the host. No `steps` means:
    nothing to do. `record` is the history line as it will be if all goes well, `home` the application's directory,
    `tidy` what retention deletes afterwards, `definition` the application that a later rollback can come back to,
    `result` what the host's line in the summary says when all went well.
    """

    host: str
    action: str
    release: str
    services: tuple[ServicePlan, ...] = ()
    notes: tuple[str, ...] = ()
    lock: tuple[Step, ...] = ()
    prepare: tuple[Step, ...] = ()
    steps: tuple[Step, ...] = ()
    finish: tuple[Step, ...] = ()
    home: str = ""
    environment: str = ""
    record: Release | None = None
    tidy: Script = Script("")
    definition: Application | None = None
    result: HostResult = HostResult.UPGRADED

    @property
    def empty(self) -> bool:
        """Whether the host already is as wanted."""
        return not self.steps

    @property
    def longest_seconds(self) -> float:
        """How long the steps may take at the most, undo included."""
        return 2 * sum(step.timeout_seconds for step in self.steps)
