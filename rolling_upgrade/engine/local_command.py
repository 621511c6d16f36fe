"""Run one command on this workstation and read its output line by line while it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Thread
from typing import IO

from rolling_upgrade.engine import process_environment, processes, untrusted

#: The number of last lines kept for an error.
KEPT_LINES = 30
#: The time between SIGTERM and SIGKILL.
GRACE_SECONDS = 10.0
#: The longest part of a line that is read at a time: a program may never print a line break.
_LONGEST_LINE = 65_536


@dataclass(frozen=True)
class Ended:
    """The result of a command.

    It has the status, the last lines of output, whether the command timed out, and how many processes of a confined one
    survived. `output` is the whole standard output of `answer`, without errors.
    """

    status: int
    seconds: float
    output_tail: str = ""
    timed_out: bool = False
    left_running: int = 0
    output: str = ""

    @property
    def ok(self) -> bool:
        """Whether the command exited with 0 in time and left no process."""
        return self.status == 0 and not self.timed_out and not self.left_running


def run(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    folder: str | None = None,
    base: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout_seconds: float,
    confined: bool = False,
    may_trace: bool = False,
    apart: bool = False,
) -> Ended:
    """Run a command in its own process group and pass on each line of both outputs.

    With `apart`, only lines of standard output are passed on; errors appear in the last lines only. A carriage return
    ends a line too, so that the caller's prefix precedes every part of it.

    `env` is added to `base`, by default the environment of `process_environment` for application code. Processes that
    the command leaves running are ended, and on an interrupt all of them, before it reaches the caller. `confined` is
    for untrusted code: all its descendants are ended, daemons included, and as root it may trace no other process,
    unless `may_trace`. Raises OSError if the command cannot be started.
    """
    began = time.monotonic()
    own = process_environment.for_application(os.environ) if base is None else base
    before = processes.descendants(os.getpid()) if confined else {}
    kept, errors = deque[str](maxlen=KEPT_LINES), deque[str](maxlen=KEPT_LINES)
    timed_out, left = False, dict[int, str]()
    with processes.adopting_orphans() if confined else contextlib.nullcontext():
        process = _start(argv, folder, {**own, **(env or {})}, trace=may_trace or not confined, apart=apart)
        heard = ((process.stdout, on_line, kept), (process.stderr, lambda _: None, errors))
        readers = [Thread(target=_read, args=one, daemon=True) for one in heard if one[0] is not None]
        try:
            for reader in readers:
                reader.start()
            _say(process, stdin)
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _end(process)
            if confined:
                left = processes.end_descendants(but=before, seconds=GRACE_SECONDS)
            for reader in readers:
                if reader.ident is not None:
                    reader.join(GRACE_SECONDS)
    last = [*kept, *errors][-KEPT_LINES:]
    return Ended(process.returncode, time.monotonic() - began, "\n".join(last), timed_out, len(left))


def answer(
    argv: Sequence[str], *, timeout_seconds: float, base: Mapping[str, str] | None = None, confined: bool = False
) -> Ended:
    """Run a command and return its standard output in `output`, at most untrusted.ANSWER_BYTES of it.

    A missing program has the status 127.
    """
    said: list[str] = []
    room = untrusted.ANSWER_BYTES

    def hear(line: str) -> None:
        nonlocal room
        room -= len(line) + 1
        if room >= 0:
            said.append(line)

    try:
        ended = run(argv, hear, base=base, timeout_seconds=timeout_seconds, confined=confined, apart=True)
    except OSError as error:
        return Ended(127, 0.0, str(error))
    return replace(ended, output="\n".join(said))


def _start(
    argv: Sequence[str], folder: str | None, environment: Mapping[str, str], *, trace: bool, apart: bool
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
        start_new_session=True,
        # It calls the kernel and takes no lock, so that other threads of this process do not matter.
        preexec_fn=None if trace else processes.without_tracing(),
    )


def _say(process: subprocess.Popen[bytes], text: str) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError), process.stdin as keyboard:
            keyboard.write(text.encode())


def _read(stream: IO[bytes], on_line: Callable[[str], None], kept: deque[str]) -> None:
    with stream:
        while piece := stream.readline(_LONGEST_LINE):
            row = piece.decode(errors="replace").rstrip("\r\n")
            for line in [part for part in row.split("\r") if part] or [""]:
                kept.append(line)
                on_line(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the rest of the group, first with SIGTERM, then with SIGKILL, and processes that moved to another session.

    A container of a build step is one that Podman leaves behind when it is terminated.
    """
    below: dict[int, str] = {}
    if process.poll() is None:
        below = processes.descendants(process.pid)
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait()
    for pid, began in below.items():
        if processes.stat(pid)[1:] == (began,):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
