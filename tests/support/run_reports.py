"""Records of runs for reports: a successful one, an undone one, and one with hostile texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rolling_upgrade.engine.history import Fault
from rolling_upgrade.engine.model import Color, Outcome, Release, ServiceRelease, StepRecord
from rolling_upgrade.features.history.workflow import HostHistory
from rolling_upgrade.features.report.run_report import Requests, RunRecord, RunReport, TimedRequest, run_report

AT = 1_795_500_000.0


def service(tag: str, digest: str, spec: str = "s", color: Color = Color.GREEN) -> ServiceRelease:
    return ServiceRelease(f"r.test/shop/backend:{tag}", "sha256:" + digest * 64, color, spec, "abc123")


FIRST = Release(
    "20261124T080000Z-aaaaaa",
    "2026-11-24T08:00:00+00:00",
    "deploy",
    Outcome.GOOD,
    (("backend", service("v1", "a", color=Color.BLUE)),),
    "ann",
    seconds=21.0,
    workstation="laptop",
    revision="f00d",
    key="SHA256:xyz",
    client="192.0.2.7",
)
SECOND = replace(FIRST, id="20261124T090000Z-bbbbbb", services=(("backend", service("v2", "b")),), seconds=12.5)
BAD = replace(
    FIRST,
    id="20261124T100000Z-cccccc",
    outcome=Outcome.UNDONE,
    services=(("backend", service("v3", "c", color=Color.BLUE)),),
    reason="backend: the gate failed",
)
STEPS = (
    StepRecord("backup", AT, AT + 0.4, 0),
    StepRecord("backend.start", AT + 0.5, AT + 3.0, 0, ("started",)),
    StepRecord("backend.cutover", AT + 3.0, AT + 4.0, 0),
)
FAILED = (StepRecord("backup", AT, AT + 0.4, 0), StepRecord("backend.start", AT + 0.5, AT + 9.0, 1, ("it said", "503")))
LOAD = Requests(
    tuple(TimedRequest(AT + number / 50, 5.0 + number % 40, number not in (160, 161)) for number in range(300))
)
HOSTILE = "<script>alert(1)</script>]]>\"' & \u202e {{ 7 * 7 }} " + "x" * 300


def record(run: Release = SECOND, **changes: Any) -> RunRecord:
    """Return the record of a run on web1; the history of BAD has two earlier runs."""
    releases = (FIRST, SECOND, BAD) if run is BAD else (FIRST, SECOND)
    steps = FAILED if run is BAD else STEPS
    fields: dict[str, Any] = {
        "environment": "production",
        "run": run.id,
        "histories": {"web1": HostHistory(releases, key_names={"SHA256:xyz": "ann-laptop"})},
        "steps": {"web1": steps},
        "unreachable": {},
    }
    return RunRecord(**fields | changes)


def hostile() -> RunReport:
    """Return a report whose every text from a host is hostile."""
    run = replace(
        BAD, reason=HOSTILE, owner=HOSTILE, workstation=HOSTILE, revision=HOSTILE, key=HOSTILE, target=HOSTILE
    )
    run = replace(run, services=((HOSTILE, service(HOSTILE, "d")),))
    steps = (StepRecord(HOSTILE, AT, AT + 1, 1, (HOSTILE, HOSTILE)), StepRecord("open", AT + 1))
    histories = {HOSTILE: HostHistory((FIRST, run), faults=(Fault(1, "x"),))}
    return run_report(RunRecord(HOSTILE, run.id, histories, {HOSTILE: steps}, {HOSTILE: HOSTILE}, LOAD))
