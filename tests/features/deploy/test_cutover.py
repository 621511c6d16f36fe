"""The cutover step, run under `sh` with stand-ins for Podman and curl: what happens before the flag changes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.sample import application
from tests.support.shell import Programs, moved, sh
from tests.support.states import plan, text, upgradable

APP = application()


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    programs = Programs(tmp_path / "bin")
    programs.clock()
    (tmp_path / "home" / "live").mkdir(parents=True)
    return programs


def flag(programs: Programs) -> Path:
    return programs.directory.parent / "home" / "live" / "backend.green"


def cut_over(programs: Programs, *, restarts: int = 0, answers: tuple[str, ...] = ("200",)) -> int:
    """Cut the backend over from blue to green. `answers` are those of the candidate port, the last one repeats."""
    programs.add("podman", f'case "$*" in *inspect*) echo "true {restarts} {os.getpid()}" ;; esac')
    answer = programs.sequence("curl", list(answers))
    programs.add("curl", f'case "$*" in *:8080/*) echo "200 127.0.0.1:28080" ;; *)\n{answer}\n;; esac')
    return run(programs).returncode


def run(programs: Programs) -> subprocess.CompletedProcess[str]:
    script = text(plan(upgradable(APP)), "backend.cutover")
    return sh(moved(script, APP, programs.directory.parent / "home"), path=programs.path)


def test_cutover_gives_the_alias_then_asks_the_candidate_then_flips(programs: Programs) -> None:
    address = programs.directory.parent / "home" / "journal" / "r2" / "backend.address"
    address.parent.mkdir(parents=True)
    address.write_text("10.89.0.7/a6:00:00:00:00:07\n")

    assert cut_over(programs) == 0

    assert flag(programs).exists()
    assert [call[2] for call in programs.calls("podman")] == ["disconnect", "connect", "inspect"]
    ports = [call[-1].split("/")[2].rpartition(":")[2] for call in programs.calls("curl")]
    assert ports == ["28080", "8080"]


def test_cutover_of_a_candidate_that_restarted_since_its_gate_flips_nothing(programs: Programs) -> None:
    assert cut_over(programs, restarts=1) == 1

    assert not flag(programs).exists()
    assert programs.calls("podman")[-1][1:3] == ["logs", "--tail"]


def test_cutover_of_a_candidate_that_stopped_answering_flips_nothing(programs: Programs) -> None:
    assert cut_over(programs, answers=("503",)) == 1

    assert not flag(programs).exists()


def test_cutover_waits_for_a_candidate_that_answers_again(programs: Programs) -> None:
    assert cut_over(programs, answers=("000", "000", "000", "000", "200")) == 0

    assert flag(programs).exists()


def test_cutover_that_repeats_after_it_stopped_without_a_network_succeeds(programs: Programs) -> None:
    assert cut_over(programs) == 0
    flag(programs).unlink()
    connected = f'case "$2" in disconnect) exit 125 ;; inspect) echo "true 0 {os.getpid()}" ;; esac'
    programs.add("podman", connected)

    assert run(programs).returncode == 0
    assert flag(programs).exists()
