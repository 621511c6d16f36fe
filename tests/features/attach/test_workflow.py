"""`attach` to a run whose lines the host answers."""

from __future__ import annotations

import json

import pytest

from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.host_run import RunEnd
from rolling_upgrade.engine.journal import END, FOLLOWING
from rolling_upgrade.engine.model import HostResult
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.errors import ExitCode
from rolling_upgrade.features.attach.workflow import attach
from tests.support.local_fleet import HELD, answer_with
from tests.support.project import Project


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (RunEnd(HostResult.UPGRADED), ExitCode.DONE),
        (RunEnd(HostResult.UNDONE, error="StepFailed", message="it broke"), ExitCode.FAILED),
        (RunEnd(HostResult.UNKNOWN, error="LockLost", message="another run took over the lock"), ExitCode.LOCKED),
    ],
    ids=["upgraded", "undone", "lock lost"],
)
def test_attach_exits_like_the_run(
    end: RunEnd, code: ExitCode, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "".join(f"{json.dumps(message)}\n" for message in (FOLLOWING, {END: to_plain(end)}))

    def respond(host: str, text: str) -> Answer:
        if "engine.pyz follow" in text:
            return Answer(0, lines)
        return Answer(0, f"now=1000\nexecuting=yes\nstage=no\n{HELD}")

    answer_with(monkeypatch, respond)

    assert attach("demo", root=project.root) is code
    assert end.result.value in capsys.readouterr().out
