"""How a run ends on a host: the last step, good or bad. Pure."""

from __future__ import annotations

from dataclasses import replace

from fabfile.commands import definition, lock, record
from fabfile.commands.shell import script
from fabfile.model import Outcome
from fabfile.plans.step import Plan, Step

#: How long deleting may take: many uploaded files, backups, images.
TIDY_SECONDS = 1800


def finish(plan: Plan, seconds: float) -> Step:
    """Record the release as good, free the host, tidy up; a tidying that fails, or takes long, fails no run."""
    if plan.record is None:
        raise ValueError(f"the plan of {plan.host} has nothing to record")
    body = script(
        definition.write(plan.home, plan.release, plan.definition) if plan.definition else "",
        record.append(plan.home, replace(plan.record, seconds=seconds)),
        lock.release(plan.home, plan.release),
        f"(\n{plan.tidy.text}\n) || echo 'tidying up did not finish'" if plan.tidy.text else "",
    )
    return Step("record", "record the release and unlock", body, 120 + (TIDY_SECONDS if plan.tidy.text else 0))


def abandon(plan: Plan, outcome: Outcome, reason: str, seconds: float) -> Step:
    """Mark the release as bad and free the host, after its undo."""
    if plan.record is None:
        raise ValueError(f"the plan of {plan.host} has nothing to record")
    line = replace(plan.record, outcome=outcome, reason=reason[:500], seconds=seconds)
    body = script(record.append(plan.home, line), lock.release(plan.home, plan.release))
    return Step("abandon", "mark the release as bad and unlock", body, 60)
