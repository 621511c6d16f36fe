"""Completion in real shells: tasks, options, environments and hosts, as a person at the prompt gets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import MEMORYARK, ROOT

#: What bash does at the prompt, and what it would offer.
_PRESS_TAB = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_rolling_inv
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completion(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "invoke", "completion", *words]
    return subprocess.run(command, cwd=MEMORYARK, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "inv.bash"
    path.write_text(completion("--shell", "bash").stdout)
    script = "from rolling_upgrade.cli import main; main()"
    for name, program in (("inv", "-m invoke"), ("rolling-upgrade", f"-c '{script}'")):
        (tmp_path / name).write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {program} "$@"\n')
        (tmp_path / name).chmod(0o755)
    return path


def offered(script: Path, *words: str) -> set[str]:
    environment = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", _PRESS_TAB, "bash", str(script), *words],
        cwd=MEMORYARK,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


def test_bash_offers_environments_after_to_of_a_promotion_alone(script: Path) -> None:
    # A rollback goes to a release, a backup to a folder.
    assert {"production", "staging"} <= offered(script, "inv", "promote", "--to", "")
    assert "production" not in offered(script, "inv", "rollback", "--env", "staging", "--to", "")


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (("inv", "rollb"), {"rollback"}),
        (("inv", "monitor.i"), {"monitor.install"}),
        (("rolling-upgrade", "rollb"), {"rollback"}),
        (("rolling-upgrade", "deploy", "--dry"), {"--dry-run"}),
        (("rolling-upgrade", "deploy", "--env", ""), {"production", "staging"}),
        (("inv", "ini"), {"init"}),
        (("inv", "init", "--d"), {"--directory", "--domain"}),
        (("inv", "deploy", "--dry"), {"--dry-run"}),
        (("inv", "deploy", "--env", ""), {"production", "staging"}),
        (("inv", "deploy", "--environment", "prod"), {"production"}),
        (("inv", "deploy", "-e", "st"), {"staging"}),
        (("inv", "promote", "--from", "st"), {"staging"}),
        (("inv", "deploy", "--env", "production", "--hosts", ""), {"web1", "web2", "canary", "web"}),
    ],
)
def test_bash_offers(script: Path, words: tuple[str, ...], some: set[str]) -> None:
    assert some <= offered(script, *words)


def test_bash_offers_nothing_for_an_environment_that_is_not_there(script: Path) -> None:
    assert offered(script, "inv", "deploy", "--env", "nowhere") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_read_by_its_shell(shell: str, tmp_path: Path) -> None:
    done = completion("--shell", shell)
    assert done.returncode == 0
    path = tmp_path / "script"
    path.write_text(done.stdout)
    subprocess.run([shell, "-n", str(path)], check=True, timeout=30)


def test_fish_offers_environments(script: Path) -> None:
    path = script.with_suffix(".fish")
    path.write_text(completion("--shell", "fish").stdout)
    asked = f"source {path}; complete --do-complete 'inv deploy --env '"
    environment = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}", "HOME": str(script.parent)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", asked],
        cwd=MEMORYARK,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert {"production", "staging"} <= set(done.stdout.split())


@pytest.mark.parametrize("words", [("--shell", "csh"), ("--names", "secrets"), ("--shell", "")])
def test_completion_of_what_there_is_not_is_refused(words: tuple[str, ...]) -> None:
    done = completion(*words)

    assert (done.returncode, f"found '{words[1]}'" in done.stderr) == (2, True)
