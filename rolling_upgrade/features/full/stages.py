"""Pipeline stages: run one after the other up to the first that fails, and write the report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rolling_upgrade.engine.local_file import IGNORE_ALL
from rolling_upgrade.engine.masking import safe
from rolling_upgrade.engine.model import Environment, StageResult
from rolling_upgrade.engine.run_id import new_run_id
from rolling_upgrade.errors import ExitCode, RollingError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Done:
    """The result of a stage: its exit code, a detail for the report, and whether it had nothing to do."""

    code: int = ExitCode.DONE
    detail: str = ""
    skipped: bool = False


@dataclass
class Stages:
    """The stages of one run; after the first that fails, the others are only listed."""

    say: Say
    tell_error: Say
    results: list[StageResult] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The exit code of the stage that failed, 0 without one."""
        return next((one.exit_code for one in self.results if one.exit_code), int(ExitCode.DONE))

    def run(self, name: str, work: Callable[[], Done]) -> None:
        """Run one stage unless an earlier one failed. Exceptions other than RollingError are noted and raised again."""
        if self.code:
            self.results.append(StageResult(name, "not run"))
            return
        began, clock = time.time(), time.monotonic()
        self.say(f"== {name}")

        def note(result: str, code: int, detail: str) -> None:
            self.results.append(StageResult(name, result, began, time.monotonic() - clock, code, detail))

        try:
            done = work()
        except RollingError as error:
            self.tell_error(str(error))
            note("failed", int(error.exit_code), error.message.splitlines()[0])
        except KeyboardInterrupt:
            note("interrupted", int(ExitCode.INTERRUPTED), "")
            raise
        except BaseException as error:
            note("failed", int(ExitCode.FAILED), f"{type(error).__name__}: {error}")
            raise
        else:
            result = "skipped" if done.skipped else "failed" if done.code else "done"
            note(result, int(done.code), done.detail)


def write_report(environment: Environment, began: float, content: Mapping[str, object]) -> str:
    """Write the report atomically into the environment's report folder and return its path. Raises OSError.

    Git ignores the files of a folder that this makes.
    """
    folder = Path(environment.pipeline.reports)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if is_new:
        (folder / ".gitignore").write_bytes(IGNORE_ALL)
    path = folder / f"{environment.name}-{new_run_id(began)}.json"
    text = safe(json.dumps(content, indent=2, ensure_ascii=False), environment.secrets)
    half = path.with_suffix(".half")
    half.write_text(text + "\n", encoding="utf-8")
    half.replace(path)
    return str(path)


def stage_objects(results: Sequence[StageResult]) -> list[dict[str, object]]:
    """The stages as JSON objects."""
    return [
        {
            "stage": one.name,
            "result": one.result,
            "began": moment(one.began) if one.began else None,
            "seconds": round(one.seconds, 1),
            "exit_code": one.exit_code,
            "detail": one.detail,
        }
        for one in results
    ]


def moment(at: float) -> str:
    """A time in Unix seconds in ISO format."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
