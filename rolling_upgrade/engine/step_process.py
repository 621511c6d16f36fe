"""Run the script of one step on this host, in a session of its own, with its output in the run's journal.

A step checks the run's lock and extends its lease, and holds `lock/stage` while it runs. The lock is held by flock(1),
so that a step which outlives its killed executor still keeps the next run waiting.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from rolling_upgrade.engine import lock_file, progress
from rolling_upgrade.engine.host import Answer, Cancelled
from rolling_upgrade.engine.plan import Step
from rolling_upgrade.engine.progress import Progress
from rolling_upgrade.engine.shell import ENVIRONMENT

#: Exit status of a step that ran longer than its time limit. Source: timeout(1).
TIMED_OUT_STATUS = 124
#: The bytes of a step's output in its answer.
OUTPUT_BYTES = 65_536
_TICK_SECONDS = 0.1
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

    def renew(self, seconds: float = 0.0) -> str:
        """Extend the lease of the run's lock; return '', or a text that names the other holder."""
        return lock_file.renew(self._home, self._run_id, seconds + self._lease_seconds) if self._is_locked else ""

    def run(self, step: Step, *, stop: Callable[[], bool], on_progress: Callable[[Progress], None]) -> Answer:
        """Run the step to its end. Raises Cancelled once `stop` returns True and all processes of the step have ended."""
        if lost := self.renew(step.timeout_seconds):
            return Answer(lock_file.LOST_STATUS, lost)
        with suppress(OSError):
            self._path(step, "status").unlink(missing_ok=True)
        with self._log(step) as log, _program(step) as program:
            process = subprocess.Popen(
                self._command(step), stdin=program, stdout=log, stderr=log, start_new_session=True
            )
            self._write(step, "session", f"{process.pid}\n")
            try:
                _wait(process, log, stop, on_progress)
            except BaseException:
                end_session(process.pid, process.poll)
                process.wait()
                self._write(step, "status", "143\n")
                raise
            status = process.returncode if process.returncode >= 0 else 128 - process.returncode
            self._write(step, "status", f"{status}\n")
            return Answer(status, progress.without_progress(_tail(log)))

    def end_leftovers(self) -> None:
        """End the steps of a killed executor that still run. After a reboot a process id may belong to another program."""
        for session in self._journal.glob("*.session"):
            if session.with_suffix(".status").exists():
                continue
            with suppress(OSError, ValueError):
                pid = int(session.read_text(encoding="ascii"))
                if f"{self._home}/lock/stage" in Path(f"/proc/{pid}/cmdline").read_text(errors="replace"):
                    end_session(pid)

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

    def _log(self, step: Step) -> IO[bytes]:
        """Open the log of the step, in memory if the disk is full: an undo has to run there, too."""
        try:
            return self._path(step, "log").open("w+b")
        except OSError:
            return os.fdopen(os.memfd_create("log"), "w+b")

    def _path(self, step: Step, suffix: str) -> Path:
        # The ids of setup's steps contain paths.
        name = step.id.replace("%", "%25").replace("/", "%2F")[:_LONGEST_NAME]
        return self._journal / f"{name}.{suffix}"

    def _write(self, step: Step, suffix: str, text: str) -> None:
        path = self._path(step, suffix)
        with suppress(OSError):
            new = path.with_name(f"{path.name}.new")
            new.write_text(text, encoding="ascii")
            new.replace(path)


def _program(step: Step) -> IO[bytes]:
    """Return the step's script as a file in memory. No command line and no file on disk shows it."""
    file = os.fdopen(os.memfd_create("step"), "w+b")
    file.write(f"{ENVIRONMENT}main() {{\n{step.script.text}\n}}\nmain </dev/null\n".encode(errors="surrogateescape"))
    file.seek(0)
    return file


def _wait(
    process: subprocess.Popen[bytes], log: IO[bytes], stop: Callable[[], bool], on_progress: Callable[[Progress], None]
) -> None:
    """Wait for the end of the process, and report the progress that its log contains."""
    handle = os.pidfd_open(process.pid)
    rest, position = b"", 0
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        while True:
            ended = bool(poll.poll(_TICK_SECONDS * 1000))
            new = os.pread(log.fileno(), OUTPUT_BYTES, position)
            position += len(new)
            *lines, rest = (rest + new).split(b"\n")
            for line in lines:
                if (found := progress.parse(line.decode(errors="replace"))) is not None:
                    on_progress(found)
            rest = rest[-OUTPUT_BYTES:]
            if ended:
                process.wait()
                return
            if stop():
                raise Cancelled(str(process.args))
    finally:
        os.close(handle)


def _tail(log: IO[bytes]) -> str:
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), OUTPUT_BYTES, max(0, size - OUTPUT_BYTES)).decode(errors="replace")


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


def _processes(session: int) -> list[tuple[int, str]]:
    """Return the ids and names of the processes of a session that have not ended. Source: pgrep(1), --runstates."""
    command = ["pgrep", "--list-name", "--runstates", "D,R,S,T,t", "--session", str(session)]
    rows = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    found = [row.partition(" ") for row in rows]
    return [(int(pid), name) for pid, _, name in found if name not in _OF_CONTAINERS]
