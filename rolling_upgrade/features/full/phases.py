"""The phases of `inv full`: run them in order up to the first that fails, show them, and write the report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rolling_upgrade.console.text import duration, one_line, table
from rolling_upgrade.engine.local_file import IGNORE_ALL
from rolling_upgrade.engine.masking import safe
from rolling_upgrade.engine.model import Environment
from rolling_upgrade.engine.run_id import new_run_id
from rolling_upgrade.errors import ExitCode, RollingError
from rolling_upgrade.features.build.builder import Log


@dataclass(frozen=True)
class PhaseOutcome:
    """The return value of a phase: its exit code, a detail for the report, and whether it had nothing to do."""

    code: int = ExitCode.DONE
    detail: str = ""
    skipped: bool = False


@dataclass(frozen=True)
class PhaseRecord:
    """One phase in the report; `started_at` is in Unix seconds, 0 if the phase did not run."""

    name: str
    result: str
    started_at: float = 0.0
    seconds: float = 0.0
    exit_code: int = 0
    detail: str = ""


@dataclass
class Phases:
    """The phases of one run; after a failed phase, the others are only listed."""

    log: Log
    log_error: Log
    records: list[PhaseRecord] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The exit code of the failed phase, 0 without one."""
        return next((record.exit_code for record in self.records if record.exit_code), int(ExitCode.DONE))

    def run(self, name: str, work: Callable[[], PhaseOutcome]) -> None:
        """Run one phase unless an earlier one failed. Record every exception; raise all but RollingError again."""
        if self.code:
            self.records.append(PhaseRecord(name, "not run"))
            return
        started_at, clock = time.time(), time.monotonic()
        self.log(f"== {name}")

        def record(result: str, code: int, detail: str) -> None:
            self.records.append(PhaseRecord(name, result, started_at, time.monotonic() - clock, code, detail))

        try:
            outcome = work()
        except RollingError as error:
            self.log_error(str(error))
            record("failed", int(error.exit_code), error.message.splitlines()[0])
        except KeyboardInterrupt:
            record("interrupted", int(ExitCode.INTERRUPTED), "")
            raise
        except BaseException as error:
            record("failed", int(ExitCode.FAILED), f"{type(error).__name__}: {error}")
            raise
        else:
            result = "skipped" if outcome.skipped else "failed" if outcome.code else "done"
            record(result, int(outcome.code), outcome.detail)


def phase_lines(records: Sequence[PhaseRecord], pipeline: str, seconds: float) -> list[str]:
    """Return a table of the phases, then the result of the pipeline."""
    rows = [("PHASE", "RESULT", "SECONDS", "DETAIL")]
    for phase in records:
        took = f"{phase.seconds:.1f}" if phase.started_at else "-"
        rows.append((phase.name, phase.result, took, one_line(phase.detail) or "-"))
    failed = next((phase.name for phase in records if phase.exit_code), "")
    result = f"stopped at {failed}" if failed else "done"
    return ["", *table(rows), "", f"{pipeline}: {result} ({duration(seconds)})"]


def phase_objects(records: Sequence[PhaseRecord]) -> list[dict[str, object]]:
    """Return the JSON objects of the phases."""
    return [
        {
            "stage": phase.name,
            "result": phase.result,
            "began": iso_time(phase.started_at) if phase.started_at else None,
            "seconds": round(phase.seconds, 1),
            "exit_code": phase.exit_code,
            "detail": phase.detail,
        }
        for phase in records
    ]


def write_report(environment: Environment, started_at: float, content: Mapping[str, object]) -> str:
    """Write the report atomically into the environment's report directory and return its path. Raises OSError.

    Git ignores the files of a report directory that this function creates.
    """
    directory = Path(environment.pipeline.reports)
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    if is_new:
        (directory / ".gitignore").write_bytes(IGNORE_ALL)
    path = directory / f"{environment.name}-{new_run_id(started_at)}.json"
    text = safe(json.dumps(content, indent=2, ensure_ascii=False), environment.secrets)
    partial = path.with_suffix(".half")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
    return str(path)


def iso_time(at: float) -> str:
    """Format Unix seconds as an ISO 8601 time."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
