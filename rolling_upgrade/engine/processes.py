"""Linux processes of this machine: end the leftovers of a command, and protect memory from other processes.

On other systems, these functions do nothing. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Source: prctl(2), capabilities(7), linux/prctl.h, linux/capability.h.
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_CAP_SYS_PTRACE = 19
_CAPABILITY_VERSION_3 = 0x20080522
_POLL_SECONDS = 0.01


def forbid_inspection() -> None:
    """Protect this process's memory, environment, /proc files and ptrace access from other processes of this user."""
    _prctl(_PR_SET_DUMPABLE, 0)


def drop_tracing() -> Callable[[], None] | None:
    """A function that drops the right to trace, for a child to call before its program starts; None unless this is root.

    A root process has CAP_SYS_PTRACE and can read the memory of every process, even after `forbid_inspection`.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return None
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Two words each of the effective, permitted and inheritable capabilities; this one is in the first word.
    sets = (ctypes.c_uint32 * 6)()

    def drop() -> None:
        libc.prctl(_PR_CAPBSET_DROP, _CAP_SYS_PTRACE, 0, 0, 0)
        if libc.capget(header, sets) == 0:
            sets[2] &= ~(1 << _CAP_SYS_PTRACE)
            libc.capset(header, sets)

    return drop


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Become the parent of each orphaned descendant, so that no daemon escapes."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _prctl(_PR_SET_CHILD_SUBREAPER, 0)


def descendants(pid: int) -> dict[int, str]:
    """The start time of each descendant of a process, by pid; empty without /proc."""
    stats = {int(path.name): stat(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found: dict[int, str] = {}
    generation = {pid}
    while generation := {
        child for child, fields in stats.items() if fields and int(fields[0]) in generation and child not in found
    }:
        found |= {child: stats[child][1] for child in generation}
    return found


def end_descendants(*, keep: dict[int, str], seconds: float) -> dict[int, str]:
    """Kill all descendants except those in `keep`, for at most `seconds`; return the survivors."""
    deadline = time.monotonic() + seconds
    while running := {pid: start for pid, start in descendants(os.getpid()).items() if keep.get(pid) != start}:
        if time.monotonic() > deadline:
            return running
        for pid in running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(_POLL_SECONDS)
    return {}


def stat(pid: int) -> tuple[str, ...]:
    """The parent of a process and its start time in kernel ticks; empty if it has ended.

    Source: proc_pid_stat(5): fields 4 and 22; the name before them is in brackets and may hold anything.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ()
    return fields[1], fields[19]


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
