"""Stages one after the other up to the first that fails, each with its time; and the report that is left of them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fabfile.errors import ExitCode, RollingError
from fabfile.model import Environment, StageResult
from fabfile.report import safe

Say = Callable[[str], None]


@dataclass(frozen=True)
class Done:
    """How a stage ended by its own account: its exit code, what to tell of it, and whether it had nothing to do."""

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
        """The exit code of the stage that failed, 0 where none did."""
        return next((one.exit_code for one in self.results if one.exit_code), int(ExitCode.DONE))

    def run(self, name: str, work: Callable[[], Done]) -> None:
        """Run one stage unless one before it failed. Raises what is no RollingError, once it is noted."""
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
    """Write the report of a run into the environment's folder for them, whole or not at all; hand back its path.

    Raises OSError.
    """
    folder = Path(environment.pipeline.reports)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.fromtimestamp(began, UTC).strftime("%Y%m%dT%H%M%SZ")
    path = folder / f"{environment.name}-{stamp}-{secrets.token_hex(3)}.json"
    text = safe(json.dumps(content, indent=2, ensure_ascii=False), environment.secrets)
    half = path.with_suffix(".half")
    half.write_text(text + "\n", encoding="utf-8")
    half.replace(path)
    return str(path)


def stage_objects(results: Sequence[StageResult]) -> list[dict[str, object]]:
    """The stages for a program."""
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
    """A time in Unix seconds as people and programs read it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
