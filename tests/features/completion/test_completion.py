"""Completion of tasks, options, environments and hosts in real shells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import MEMORYARK, ROOT

#: Calls the completion function as bash does at the prompt, and prints the proposals.
_PRESS_TAB = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_rolling_inv
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completion(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "invoke", "completion", *arguments]
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


def proposals(script: Path, *words: str) -> set[str]:
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


def test_bash_after_to_proposes_environments_only_for_promote(script: Path) -> None:
    # --to of a rollback is a release.
    assert {"production", "staging"} <= proposals(script, "inv", "promote", "--to", "")
    assert "production" not in proposals(script, "inv", "rollback", "--env", "staging", "--to", "")


@pytest.mark.parametrize(
    ("words", "expected"),
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
def test_bash_proposes_matching_names(script: Path, words: tuple[str, ...], expected: set[str]) -> None:
    assert expected <= proposals(script, *words)


def test_bash_proposes_no_hosts_for_an_unknown_environment(script: Path) -> None:
    assert proposals(script, "inv", "deploy", "--env", "nowhere") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_parses_in_its_shell(shell: str, tmp_path: Path) -> None:
    done = completion("--shell", shell)
    assert done.returncode == 0
    path = tmp_path / "script"
    path.write_text(done.stdout)
    subprocess.run([shell, "-n", str(path)], check=True, timeout=30)


def test_fish_proposes_environments(script: Path) -> None:
    path = script.with_suffix(".fish")
    path.write_text(completion("--shell", "fish").stdout)
    command = f"source {path}; complete --do-complete 'inv deploy --env '"
    environment = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}", "HOME": str(script.parent)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", command],
        cwd=MEMORYARK,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert {"production", "staging"} <= set(done.stdout.split())


@pytest.mark.parametrize("words", [("--shell", "csh"), ("--names", "secrets"), ("--shell", "")])
def test_completion_with_unknown_shell_or_names_is_refused(words: tuple[str, ...]) -> None:
    done = completion(*words)

    assert (done.returncode, f"found '{words[1]}'" in done.stderr) == (2, True)
