"""The demo runs its tasks in order, and reports a failed one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab import demo
from lab.demo import DemoFailed, Options, Stage, conclusion, one_round, read_options
from lab.load import Kind, Load, LoadDied, LoadResult, Progress, Record, Server
from lab.verdict import Round
from rolling_upgrade.features.report.run_report import Requests

OPTIONS = Options("lab", 2, 1, 8.0, down=False)
SERVERS = (Server("web1", "10.0.0.1"),)


class Clock:
    """A clock that advances only when the demo waits or works."""

    def __init__(self) -> None:
        self.now = 0.0

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


class Hosts:
    """Fake tasks that take 10 s each and end with prescribed exit codes, and the version that serves at each time."""

    def __init__(self, clock: Clock, endings: dict[str, int] | None = None) -> None:
        self.clock = clock
        self.endings = {"v3-broken": 1, **(endings or {})}
        self.ran: list[str] = []
        self.changes: list[tuple[float, str]] = [(0.0, "v1")]

    def run(self, words: tuple[str, ...]) -> int:
        self.ran.append(" ".join(words))
        self.clock.pass_by(10.0)
        ending = self.endings.get(words[-1], self.endings.get(words[0], 0))
        if words[0] == "deploy" and ending == 0:
            self.changes.append((self.clock.now - 2.0, words[-1]))
        return ending

    def serving(self, at: float) -> str:
        return [version for since, version in self.changes if since <= at][-1]


class FakeLoad(Load):
    """A fake load without a process that sends four requests per second of the clock."""

    def __init__(self, hosts: Hosts, *, silent: bool = False, dies: bool = False) -> None:
        super().__init__(SERVERS, "app.test")
        self.hosts = hosts
        self.dies = dies
        self.progress = Progress(0 if silent else 10, 0)

    def start(self) -> Load:
        return self

    def stop(self) -> LoadResult:
        if self.dies:
            raise LoadDied("the load's process gave no result (exit code -9)")
        end = self.hosts.clock.now
        moments = [number / 4 for number in range(int(end * 4))]
        records = [
            Record(at, 0.01, Kind.KEPT, "web1", service, self.hosts.serving(at))
            for at in moments
            for service in ("backend", "frontend")
        ]
        return LoadResult(0.0, end, tuple(records), 5, ())


def stage_with(hosts: Hosts, output: list[str]) -> Stage:
    return Stage(output.append, hosts.run, hosts.clock.pass_by, lambda: hosts.clock.now)


def play(endings: dict[str, int] | None = None) -> tuple[Round, Hosts, list[str]]:
    output: list[str] = []
    hosts = Hosts(Clock(), endings)
    return one_round(OPTIONS, stage_with(hosts, output), SERVERS, FakeLoad(hosts)), hosts, output


def test_round_upgrades_then_deploys_the_broken_version() -> None:
    done, hosts, _ = play()

    assert hosts.ran == ["deploy --env lab --force --tag v2", "deploy --env lab --force --tag v3-broken"]
    assert conclusion(OPTIONS, [done])[1] == 0


def test_round_phases_follow_each_other_without_a_gap() -> None:
    done, _, _ = play()

    assert [phase.end for phase in done.phases[:-1]] == [phase.start for phase in done.phases[1:]]


def test_round_failed_upgrade_stops_the_load_and_skips_the_broken_version() -> None:
    done, hosts, _ = play({"v2": 1})
    text, exit_code = conclusion(OPTIONS, [done])

    assert hosts.ran == ["deploy --env lab --force --tag v2"]
    assert exit_code == 1
    assert "`inv deploy --env lab --force --tag v2` ended with exit code 1 instead of 0" in text


def test_round_broken_version_that_stays_is_reported() -> None:
    done, _, _ = play({"v3-broken": 0})
    text, exit_code = conclusion(OPTIONS, [done])

    assert exit_code == 1
    assert "web1 showed backend v3-broken" in text


def test_round_load_that_sends_nothing_stops_the_demo() -> None:
    hosts = Hosts(Clock())

    with pytest.raises(DemoFailed, match="sent nothing"):
        one_round(OPTIONS, stage_with(hosts, []), SERVERS, FakeLoad(hosts, silent=True))


def test_round_load_that_dies_stops_the_demo() -> None:
    hosts = Hosts(Clock())

    with pytest.raises(DemoFailed, match="gave no result"):
        one_round(OPTIONS, stage_with(hosts, []), SERVERS, FakeLoad(hosts, dies=True))


def test_show_names_the_command_that_failed_to_start_the_lab() -> None:
    hosts = Hosts(Clock(), {"lab.up": 3})

    with pytest.raises(DemoFailed, match=r"`inv lab.up --hosts 2 --name lab` ended with exit code 3"):
        list(demo.show(OPTIONS, stage_with(hosts, [])))
    assert hosts.ran == ["lab.up --hosts 2 --name lab"]


def test_hosts_of_unknown_lab_is_an_error() -> None:
    with pytest.raises(DemoFailed, match="cannot be read"):
        demo.hosts_of("no-such-lab")


def test_write_summary_writes_the_documented_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / ".demo")
    monkeypatch.setattr(demo, "SUMMARY", tmp_path / ".demo" / "summary.json")
    done, _, _ = play()
    demo.write_summary([done])

    figures = json.loads((tmp_path / ".demo" / "summary.json").read_text())

    promised = {"requests", "failed", "writes_acknowledged", "writes_lost"}
    measured = {"upgrade_seconds", "undo_seconds", "p99_ms_steady", "p99_ms_upgrade"}
    assert promised | measured <= figures.keys()
    with (tmp_path / ".demo" / "requests.jsonl").open() as lines:
        assert len(Requests.read(lines).requests) == sum(record.kind.prompt for record in done.load.records) > 0


@pytest.mark.parametrize("arguments", [["--runs", "0"], ["--hosts", "0"], ["--keep", "--down"], ["--what"]])
def test_invalid_options_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_options(arguments)
    assert ended.value.code == 2


def test_command_help_needs_no_lab() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab.demo", "--help"],
        cwd=demo.PROJECT,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert (done.returncode, "--runs" in done.stdout) == (0, True)
