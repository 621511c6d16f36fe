"""Run the script of one step on this host, in a session of its own, with its output in the run's journal.

A step checks the run's lock and extends its lease, and holds `lock/stage` while it runs. The lock is held by flock(1),
so that a step which outlives its killed executor still keeps the next run waiting.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from rolling_upgrade.engine import lock_file, progress
from rolling_upgrade.engine.executor import TIMED_OUT_STATUS
from rolling_upgrade.engine.host import Answer, Cancelled
from rolling_upgrade.engine.plan import Step
from rolling_upgrade.engine.progress import Progress
from rolling_upgrade.engine.shell import ENVIRONMENT

#: A step that ended with a higher status was ended by a signal.
_SIGNALLED_STATUS = 128
#: The bytes of a step's output in its answer.
OUTPUT_BYTES = 65_536
#: The size of a log at which it is cut to its newest bytes, and how many of them stay.
LOG_BYTES, KEPT_BYTES = 8 << 20, 1 << 20
#: Names the step in the environment of its processes: session ids are reused, above all after a reboot.
STEP_VARIABLE = "ROLLING_UPGRADE_STEP"
#: The most bytes of output that a step shows while it runs; its log has all of them.
SHOWN_BYTES = 262_144
#: The most characters of a line that it shows.
_SHOWN_CHARACTERS = 1000
#: The lines that it shows of the output in which it exceeds these bytes.
_SHOWN_LINES = 50
_TICK_SECONDS = 0.1
#: The interval of the checks while a step writes more than `OUTPUT_BYTES` in one.
_BUSY_TICK_SECONDS = 0.01
#: The characters of a step's id in the names of its files.
_LONGEST_NAME = 60
#: Shells, and the programs with which they wait.
_SHELLS = frozenset({"sh", "sleep", "curl"})
#: Processes that serve a running container: `exe` is the child of rootlessport.
_OF_CONTAINERS = frozenset({"rootlessport", "exe", "conmon", "pasta", "slirp4netns", "aardvark-dns", "fuse-overlayfs"})
#: The time that the command of a cancelled step gets to complete, then to end after SIGTERM, then after SIGKILL.
_COMPLETE_SECONDS = 10.0
_END_SECONDS = 4.0


class StepProcess:
    """Runs the steps of one run on this host. Without `is_locked`, the run has no lock whose lease could end."""

    def __init__(self, home: Path, run_id: str, lease_seconds: float, *, is_locked: bool = True) -> None:
        self._home, self._run_id, self._lease_seconds = home, run_id, lease_seconds
        self._is_locked = is_locked
        self._journal = home / "journal" / run_id
        self._deadlines: dict[str, float] = {}
        self._beginning = threading.Lock()

    def renew(self, seconds: float = 0.0) -> str:
        """Extend the lease of the run's lock; return '', or a text that names the other holder."""
        return lock_file.renew(self._home, self._run_id, seconds + self._lease_seconds) if self._is_locked else ""

    def run(self, step: Step, *, stop: Callable[[], bool], on_progress: Callable[[Progress], None]) -> Answer:
        """Run the step to its end. Raises Cancelled once `stop` returns True and all processes of the step have ended."""
        try:
            if lost := self._begin(step):
                return Answer(lock_file.LOST_STATUS, lost)
            return self._run(step, stop, on_progress)
        finally:
            with self._beginning:
                del self._deadlines[step.id]

    def _begin(self, step: Step) -> str:
        """Extend the lease to the deadline of the step, or of a longer one that runs beside it. Return like `renew`."""
        with self._beginning:
            now = time.monotonic()
            self._deadlines[step.id] = now + step.timeout_seconds
            return self.renew(max(self._deadlines.values()) - now)

    def _run(self, step: Step, stop: Callable[[], bool], on_progress: Callable[[Progress], None]) -> Answer:
        with suppress(OSError):
            self._path(step, "status").unlink(missing_ok=True)
        with _Log(self._path(step, "log")) as log, _program(step) as program:
            process = subprocess.Popen(
                self._command(step),
                stdin=program,
                stdout=log.handle,
                stderr=log.handle,
                env={**os.environ, STEP_VARIABLE: self._mark(_name(step))},
                start_new_session=True,
            )
            self._write(step, "session", f"{process.pid}\n")
            try:
                _wait(process, log, stop, _shown(on_progress) if step.shows_output else _newest(on_progress))
            except BaseException:
                end_session(process.pid, process.poll)
                process.wait()
                self._write(step, "status", "143\n")
                raise
            status = process.returncode if process.returncode >= 0 else 128 - process.returncode
            if status == TIMED_OUT_STATUS or status > _SIGNALLED_STATUS:
                # A signal ended flock, timeout or a shell, which may leave others running without the lock.
                end_session(process.pid)
            self._write(step, "status", f"{status}\n")
            return Answer(status, progress.without_progress(log.tail()))

    def end_leftovers(self) -> None:
        """End the steps of a killed executor that still run, even those without the leader of their session."""
        for path in self._journal.glob("*.session"):
            if path.with_suffix(".status").exists():
                continue
            with suppress(OSError, ValueError):
                session = int(path.read_text(encoding="ascii"))
                mark = f"{STEP_VARIABLE}={self._mark(path.stem)}".encode()
                if any(mark in _environment(pid) for pid, _ in _processes(session)):
                    end_session(session)

    def _mark(self, name: str) -> str:
        return f"{self._run_id}/{name}"

    def _command(self, step: Step) -> list[str]:
        # Steps of one group run at the same time.
        kind = "--shared" if step.group else "--exclusive"
        wait = ("-w", str(lock_file.WAIT_SECONDS), "-E", str(lock_file.BUSY_STATUS))
        return [
            "flock",
            "-o",
            kind,
            *wait,
            f"{self._home}/lock/stage",
            "timeout",
            "-k",
            "5",
            f"{step.timeout_seconds:g}",
            "sh",
            "-s",
        ]

    def _path(self, step: Step, suffix: str) -> Path:
        return self._journal / f"{_name(step)}.{suffix}"

    def _write(self, step: Step, suffix: str, text: str) -> None:
        path = self._path(step, suffix)
        with suppress(OSError):
            new = path.with_name(f"{path.name}.new")
            new.write_text(text, encoding="ascii")
            new.replace(path)


class _Log:
    """The output of a step: a file in the journal, or in memory if the disk is full, where an undo has to run, too.

    The step writes at its end (O_APPEND), so that it can be cut while the step runs. Bytes that the step writes in the
    instant of a cut may be missing.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        try:
            self.handle = os.open(path, flags, 0o600)
        except OSError:
            self.handle = os.memfd_create("log")
            fcntl.fcntl(self.handle, fcntl.F_SETFL, os.O_APPEND)
        self._position = 0

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)

    def read_new(self) -> bytes:
        """Return the output since the last call, at most its newest KEPT_BYTES, and cut a log that is too long."""
        size = os.fstat(self.handle).st_size
        if size < self._position:
            # An operator has emptied it.
            self._position = 0
        start = max(self._position, size - KEPT_BYTES)
        new = os.pread(self.handle, size - start, start)
        self._position = start + len(new)
        if size > LOG_BYTES:
            self._cut(size)
        return new

    def tail(self) -> str:
        """Return the last OUTPUT_BYTES of the output."""
        size = os.fstat(self.handle).st_size
        return os.pread(self.handle, OUTPUT_BYTES, max(0, size - OUTPUT_BYTES)).decode(errors="replace")

    def _cut(self, size: int) -> None:
        kept = os.pread(self.handle, KEPT_BYTES, size - KEPT_BYTES)
        os.ftruncate(self.handle, 0)
        with suppress(OSError):
            os.write(self.handle, kept)
        self._position = len(kept)


def _name(step: Step) -> str:
    """Return the name of the step's files. The ids of setup's steps contain paths."""
    return step.id.replace("%", "%25").replace("/", "%2F")[:_LONGEST_NAME]


def _program(step: Step) -> IO[bytes]:
    """Return the step's script as a file in memory. No command line and no file on disk shows it."""
    file = os.fdopen(os.memfd_create("step"), "w+b")
    file.write(f"{ENVIRONMENT}main() {{\n{step.script.text}\n}}\nmain </dev/null\n".encode(errors="surrogateescape"))
    file.seek(0)
    return file


def _wait(
    process: subprocess.Popen[bytes], log: _Log, stop: Callable[[], bool], on_lines: Callable[[bytes], None]
) -> None:
    """Wait for the end of the process, and pass on the new lines in its log, without the last line break."""
    handle = os.pidfd_open(process.pid)
    rest, seconds = b"", _TICK_SECONDS
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        while True:
            ended = bool(poll.poll(seconds * 1000))
            new = log.read_new()
            seconds = _BUSY_TICK_SECONDS if len(new) > OUTPUT_BYTES else _TICK_SECONDS
            whole, _, rest = (rest + new).rpartition(b"\n")
            rest = rest[-OUTPUT_BYTES:]
            if whole:
                on_lines(whole)
            if ended:
                if rest:
                    on_lines(rest)
                process.wait()
                return
            if stop():
                raise Cancelled(str(process.args))
    finally:
        os.close(handle)


def _newest(on_progress: Callable[[Progress], None]) -> Callable[[bytes], None]:
    """Return a function that reports the newest progress in new lines of output."""

    def report(lines: bytes) -> None:
        if (found := _newest_progress(lines)) is not None:
            on_progress(found)

    return report


def _shown(on_progress: Callable[[Progress], None]) -> Callable[[bytes], None]:
    """Return a function that reports new lines of output, each cut to a readable length, up to SHOWN_BYTES in all."""
    left = SHOWN_BYTES

    def report(lines: bytes) -> None:
        nonlocal left
        if left <= 0:
            return
        left -= len(lines)
        # A program that draws a bar returns to the start of its line.
        texts = [line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace") for line in lines.split(b"\n")]
        shown = [text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…" for text in texts]
        if left <= 0:
            shown = [*shown[-_SHOWN_LINES:], "… The log on the host has the rest of the output."]
        on_progress(Progress(lines="\n".join(shown)))

    return report


def _newest_progress(lines: bytes) -> Progress | None:
    """Return the last valid progress in the lines: more often than once a check, nobody could read it."""
    found = re.findall(rb"^" + progress.PREFIX.encode() + rb"[^\n]*", lines, re.MULTILINE)
    parsed = (progress.parse(line.decode(errors="replace")) for line in reversed(found))
    return next((valid for valid in parsed if valid is not None), None)


def end_session(session: int, reap: Callable[[], object] = lambda: None) -> None:
    """End the processes of a session, except those that serve its containers: an undo stops these.

    First end only the shells and what they wait with, so that a running Podman completes its change: one that is killed
    while it replaces a container leaves it half-removed. Then end the rest. `reap` collects the exit status of the
    session's leader, which otherwise stays in the process table.
    """
    for names, number, seconds in (
        (_SHELLS, signal.SIGTERM, _COMPLETE_SECONDS),
        (None, signal.SIGTERM, _END_SECONDS),
        (None, signal.SIGKILL, _END_SECONDS),
    ):
        for pid, name in _processes(session):
            if names is None or name in names:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while _processes(session):
            if time.monotonic() > deadline:
                break
            time.sleep(_TICK_SECONDS)
            reap()
        else:
            return


def _environment(pid: int) -> list[bytes]:
    """Return the variables with which a process was started; none if it has ended or belongs to another user."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _processes(session: int) -> list[tuple[int, str]]:
    """Return the ids and names of the processes of a session that have not ended. Source: pgrep(1), --runstates."""
    command = ["pgrep", "--list-name", "--runstates", "D,R,S,T,t", "--session", str(session)]
    rows = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    found = [row.partition(" ") for row in rows]
    return [(int(pid), name) for pid, _, name in found if name not in _OF_CONTAINERS]
