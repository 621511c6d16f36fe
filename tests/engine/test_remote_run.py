"""A run as the workstation sees it: words, reconnects, the engine, and hosts that answer nonsense."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine import journal, remote_run
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.host_run import LOCKED, RunDocument
from rolling_upgrade.engine.journal import CANCEL, DIED_STATUS, GO, PREPARE, SEEN
from rolling_upgrade.engine.model import Event, HostResult, Phase
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.remote_run import RemoteRun
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import ConnectionDropped, HostUnreachable, PreflightError, RollingError
from tests.support.scripted_host import three_steps

DOCUMENT = RunDocument(three_steps(), "", "shop", 60)
FOLLOWING = json.dumps(journal.FOLLOWING)
STATE = json.dumps({"state": LOCKED})
EVENT = json.dumps({"event": to_plain(Event(1.0, Phase.DONE, "do a", "another host", "a"))})
ENDED = json.dumps({"end": {"result": "upgraded", "seconds": 3}})
DROPPED = ConnectionDropped("web1: the connection dropped.")


class Stream:
    """One execution of a run's script: the lines that it prints, and its exit status or an error."""

    def __init__(self, *lines: str, end: int | Exception = 0, words: Sequence[str] = ()) -> None:
        self.lines, self.end, self.words = lines, end, words


class FakeHost:
    """Plays executions one after the other; each waits for its words after its first line."""

    name = "web1"

    def __init__(self, *streams: Stream) -> None:
        self._streams = iter(streams)
        self.scripts: list[str] = []
        self.received: list[str] = []
        self._changed = threading.Condition()

    def run(self, script: Script, *, timeout_seconds: float, cancelled: threading.Event | None = None) -> Answer:
        raise AssertionError("nothing else runs")

    def stream(
        self,
        script: Script,
        on_output: Callable[[bytes], None],
        on_errors: Callable[[bytes], None],
        *,
        timeout_seconds: float = 0,
        cancelled: threading.Event | None = None,
        on_open: Callable[[Callable[[bytes], None]], None] = lambda _: None,
        shell: str = "",
    ) -> int:
        self.scripts.append(script.text)
        stream = next(self._streams)
        on_open(self._receive)
        for line in stream.lines:
            on_output(f"{line}\n".encode())
            with self._changed:
                assert self._changed.wait_for(lambda: set(stream.words) <= set(self.received), 10)
        on_errors(b"the reason")
        if isinstance(stream.end, Exception):
            raise stream.end
        return stream.end

    def _receive(self, data: bytes) -> None:
        with self._changed:
            self.received += data.decode().split()
            self._changed.notify_all()

    def close(self) -> None:
        """Hold no connection."""


class Scene:
    def __init__(self, *streams: Stream) -> None:
        self.host, self.events = FakeHost(*streams), list[Event]()
        self.context = RunContext("r2", 60, self.events.append)
        self.remote = RemoteRun(self.host, DOCUMENT, b"engine", self.context)


def error_of(scene: Scene) -> RollingError:
    scene.remote.start()
    end = scene.remote.end()
    assert end.result is HostResult.UNKNOWN
    error = end.raised
    assert error is not None
    return error


def test_follow_forwards_events_with_the_hosts_own_name_and_confirms_the_end() -> None:
    scene = Scene(Stream(FOLLOWING, EVENT, STATE, ENDED))
    scene.remote.start()

    assert scene.remote.end().result is HostResult.UPGRADED
    assert [(event.host, event.step) for event in scene.events] == [("web1", "a")]
    assert scene.host.received == [SEEN]


def test_wait_for_a_state_returns_before_the_end() -> None:
    scene = Scene(Stream(FOLLOWING, STATE, ENDED, words=[PREPARE]))
    scene.remote.send(PREPARE)
    scene.remote.start()

    scene.remote.wait_for(LOCKED)
    assert scene.remote.end().result is HostResult.UPGRADED


def test_words_are_repeated_after_a_reconnect_which_continues_after_the_last_event() -> None:
    scene = Scene(Stream(FOLLOWING, STATE, end=DROPPED, words=[GO]), Stream(FOLLOWING, ENDED, words=[GO]))
    scene.remote.send(GO)
    scene.remote.start()

    assert scene.remote.end().result is HostResult.UPGRADED
    assert scene.host.received == [GO, GO, SEEN]
    assert f" {len(STATE) + 1} <&3" in scene.host.scripts[1]
    assert "Reconnecting." in scene.events[0].title


def test_a_host_that_stays_away_has_an_unknown_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_run, "RECONNECT_SECONDS", -1)
    away = HostUnreachable("web1: no route to host.")
    error = error_of(Scene(Stream(FOLLOWING, STATE, end=DROPPED), *[Stream(end=away)] * 3))

    assert "the outcome is unknown" in error.message
    assert error.next_step == "rolling-upgrade attach --env production, once the host answers"


def test_a_host_that_was_never_reached_keeps_its_error() -> None:
    error = error_of(Scene(Stream(end=HostUnreachable("web1: no route to host."))))

    assert error.message == "web1: no route to host."


def test_the_engine_is_brought_once_when_the_host_lacks_it() -> None:
    scene = Scene(Stream(end=remote_run.NO_ENGINE_STATUS), Stream(FOLLOWING, ENDED))
    scene.remote.start()

    assert scene.remote.end().result is HostResult.UPGRADED
    assert ["ZW5naW5l" in text for text in scene.host.scripts] == [False, True]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (remote_run.DAMAGED_STATUS, "the engine on the host is damaged"),
        (remote_run.NO_PYTHON_STATUS, "python3 is missing or older than 3.10"),
        (1, "the reason"),
    ],
)
def test_a_run_that_cannot_start_touches_nothing(status: int, words: str) -> None:
    error = error_of(Scene(Stream(end=status)))

    assert isinstance(error, PreflightError)
    assert f"nothing was touched: {words}" in error.message


def test_a_killed_executor_is_started_again_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Event, "wait", lambda *_: False)
    scene = Scene(*[Stream(FOLLOWING, end=DIED_STATUS)] * 9)

    assert "the run was killed on the host" in error_of(scene).message
    assert len(scene.host.scripts) == 4


@pytest.mark.parametrize("line", ["nonsense", '{"event": {"at": "soon"}}', '{"end": {"result": "fine"}}', "[" * 99])
def test_a_malformed_line_ends_the_run_for_the_workstation(line: str) -> None:
    scene = Scene(Stream(FOLLOWING, line))

    assert "malformed" in error_of(scene).message
    assert len(scene.host.scripts) == 1


def test_an_endless_line_ends_the_run_for_the_workstation() -> None:
    scene = Scene(Stream(FOLLOWING, "x" * (2 << 20)))

    assert error_of(scene).message.startswith("web1: its run reports")


def test_ctrl_c_sends_cancel() -> None:
    scene = Scene(Stream(FOLLOWING, STATE, ENDED, words=[CANCEL]))
    scene.context.cancelled.set()
    scene.remote.start()

    scene.remote.end()
    assert CANCEL in scene.host.received


def started(
    home: Path, engine: bytes, *, with_engine: bool, attempt: int = 1, position: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the script that starts a run in `sh`, with a `python3` that prints its arguments."""
    programs = home.parent / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "python3").write_text('#!/bin/sh\necho "$@"\n')
    (programs / "python3").chmod(0o755)
    plan = Plan("web1", "deploy", "r2", home=str(home), environment="production")
    text = remote_run.start(
        replace(DOCUMENT, plan=plan, attempt=attempt), engine, position, with_engine=with_engine
    ).text
    text = text.replace("PATH=/usr/local/sbin:", f"PATH={programs}:/usr/local/sbin:")
    program = f"main() {{\n{text}\n}}\nmain 3</dev/null\n"
    return subprocess.run(["sh", "-s"], input=program, capture_output=True, text=True, check=False)


def test_start_after_its_journal_was_lost_does_not_start_the_run_again(tmp_path: Path) -> None:
    home, engine = tmp_path / "home", rendering.engine()
    started(home, engine, with_engine=True)

    assert started(home, engine, with_engine=True, position=7).returncode == remote_run.NO_JOURNAL_STATUS

    (home / "journal/r2/events.jsonl").write_text("{}\n")
    assert started(home, engine, with_engine=True, position=7).stdout.split()[-1] == "7"


def test_start_brings_the_engine_once_and_runs_it_for_the_plan(tmp_path: Path) -> None:
    home, engine = tmp_path / "home", rendering.engine()
    assert started(home, engine, with_engine=False).returncode == remote_run.NO_ENGINE_STATUS

    for with_engine in (True, False):
        done = started(home, engine, with_engine=with_engine)
        assert done.stdout.split() == ["-I", f"{home}/journal/r2/engine.pyz", "run", str(home), "r2", "0"], done.stderr
    plan = home / "journal/r2/plan.json"
    assert (plan.stat().st_mode & 0o777, plan.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (home / "journal/r2/engine.pyz").read_bytes() == engine


def test_start_of_another_plan_replaces_the_events_of_the_earlier_one(tmp_path: Path) -> None:
    home, engine = tmp_path / "home", rendering.engine()
    started(home, engine, with_engine=True)
    events, plan = home / "journal/r2/events.jsonl", home / "journal/r2/plan.json"
    events.write_text("{}\n")
    plan.unlink()

    started(home, engine, with_engine=False)
    assert (events.exists(), plan.exists()) == (True, False)
    started(home, engine, with_engine=False, attempt=2)
    assert (events.exists(), plan.exists()) == (False, True)


def test_start_refuses_a_damaged_engine_and_deletes_it(tmp_path: Path) -> None:
    home, engine = tmp_path / "home", rendering.engine()
    started(home, engine, with_engine=True)
    (file,) = (home / "engine").iterdir()
    file.write_bytes(engine + b"x")

    assert started(home, engine, with_engine=False).returncode == remote_run.DAMAGED_STATUS
    assert list((home / "engine").iterdir()) == []


def test_a_restart_that_fails_does_not_claim_that_nothing_was_touched() -> None:
    error = error_of(Scene(Stream(FOLLOWING, STATE, end=DROPPED), Stream(end=1)))

    assert error.message == "web1: the run cannot be followed: the reason"


def test_start_that_fails_leaves_nothing_of_its_run(tmp_path: Path) -> None:
    home, engine = tmp_path / "home", rendering.engine()
    assert started(home, engine, with_engine=False).returncode == remote_run.NO_ENGINE_STATUS
    assert {path.name for path in home.rglob("*")} == {"engine", "journal"}

    # A directory in place of the plan makes its write fail, after the engine has been linked.
    (home / "journal/r2/plan.json/x").mkdir(parents=True)
    done = started(home, engine, with_engine=True)

    assert done.returncode == 1
    assert f"cannot write to {home}/journal/r2/plan.json" in done.stderr
    assert sorted(path.name for path in home.rglob("*") if path.is_file()) == [f"{remote_run.engine_sum(engine)}.pyz"]


def test_start_that_fails_keeps_a_run_that_has_begun(tmp_path: Path) -> None:
    home, engine = tmp_path / "home", rendering.engine()
    started(home, engine, with_engine=True)
    (home / "journal/r2/events.jsonl").write_text("{}\n")
    (home / "journal/r2/engine.pyz").write_bytes(b"damaged")

    assert started(home, engine, with_engine=False).returncode == remote_run.DAMAGED_STATUS
    assert {"events.jsonl", "plan.json"} <= {path.name for path in (home / "journal/r2").iterdir()}


def test_start_on_a_full_or_read_only_disk_names_the_cause(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("not a directory")

    done = started(home, b"engine", with_engine=True)

    assert (done.returncode, "mkdir" in done.stderr) == (1, True), done.stderr
