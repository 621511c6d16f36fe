"""Hosts that send endlessly, slowly, or before the key exchange: the task's time and memory stay bounded."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.host import Cancelled, LocalHost, StreamingHost
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import ConnectionDropped, HostUnreachable
from rolling_upgrade.ssh.keyscan import Route, scan
from tests.hostile.hosts import MAX_KIB, Task, attacker, greeting, project, wait_until
from tests.support.sshd import Sshd

OUTPUT, ERRORS = Script("cat /dev/zero"), Script("cat /dev/zero >&2")
DRIP = Script("while :; do printf x; sleep 0.05; done")
FLOODS = {"output": "cat /dev/zero", "errors": "cat /dev/zero >&2", "lines": "yes '@@facts'", "many lines": "yes ''"}
STATUS = ("from rolling_upgrade.features.status.workflow import status", "status('demo', root=Path({root!r}))")


@pytest.fixture
def ssh_host(sshd: Sshd) -> Iterator[StreamingHost]:
    host = sshd.host()
    yield host
    host.close()


@pytest.mark.parametrize("script", [OUTPUT, ERRORS], ids=["output", "errors"])
@pytest.mark.parametrize("kind", ["ssh", "local"])
def test_run_endless_answer_stops_at_its_limit(kind: str, script: Script, ssh_host: StreamingHost) -> None:
    host = ssh_host if kind == "ssh" else LocalHost("web1")
    started_at = time.monotonic()

    with pytest.raises(ConnectionDropped, match="web1: its answer has more than 2 MiB; the rest was not read"):
        host.run(script, timeout_seconds=60)

    assert time.monotonic() - started_at < 20


@pytest.mark.parametrize("script", [OUTPUT, ERRORS, DRIP], ids=["output", "errors", "drip"])
@pytest.mark.parametrize("kind", ["ssh", "local"])
def test_run_deadline_holds_while_output_arrives(kind: str, script: Script, ssh_host: StreamingHost) -> None:
    host = ssh_host if kind == "ssh" else LocalHost("web1")
    host.run(Script(":"), timeout_seconds=20)
    started_at = time.monotonic()

    with pytest.raises(ConnectionDropped, match=r"no answer within 0\.3 s"):
        host.run(script.answering(1 << 40), timeout_seconds=0.3)

    assert time.monotonic() - started_at < 5


@pytest.mark.parametrize("script", [OUTPUT, ERRORS, DRIP], ids=["output", "errors", "drip"])
def test_stream_cancelled_ends_at_once_while_output_arrives(script: Script, ssh_host: StreamingHost) -> None:
    cancelled, at = threading.Event(), [math.inf]

    def take(_: bytes) -> None:
        if not cancelled.is_set():
            at[0] = time.monotonic()
            cancelled.set()

    with pytest.raises(Cancelled):
        ssh_host.stream(script, take, take, cancelled=cancelled)

    assert time.monotonic() - at[0] < 2


@pytest.mark.parametrize(
    ("content", "pause", "message"),
    [
        (b"x" * 65_536, 0, "more than 65536 bytes before its version"),
        (b"x" * 60 + b"\n", 0, "web1: "),
        (b"x", 0.01, "web1: "),
        (b"SSH-2.0-x\r\n\xff\xff\xff\xfc" + b"x" * 65_536, 0, "a packet of "),
    ],
    ids=["no line end", "lines", "drip", "a packet of 4 GiB"],
)
def test_connection_to_a_server_that_is_not_ssh_is_refused_in_time(
    content: bytes, pause: float, message: str, sshd: Sshd
) -> None:
    started_at = time.monotonic()
    with greeting(content, pause) as port:
        known = sshd.known(f"[127.0.0.1]:{port}")
        host = sshd.host(known=known, port=port)
        host._connect_seconds = 2.0
        with pytest.raises(HostUnreachable, match=message):
            host.run(Script(":"), timeout_seconds=20)
        with pytest.raises(HostUnreachable, match=message):
            scan(Route(replace(sshd.target(), port=port), (known,), 2.0, 0))

    assert time.monotonic() - started_at < 40


@pytest.mark.parametrize("flood", FLOODS)
def test_status_flooding_host_is_reported_and_the_other_is_shown(flood: str, sshd: Sshd, tmp_path: Path) -> None:
    evil = attacker(tmp_path / "evil", FLOODS[flood])
    try:
        root = project(tmp_path / "project", evil=evil, good=sshd)
        result = Task(STATUS[0], STATUS[1].format(root=str(root))).wait(60)
    finally:
        evil.stop()

    assert result.code == 1, result
    assert "evil  UNREACHABLE: its answer has more than 2 MiB; the rest was not read" in result.output
    assert "good (127.0.0.1)" in result.output
    assert "Traceback" not in result.output + result.errors
    assert 0 < result.peak_kib < MAX_KIB


MALFORMED = {
    "a superscript digit": "now=²",
    "5,000 digits": "now=$(printf %05000d 9)",
    "no sections": "",
}


@pytest.mark.parametrize("answer", MALFORMED)
def test_status_malformed_answer_is_reported_and_the_other_host_is_shown(
    answer: str, sshd: Sshd, tmp_path: Path
) -> None:
    parts = "active containers listening releases lock site probes end"
    text = f'echo @@facts; echo "{MALFORMED[answer]}"; for part in {parts}; do echo "@@$part"; done'
    evil = attacker(tmp_path / "evil", text if MALFORMED[answer] else "echo hello")
    try:
        root = project(tmp_path / "project", evil=evil, good=sshd)
        result = Task(STATUS[0], STATUS[1].format(root=str(root))).wait(60)
    finally:
        evil.stop()

    assert result.code == 1, result
    assert "evil  UNREACHABLE: " in result.output
    assert "good (127.0.0.1)" in result.output
    assert "Traceback" not in result.output + result.errors


@pytest.mark.parametrize("flood", ["drip", "silence", "errors that drip"])
def test_status_interrupted_ends_at_once_while_a_host_floods(flood: str, sshd: Sshd, tmp_path: Path) -> None:
    began = tmp_path / "began"
    attack = {
        "drip": "while :; do printf x; sleep 0.05; done",
        "silence": f"while [ -e {began} ]; do sleep 1; done",
        "errors that drip": "while :; do printf x >&2; sleep 0.01; done",
    }
    evil = attacker(tmp_path / "evil", f": > {began}\n{attack[flood]}")
    try:
        root = project(tmp_path / "project", evil=evil, good=sshd)
        task = Task(STATUS[0], STATUS[1].format(root=str(root)))
        wait_until(began.exists, "the attack", 60)
        task.interrupt()
        result = task.wait(10)
    finally:
        evil.stop()
        began.unlink(missing_ok=True)

    assert (result.code, "interrupted" in result.errors) == (130, True), result
    assert result.seconds < 4


EXEC = (
    "from rolling_upgrade.features.exec.workflow import execute",
    "execute('demo', ('x',), root=Path({root!r}))",
)


def test_exec_endless_line_uses_no_memory_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    evil = attacker(tmp_path / "evil", "exec cat /dev/zero")
    try:
        root = project(tmp_path / "project", evil=evil)
        task = Task(EXEC[0], EXEC[1].format(root=str(root)))
        with task.process:
            assert task.process.stdout is not None
            assert task.process.stderr is not None
            bytes_of = task.process.stdout.buffer  # type: ignore[attr-defined]
            read = 0
            while read < 30_000_000:
                read += len(bytes_of.read(65_536))
            task.interrupt()
            started_at = time.monotonic()
            while bytes_of.read(65_536):
                pass
            errors = task.process.stderr.read()
    finally:
        evil.stop()

    assert (task.process.returncode, time.monotonic() - started_at < 10) == (130, True), errors
    assert 0 < int(errors.rpartition("peak ")[2]) < MAX_KIB


def test_change_first_ctrl_c_waits_for_running_hosts_and_the_second_does_not(tmp_path: Path) -> None:
    began, go = tmp_path / "began", tmp_path / "go"
    imports = (
        "from threading import Event\nfrom rolling_upgrade.engine.parallel import run_jobs\n"
        "import time\n"
        "def job():\n"
        f"    Path({str(began)!r}).touch()\n"
        f"    while not Path({str(go)!r}).exists(): time.sleep(0.02)\n"
        "    print('done', flush=True)\n"
    )
    for presses in (1, 2):
        began.unlink(missing_ok=True)
        go.unlink(missing_ok=True)
        task = Task(imports, "run_jobs([job], 1, Event(), finish=True)")
        wait_until(began.exists, "the job")
        task.interrupt()
        if presses == 1:
            with pytest.raises(Exception, match="timed out"):
                task.process.wait(1.0)
            go.touch()
        else:
            with pytest.raises(Exception, match="timed out"):
                task.process.wait(1.0)
            task.interrupt()
        result = task.wait(10)
        assert (result.code, result.output) == (130, "done\n" if presses == 1 else ""), result
