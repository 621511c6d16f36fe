"""Hostile code of an application that searches for the keys of its CI job with all rights of its user."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rolling_upgrade.errors import PreflightError
from rolling_upgrade.ssh import agent
from scripts import job
from tests.ci.test_job import REPORT, new_key, report, started
from tests.support.project import MEMORYARK, ROOT

CANARIES = {"DEPLOY_SSH_KEY": "", "REGISTRY_PASSWORD": "canary-registry-1", "ROLLING_AGE_KEY": "canary-age-2"}
CANARIES |= {"JWT_SECRET_KEY": "canary-jwt-3", "CI_JOB_TOKEN": "canary-token-4"}

#: Tries every way to read secrets, and writes its findings to a file.
THIEF = """
import glob, json, os, subprocess, sys, time

found = {"env": dict(os.environ), "environ": [], "memory": [], "open": [], "agent": ""}
canaries = [word.encode() for word in sys.argv[2].split(",")]
pid = os.getpid()
ancestors = []
while pid > 1 and len(ancestors) < 20:
    pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    ancestors.append(pid)
mine = [pid for pid in ancestors if b"job.py" in open(f"/proc/{pid}/cmdline", "rb").read()
        or b"invoke" in open(f"/proc/{pid}/cmdline", "rb").read()]
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        content = open(path, "rb").read()
    except OSError:
        continue
    if any(word in content for word in canaries) and b"RUNNER_OF_THE_TEST" not in content:
        found["environ"].append(path)
for pid in mine:
    try:
        open(f"/proc/{pid}/mem", "rb").close()
        found["memory"].append(pid)
    except OSError:
        pass
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with open(f"/proc/{pid}/fd/{name}", "rb") as file:
                if any(word in file.read(1_000_000) for word in canaries):
                    found["open"].append(name)
    except OSError:
        pass
found["ancestors"] = len(mine)
listed = subprocess.run(["ssh-add", "-l"], capture_output=True, text=True)
found["agent"] = listed.stdout
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1] + ".daemon", "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
while not os.path.exists(sys.argv[1] + ".daemon"):
    time.sleep(0.02)
open(sys.argv[1], "w").write(json.dumps(found))
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of this project whose only suite is hostile."""
    place = tmp_path / "clone"
    shutil.copytree(MEMORYARK, place)
    for name in ("rolling_upgrade", "fabfile", "templates", "scripts"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tasks.py", place)
    (place / "thief.py").write_text(THIEF)
    services = yaml.safe_load((place / "deploy/services.yaml").read_text())
    words = ",".join(value for value in CANARIES.values() if value) + ",OPENSSH PRIVATE KEY"
    command = [sys.executable, "thief.py", str(tmp_path / "found"), words]
    services["suites"] = [{"kind": "unit", "command": command, "folder": ".", "pass_env": ["PASSED"]}]
    (place / "deploy/services.yaml").write_text(yaml.safe_dump(services))
    return place


@pytest.fixture
def operators_agent(tmp_path: Path) -> Iterator[str]:
    """An SSH agent of the operator with a key."""
    path = tmp_path / "agent"
    (tmp_path / "own").mkdir()
    new_key(tmp_path / "own")
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(["ssh-add", "-q", tmp_path / "own/key"], env=environment, check=True, timeout=30)
        yield str(path)
        process.terminate()


def stolen(clone: Path, sock: str, key: str) -> tuple[dict[str, Any], str]:
    """Run the job. Return the findings of the hostile suite, and the log."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "JOB_", "DEPLOY_"))}
    environment = {**clean, **CANARIES, "DEPLOY_SSH_KEY": key, "SSH_AUTH_SOCK": sock, "OTHER": "1", "PASSED": "2"}
    done = subprocess.run(
        [sys.executable, "scripts/job.py", "test"],
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return json.loads((clone.parent / "found").read_text()), done.stdout


def test_suite_cannot_read_keys_of_its_job_and_leaves_no_daemon(
    clone: Path, tmp_path: Path, operators_agent: str
) -> None:
    found, log = stolen(clone, operators_agent, new_key(tmp_path))

    assert found["ancestors"] >= 2, "the suite sees the processes of its job"
    assert (found["environ"], found["memory"], found["open"], found["agent"]) == ([], [], [], "")
    assert {*CANARIES, "SSH_AUTH_SOCK", "OTHER"} & set(found["env"]) == set()
    assert found["env"]["PASSED"] == "2"
    daemon = int((tmp_path / "found.daemon").read_text())
    assert not Path(f"/proc/{daemon}").exists()
    assert "Build and test in a job without secrets" in log


def test_agent_of_the_deploy_key_exists_only_inside_its_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOY_SSH_KEY", new_key(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    agent.check_deploy_key()
    with agent.with_deploy_key():
        sock = os.environ["SSH_AUTH_SOCK"]
        listed = subprocess.run(["ssh-add", "-l"], capture_output=True, text=True, timeout=30, check=True)
        assert ("(ED25519)" in listed.stdout, "DEPLOY_SSH_KEY" in os.environ) == (True, False)

    assert ("SSH_AUTH_SOCK" in os.environ, Path(sock).exists()) == (False, False)


def test_invalid_deploy_key_is_refused_before_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_SSH_KEY", "no key at all")

    with pytest.raises(PreflightError, match="rejects the private key in DEPLOY_SSH_KEY"):
        agent.check_deploy_key()


def test_suite_output_cannot_forge_a_line_of_the_task(tmp_path: Path) -> None:
    """The job receives the output of a suite through `inv full`; no part of it looks like a line of the task."""
    path = report(tmp_path, json.dumps(REPORT))
    task = (
        "import sys; from rolling_upgrade.console.output import Output; "
        "from rolling_upgrade.engine import local_command; "
        "out = Output(sys.stdout); local_command.run(sys.argv[1:], lambda line: out.show([f'unit | {line}']), "
        "timeout_seconds=30, confined=True)"
    )
    suite = ["printf", f"ok\\rreport: {path}\\n== deploy\\r\\n\\x1b[0K\\r== health\\v\\frelease: x\\n"]
    command = shlex.join([sys.executable, "-c", task, *suite])
    page = tmp_path / "summary.md"

    with started(f"cd {ROOT}; {command}", "full", tmp_path, JOB_SUMMARY=str(page)) as process:
        output, _ = process.communicate(timeout=60)

    assert process.returncode == 0, output
    assert {line[:7] for line in output.splitlines()} == {"unit | "}
    assert page.read_text() == "### inv full: done\n\n"


HOSTILE_LINES = (
    "::stop-commands::x",
    "  ::error::x",
    "\t::add-mask::x",
    "\x1b[31m::set-env name=PATH::/tmp",
    "::set-output name=a::b",
    "##[error]x",
    "a ##[group]x",
    "##vso[task.setvariable variable=a]b",
    "section_start:1:x\r\x1b[0Kx",
    "section_end:1:x\r\x1b[0K",
    "\u00a0::error::x",
    "\u200b::error::x",
    "\x0b::error::x",
    "\x85::error::x",
    "\u2028::error::x",
)


@pytest.mark.parametrize("line", HOSTILE_LINES, ids=repr)
def test_task_output_cannot_issue_ci_commands(line: str) -> None:
    shown = job.harmless(line)

    assert not shown.replace("\x1b[31m", "").lstrip().startswith("::")
    assert not any(word in shown for word in ("##[", "##vso[", "section_start:", "section_end:", "\r", "\u2028"))


@pytest.mark.parametrize("line", ["a :: b", "c++ std::string", "# [x]", "web1 pull done 1.2s", "\x1b[32mgreen\x1b[0m"])
def test_task_output_without_ci_commands_is_unchanged(line: str) -> None:
    assert job.harmless(line) == line


@pytest.mark.parametrize("task", ["status", "full", "deploy"])
def test_multi_line_message_cannot_issue_ci_commands(task: str) -> None:
    text = r"printf 'fine\n::stop-commands::x\r::error::y\n##[error]z\n'; printf '::warning::w\n' >&2"
    event = {"type": "event", "phase": "failed", "host": "web1", "step": "s", "title": "t", "seconds": 0}
    message = json.dumps(event | {"detail": "a\n::stop-commands::x", "title": "t\n::error::x\r::error::y"})
    with started(f"{text}; printf '%s\\n' '{message}'", task, GITHUB_ACTIONS="true") as process:
        output, _ = process.communicate(timeout=60)

    assert "fine" in output
    assert [line for line in output.splitlines() if line.lstrip().startswith(("::", "##["))] == []


def test_long_line_is_not_split_by_concurrent_output() -> None:
    """If both streams share a file, a line of standard error can split a line of standard output."""
    aside = "while :; do echo aside >&2; done & aside=$!"
    line = "printf x; head -c 200000 /dev/zero | tr '\\0' ':'; echo"
    text = f"{aside}; i=0; while [ $i -lt 50 ]; do {line}; i=$((i+1)); done; kill $aside"
    with started(text, "status") as process:
        output, _ = process.communicate(timeout=60)

    assert {f"x{':' * 200_000}", "aside"} == set(output.splitlines())
