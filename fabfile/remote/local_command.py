"""One command of this workstation, heard line by line while it runs. It contacts no host."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

#: How many of the last lines are kept for an error.
KEPT_LINES = 30
#: Between the request to end and the end by force.
GRACE_SECONDS = 10.0
#: What opens env files and hosts: the code of an application, and of what it depends on, has no business with it.
KEYS = frozenset({"ROLLING_AGE_KEY", "ROLLING_AGE_KEY_FILE", "DEPLOY_SSH_KEY"})
#: What is read of a line at a time: a program that prints no line break is not waited for without bound.
_LONGEST_LINE = 65_536


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status, what it said last, and whether its time was up."""

    status: int
    seconds: float
    last_words: str = ""
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """Whether it exited with 0 in time."""
        return self.status == 0 and not self.timed_out


def run(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    folder: str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout_seconds: float,
) -> Ended:
    """Run a command in a process group of its own and hand over each line, of both outputs, as it comes.

    `env` is added to this process's, less its KEYS. What it left running ends with it; so does all of it at an
    interrupt, which goes on to the caller. Raises OSError when it cannot be started.
    """
    began = time.monotonic()
    own = {name: value for name, value in os.environ.items() if name not in KEYS}
    process = subprocess.Popen(
        argv,
        cwd=folder,
        env={**own, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    reader = Thread(target=_read, args=(process, on_line, kept), daemon=True)
    timed_out = False
    try:
        reader.start()
        _say(process, stdin)
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        _end(process)
        if reader.ident is not None:
            reader.join(GRACE_SECONDS)
    return Ended(process.returncode, time.monotonic() - began, "\n".join(kept), timed_out)


def answer(argv: Sequence[str], *, timeout_seconds: float, env: Mapping[str, str] | None = None) -> Ended:
    """The same without a listener: what it said is in `last_words`. A program that is missing has the status 127."""
    try:
        return run(argv, lambda _: None, env=env, timeout_seconds=timeout_seconds)
    except OSError as error:
        return Ended(127, 0.0, str(error))


def _say(process: subprocess.Popen[bytes], text: str) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError), process.stdin as keyboard:
            keyboard.write(text.encode())


def _read(process: subprocess.Popen[bytes], on_line: Callable[[str], None], kept: deque[str]) -> None:
    if process.stdout is None:
        return
    with process.stdout as stream:
        while piece := stream.readline(_LONGEST_LINE):
            line = piece.decode(errors="replace").rstrip("\r\n")
            kept.append(line)
            on_line(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the group: first asked, then by force; and what had left it for a session of its own, as the
    container of a build's step has, which Podman leaves behind when it is told to end."""
    below: dict[int, str] = {}
    if process.poll() is None:
        below = _descendants(process.pid)
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait()
    for pid, began in below.items():
        if _stat(pid)[1:] == (began,):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> dict[int, str]:
    """Every process below this one and when it began; none where the kernel does not say."""
    above = {int(path.name): _stat(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found: dict[int, str] = {}
    layer = {pid}
    while layer := {one for one, stat in above.items() if stat and int(stat[0]) in layer and one not in found}:
        found |= {one: above[one][1] for one in layer}
    return found


def _stat(pid: int) -> tuple[str, ...]:
    """A process's parent and when it began, in the kernel's own count; empty for one that is gone.

    Source: proc_pid_stat(5): fields 4 and 22; the name before them is in brackets and may hold anything.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ()
    return fields[1], fields[19]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
