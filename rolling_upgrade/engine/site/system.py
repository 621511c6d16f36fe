"""System access of the site program: bounded reads, atomic writes, and protection from its caller."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rolling_upgrade.engine.site.schema import LARGEST

READ_SECONDS, LOCK_SECONDS, COMMAND_SECONDS = 10.0, 60.0, 60.0
LARGEST_MESSAGE = 4096
_IN_SCOPE = "--in-scope"
_LARGEST_TEXT = 4 * 1024 * 1024
#: Signals that the caller could send to its sudo, directly or by a timer: a change must finish or be undone.
#: Source: execve(2): interval timers continue.
_IGNORED_SIGNALS = (
    *("HUP", "INT", "QUIT", "TERM", "PIPE", "USR1", "USR2", "ALRM", "VTALRM", "PROF"),
    *("IO", "TSTP", "TTIN", "TTOU", "XFSZ", "XCPU"),
)


class Refused(Exception):
    """The command was refused or failed; `code` is the exit code."""

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.code = code


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program in its own session, so that a signal to the caller's process group does not reach it."""
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=COMMAND_SECONDS,
        check=False,
        start_new_session=True,
    )


def read_text(path: Path) -> str:
    """The text of a root-owned file, up to a limit; '' if the file is missing."""
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_TEXT).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically and durably. The write replaces the leftover of an earlier attempt."""
    new = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def read_input() -> bytes:
    """Read one document of limited size from standard input, within ten seconds. Raises Refused."""
    data, deadline = b"", time.monotonic() + READ_SECONDS
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([0], [], [], left)[0]:
            raise Refused(f"refused: standard input did not end within {READ_SECONDS:.0f} s")
        chunk = os.read(0, 65_536)
        data += chunk
        if not chunk:
            return data
        if len(data) > LARGEST:
            raise Refused(f"refused: standard input is larger than {LARGEST // 1024} KiB")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock for changes of any site on the host. Raises Refused after a minute."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Refused("another change of a site on this host has not ended within a minute", 1) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def enter_scope(program: Path, words: Sequence[str]) -> Sequence[str]:
    """Re-execute the program in a systemd scope unless it runs in one; return its arguments without the marker.

    The caller owns the cgroup in which it starts sudo, and could freeze or kill every process in it. The sudo rule
    allows exactly one word, so the marker never comes from the caller. Source: cgroups(7), delegation; systemd-run(1),
    --scope.
    """
    if tuple(words[:1]) != (_IN_SCOPE,):
        scope = ("--scope", "--quiet", "--collect", "--", str(program), _IN_SCOPE, *words)
        os.execvp("systemd-run", ("systemd-run", *scope))  # noqa: S606
    return words[1:]


def reset_inherited_state() -> None:
    """Reset the signals and limits of the caller that could stop a change half-way or hide a failed command."""
    # With an inherited SIG_IGN for SIGCHLD, the exit status of a command would be lost. Source: waitpid(2), ECHILD.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for name in _IGNORED_SIGNALS:
        signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("0")
    for kind in (resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_DATA):
        _raise_limit(kind, resource.RLIM_INFINITY)
    _raise_limit(resource.RLIMIT_NOFILE, 1024)
    os.umask(0o022)
    os.chdir("/")


def _raise_limit(kind: int, least: int) -> None:
    """Raise a limit of the caller; without the privilege, only up to its hard limit. Source: getrlimit(2)."""
    soft, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY and (least == resource.RLIM_INFINITY or hard < least):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (least, least))
            return
    resource.setrlimit(kind, (hard, hard) if least == resource.RLIM_INFINITY else (max(soft, min(least, hard)), hard))


def write_message(text: str) -> None:
    """Print a message of limited length; a closed output is no error."""
    with contextlib.suppress(OSError):
        print(text[: LARGEST_MESSAGE * 2], flush=True)
