"""Run the `env_command` of an environment, whose output replaces its env file. The output stays in memory.

The command may prompt: on a terminal it is in the foreground, and its standard error appears as it is written.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from rolling_upgrade.config.issues import secret_values
from rolling_upgrade.engine import masking
from rolling_upgrade.engine.local_command import descendants
from rolling_upgrade.engine.local_file import MOST_BYTES
from rolling_upgrade.engine.shell import shown_command
from rolling_upgrade.engine.untrusted import size

#: Credentials of this program that no secrets manager needs.
_WITHHELD = frozenset({"DEPLOY_SSH_KEY", "REGISTRY_PASSWORD", "ROLLING_AGE_KEY"})
_ENV_LINES = "KEY=value lines on its standard output"
_TAIL_LINES, _TAIL_BYTES = 3, 8192
_CHUNK = 65_536
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 5.0

#: The outputs of this process, by command and directory: a task runs each command once.
_outputs: dict[tuple[tuple[str, ...], Path], bytes] = {}


class CommandFailed(Exception):
    """A command without a usable output: `found` says why, `expected` what it needs."""

    def __init__(self, found: str, expected: str = _ENV_LINES) -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected


def output_of(argv: Sequence[str], directory: Path, timeout_seconds: float) -> bytes:
    """Return the standard output of the command, which runs at most once per process. Raises CommandFailed."""
    key = (tuple(argv), directory)
    if key not in _outputs:
        _outputs[key] = _run(argv, directory, timeout_seconds)
    return _outputs[key]


def _run(argv: Sequence[str], directory: Path, timeout_seconds: float) -> bytes:
    interactive = _is_interactive()
    environ = {name: value for name, value in os.environ.items() if name not in _WITHHELD}
    output, errors = bytearray(), bytearray()
    process = None
    try:
        with _deferred_interrupts():
            process = _start(argv, directory, environ, interactive=interactive)
        in_time = _read(process, output, errors, time.monotonic() + timeout_seconds, echo=interactive)
    finally:
        if process is not None:
            _end(process, group=not interactive)
    name = _shown(shown_command(argv), environ, b"")
    if len(output) > MOST_BYTES:
        raise CommandFailed(f"`{name}`, which prints more than {size(MOST_BYTES)}")
    tail = _tail(errors, environ, output)
    if not in_time:
        raise CommandFailed(
            f"`{name}`, which did not end within {timeout_seconds:g} s{tail}",
            "its end in time (env_command_timeout_seconds), and a login that needs no answer in CI",
        )
    if process.returncode:
        raise CommandFailed(_ending(name, process.returncode) + tail)
    return bytes(output)


def _start(
    argv: Sequence[str], directory: Path, environ: Mapping[str, str], *, interactive: bool
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            cwd=directory,
            env=environ,
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Only the foreground process group may read from the terminal.
            start_new_session=not interactive,
        )
    except (FileNotFoundError, PermissionError) as error:
        found = (
            f"{argv[0]!r}, which is not executable"
            if isinstance(error, PermissionError)
            else f"{argv[0]!r}, which is not installed"
        )
        raise CommandFailed(found, "a program on PATH, or a path from hosts.yaml") from None
    except OSError as error:
        raise CommandFailed(f"{argv[0]!r}, which cannot be started: {error.strerror}", "a program") from None


@contextlib.contextmanager
def _deferred_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt for a signal only at the end: Python would lose the process that is about to start."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt


def _is_interactive() -> bool:
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:  # it is closed
        return False


def _read(
    process: subprocess.Popen[bytes], output: bytearray, errors: bytearray, deadline: float, *, echo: bool
) -> bool:
    """Read both outputs until the command ends or prints too much. Return false at the deadline.

    A process that the command leaves running, such as an agent, may keep the outputs open; it is not waited for.
    """
    with selectors.DefaultSelector() as selector:
        streams: tuple[IO[bytes] | None, ...] = (process.stdout, process.stderr)
        for stream, kept in zip(streams, (output, errors), strict=True):
            assert stream is not None  # noqa: S101  (both are pipes)
            selector.register(stream, selectors.EVENT_READ, kept)
        while selector.get_map():
            if time.monotonic() > deadline:
                return False
            ready = selector.select(_POLL_SECONDS)
            for key, _ in ready:
                data = os.read(key.fd, _CHUNK)
                key.data.extend(data)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.data is errors:
                    del errors[:-_TAIL_BYTES]
                    if echo:
                        _echo(data)
            if len(output) > MOST_BYTES or (not ready and process.poll() is not None):
                return True
    return _ended(process, deadline - time.monotonic())


def _echo(data: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), data)


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(process: subprocess.Popen[bytes], *, group: bool) -> None:
    """End the command with SIGTERM, then SIGKILL, with its process group or its descendants, and close its outputs."""
    if process.poll() is None:
        members = [*descendants(process.pid), process.pid]
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if group:
                    os.killpg(process.pid, number)
            for pid in [] if group else members:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            if _ended(process, _GRACE_SECONDS):
                break
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _ending(name: str, status: int) -> str:
    if status < 0:
        return f"`{name}`, which was killed by signal {-status}"
    return f"`{name}`, which failed with exit code {status}"


def _tail(errors: bytes | bytearray, environ: Mapping[str, str], output: bytes | bytearray) -> str:
    """Return the last lines of the errors in one line, without secrets."""
    lines = [line.strip() for line in _shown(errors.decode(errors="replace"), environ, output).splitlines()]
    last = [line for line in lines if line][-_TAIL_LINES:]
    return f": {'; '.join(last)}" if last else ""


def _shown(text: str, environ: Mapping[str, str], output: bytes | bytearray) -> str:
    """Mask the secrets of the environment, of earlier files, and every value that the command has printed."""
    printed = re.findall(r"^[\w ]+=\s*(.*?)\s*$", output.decode(errors="replace"), re.MULTILINE)
    values = {part for value in printed for part in (value, value.strip("'\""))}
    return masking.safe(text, (*masking.remembered(), *secret_values(environ.items()), *values))
