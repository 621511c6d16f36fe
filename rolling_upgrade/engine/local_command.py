"""Run one command on this workstation and read its output line by line while it runs.

The environment of a command is an allow list without secrets. On Linux, the processes that a command leaves running are
ended, and the memory of this process is protected from others. Standard library only (Python 3.10+).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import IO

from rolling_upgrade.engine import untrusted

#: The number of last lines to keep for an error.
TAIL_LINES = 30
#: The time between SIGTERM and SIGKILL.
GRACE_SECONDS = 10.0
#: The longest part of a line to read at a time: a program may never print a line break.
_LONGEST_LINE = 65_536


@dataclass(frozen=True)
class CommandResult:
    """The result of a command.

    `output_tail` has the last lines of both outputs, `left_running` counts the processes of a confined command that
    survived. `output` is the whole standard output, from `capture` only.
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
    directory: str | None = None,
    base: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout_seconds: float,
    confined: bool = False,
    may_trace: bool = False,
    stdout_only: bool = False,
) -> CommandResult:
    """Run a command in its own process group and pass on each line of both outputs.

    With `stdout_only`, `on_line` gets only lines of standard output. A carriage return ends a line too, so that the
    caller's prefix precedes every part of it.

    `env` is added to `base`, by default the `application_environment`. At the end, and on an interrupt, this function
    ends the processes that the command left running. `confined` is for untrusted code: all its descendants are ended,
    daemons included, and as root it may trace no other process, unless `may_trace`. Raises OSError if the command
    cannot be started.
    """
    started_at = time.monotonic()
    environment = application_environment(os.environ) if base is None else base
    before = descendants(os.getpid()) if confined and _has_children() else {}
    lines, errors = deque[str](maxlen=TAIL_LINES), deque[str](maxlen=TAIL_LINES)
    timed_out, survivors = False, dict[int, str]()
    with adopting_orphans() if confined else contextlib.nullcontext():
        trace = may_trace or not confined
        process = _start(argv, directory, {**environment, **(env or {})}, trace=trace, stdout_only=stdout_only)
        streams = ((process.stdout, on_line, lines), (process.stderr, lambda _: None, errors))
        readers = [Thread(target=_read, args=stream, daemon=True) for stream in streams if stream[0] is not None]
        try:
            for reader in readers:
                reader.start()
            _write_input(process, stdin)
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _end(process)
            if confined:
                survivors = end_descendants(keep=before, seconds=GRACE_SECONDS)
            for reader in readers:
                if reader.ident is not None:
                    reader.join(GRACE_SECONDS)
    tail = "\n".join([*lines, *errors][-TAIL_LINES:])
    return CommandResult(process.returncode, time.monotonic() - started_at, tail, timed_out, len(survivors))


def capture(
    argv: Sequence[str], *, timeout_seconds: float, base: Mapping[str, str] | None = None, confined: bool = False
) -> CommandResult:
    """Run a command and return its standard output in `output`, at most untrusted.ANSWER_BYTES of it.

    A missing program has the status 127.
    """
    lines: list[str] = []
    remaining = untrusted.ANSWER_BYTES

    def keep(line: str) -> None:
        nonlocal remaining
        remaining -= len(line) + 1
        if remaining >= 0:
            lines.append(line)

    try:
        result = run(argv, keep, base=base, timeout_seconds=timeout_seconds, confined=confined, stdout_only=True)
    except OSError as error:
        return CommandResult(127, 0.0, str(error))
    return replace(result, output="\n".join(lines))


def _start(
    argv: Sequence[str], directory: str | None, environment: Mapping[str, str], *, trace: bool, stdout_only: bool
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        cwd=directory,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if stdout_only else subprocess.STDOUT,
        start_new_session=True,
        # The function only calls the kernel and takes no lock, so other threads of this process do not matter.
        preexec_fn=None if trace else drop_tracing(),
    )


def _write_input(process: subprocess.Popen[bytes], text: str) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError), process.stdin as keyboard:
            keyboard.write(text.encode())


def _read(stream: IO[bytes], on_line: Callable[[str], None], tail: deque[str]) -> None:
    with stream:
        while piece := stream.readline(_LONGEST_LINE):
            text = piece.decode(errors="replace").rstrip("\r\n")
            for line in [part for part in text.split("\r") if part] or [""]:
                tail.append(line)
                on_line(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group with SIGTERM, then SIGKILL, and also descendants in other sessions.

    When Podman is terminated, it leaves such a descendant: the container of a build step.
    """
    started: dict[int, str] = {}
    if process.poll() is None:
        started = descendants(process.pid)
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait()
    for pid, start in started.items():
        if _stat(pid)[1:] == (start,):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


#: Credentials for hosts, env files and registries, and the addresses of agents. A configuration cannot pass them on.
SECRET_VARIABLES = frozenset(
    {
        "ANSIBLE_VAULT_PASSWORD_FILE",
        "DEPLOY_SSH_KEY",
        "GPG_AGENT_INFO",
        "REGISTRY_PASSWORD",
        "ROLLING_AGE_KEY",
        "ROLLING_AGE_KEY_FILE",
        "SSH_AGENT_PID",
        "SSH_AUTH_SOCK",
    }
)
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
_ALLOWED = (
    frozenset(
        {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "NO_COLOR"}
        | {"TMPDIR", "TMP", "TEMP", "CI", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    )
    | _PROXIES
    | {name.lower() for name in _PROXIES}
)
_ALLOWED_PREFIXES = ("LC_",)
#: The variables of Podman, Buildah and Docker. Source: podman(1), buildah(1), containers.conf(5), Docker's "CLI reference".
_ENGINE_PREFIXES = (
    *("BUILDAH_", "BUILDKIT_", "BUILDX_", "CONTAINER_", "CONTAINERS_", "DBUS_", "DOCKER_", "PODMAN_", "REGISTRY_AUTH_"),
    *("STORAGE_", "XDG_"),
)
#: The address of a remote engine; `ssh://` needs the agent.
_REMOTE_ENGINE = ("CONTAINER_HOST", "DOCKER_HOST")
_GIT_PREFIXES = ("GIT_CONFIG", "GIT_CEILING_", "GIT_DISCOVERY_", "XDG_CONFIG_HOME")


def application_environment(environ: Mapping[str, str], passed: Iterable[str] = ()) -> dict[str, str]:
    """The environment of application code and configured commands: the allow list, and the names in `passed`."""
    names = frozenset(passed)
    return _select(environ, lambda name: name in names or _is_allowed(name))


def engine_environment(environ: Mapping[str, str], passed: Iterable[str] = ()) -> dict[str, str]:
    """The environment of the container engine: also its own variables, and the SSH agent for a remote engine."""
    selected = application_environment(environ, passed) | _select(
        environ, lambda name: name.startswith(_ENGINE_PREFIXES)
    )
    if any(selected.get(name, "").startswith("ssh://") for name in _REMOTE_ENGINE) and "SSH_AUTH_SOCK" in environ:
        selected["SSH_AUTH_SOCK"] = environ["SSH_AUTH_SOCK"]
    return selected


def git_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of Git in a work tree of the application: also the location of its configuration."""
    return application_environment(environ) | _select(environ, lambda name: name.startswith(_GIT_PREFIXES))


def _is_allowed(name: str) -> bool:
    return name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)


def _select(environ: Mapping[str, str], is_selected: Callable[[str], bool]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in SECRET_VARIABLES and is_selected(name)}


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
    """A function for a child to drop the right to trace before its program starts; None unless this process is root.

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
    stats = {int(path.name): _stat(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found: dict[int, str] = {}
    generation = {pid}
    while generation := {
        child for child, fields in stats.items() if fields and int(fields[0]) in generation and child not in found
    }:
        found |= {child: stats[child][1] for child in generation}
    return found


def _has_children() -> bool:
    """Whether this process may have a child. Without one it has no descendant, and nobody has to search /proc."""
    if not hasattr(os, "waitid"):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_descendants(*, keep: dict[int, str], seconds: float) -> dict[int, str]:
    """Kill all descendants except those in `keep`, for at most `seconds`; return the survivors."""
    deadline = time.monotonic() + seconds
    while _has_children() and (
        running := {pid: start for pid, start in descendants(os.getpid()).items() if keep.get(pid) != start}
    ):
        if time.monotonic() > deadline:
            return running
        for pid in running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(_POLL_SECONDS)
    return {}


def _stat(pid: int) -> tuple[str, ...]:
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
