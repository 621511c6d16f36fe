"""Plans: everything that a run does on one host, as data that can be shown before it is executed.

A plan is complete. The executor adds only the facts of the run: the duration of the steps and, for a failure, its
outcome and cause. They reach the script as shell variables; see `history.ending`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from rolling_upgrade.engine import history, lock_file
from rolling_upgrade.engine.image_push import Push
from rolling_upgrade.engine.model import Application, Color, HostResult, Image, Outcome, Release, short_digest
from rolling_upgrade.engine.shell import Script, script


class Change(str, Enum):
    """The change of one service in a plan: none, its first start, or the replacement of its container."""

    KEEP = "keep"
    FIRST = "first"
    REPLACE = "replace"


@dataclass(frozen=True)
class Step:
    """One script on one host, with the script that reverses it and a time limit.

    A step is safe to repeat, and so is its undo. An undo also works when the step stopped half-way. `pushes` are the
    images that the workstation offers to the host while the step runs. Consecutive steps with the same non-empty
    `group` run at the same time. `shows_output` reports each line of output while the step runs.
    """

    id: str
    title: str
    script: Script
    timeout_seconds: float
    undo: Script | None = None
    undo_title: str = ""
    pushes: tuple[Push, ...] = ()
    group: str = ""
    shows_output: bool = False


def step_groups(steps: Iterable[Step]) -> tuple[tuple[Step, ...], ...]:
    """Split steps, in order, into groups that run at the same time. A step without a group runs alone."""
    groups: list[list[Step]] = []
    for step in steps:
        if groups and step.group and groups[-1][-1].group == step.group:
            groups[-1].append(step)
        else:
            groups.append([step])
    return tuple(tuple(group) for group in groups)


@dataclass(frozen=True)
class ServicePlan:
    """One service in a plan: its current and desired image and color, and the other differences."""

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
    """Everything that a run does on one host, in order. A plan without `steps` has nothing to do.

    A plan without `acquire` takes no lock and has no undo, because its steps can be repeated. Setup makes such plans.

    Attributes:
        acquire: acquires the host's lock and observes the host again under it.
        prepare: has no effect on visitors; all hosts finish it before any host continues.
        release: runs on one host of the run, see `one_release`; the steps of all hosts wait for its success.
        steps: may affect visitors; after a failure, the executor undoes the started steps in reverse order.
        finalize: drains the old colors, records the release and releases the lock.
        abort: records the failure and releases the lock, after the undo.
        record: the history line of a run that succeeds.
        result: the host's result in the summary of a run that succeeds.
        home: the application's directory on the host.
    """

    host: str
    action: str
    run_id: str
    services: tuple[ServicePlan, ...] = ()
    notes: tuple[str, ...] = ()
    acquire: tuple[Step, ...] = ()
    prepare: tuple[Step, ...] = ()
    release: tuple[Step, ...] = ()
    steps: tuple[Step, ...] = ()
    finalize: tuple[Step, ...] = ()
    abort: tuple[Step, ...] = ()
    home: str = ""
    environment: str = ""
    record: Release | None = None
    result: HostResult = HostResult.UPGRADED

    @property
    def empty(self) -> bool:
        """Whether the host is already in the desired state."""
        return not self.steps

    @property
    def is_locked(self) -> bool:
        """Whether the run holds the host's lock."""
        return bool(self.acquire)


def one_release(plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """Keep the release command in the first plan that has one: it runs once per run."""
    kept, is_taken = [], False
    for plan in plans:
        kept.append(replace(plan, release=()) if is_taken else plan)
        is_taken = is_taken or bool(plan.release)
    return tuple(kept)


def target(plans: Iterable[Plan]) -> str:
    """The tags of the changed services, or the restored backup; '' when no service changes."""
    plans = tuple(plans)
    restored = [plan.record.target for plan in plans if plan.result is HostResult.RESTORED and plan.record]
    images = [service.wanted for plan in plans for service in plan.services if service.change is not Change.KEEP]
    return ", ".join(dict.fromkeys(restored or [image.tag or short_digest(image.digest) for image in images]))


#: The time limit of a cleanup, which may delete many uploaded files, backups and images.
CLEANUP_SECONDS = 1800


def record_success(
    home: str, release: Release, *, definition: Application | None = None, cleanup: Script = Script("")
) -> Step:
    """Record the release as good, release the lock, then clean up. A failed or slow cleanup never fails the run.

    Args:
        home: the application's directory on the host.
        release: the history line.
        definition: the application that a later rollback to this release restores.
        cleanup: deletes items past their retention.
    """
    body = script(
        history.write_definition(home, release.id, definition) if definition else "",
        history.append(home, release),
        lock_file.release(home, release.id),
        f"(\n{cleanup.text}\n) || echo 'the cleanup did not finish'" if cleanup.text else "",
    )
    return Step("record", "record the release and unlock", body, 120 + (CLEANUP_SECONDS if cleanup.text else 0))


def record_failure(home: str, release: Release) -> Step:
    """Record the release as bad and release the lock, after the undo."""
    body = script(
        history.append(home, replace(release, outcome=Outcome.UNDONE, reason="")), lock_file.release(home, release.id)
    )
    return Step("abandon", "mark the release as bad and unlock", body, 60)
