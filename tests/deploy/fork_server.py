"""A fork server: one process imports all modules, then forks a process for each task, so that tasks start at once.

A forked task equals `python -m invoke`: it has its own arguments, environment, directory, session and standard streams
and no other open file. Only /proc shows the arguments and the environment of the server instead of its own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
#: The packages of which the server imports every module, and the modules that tasks import lazily.
PACKAGES = ("fabfile", "rolling_upgrade")
LAZY_IMPORTS = ("dotenv", "fabric", "invoke.program", "jinja2", "paramiko", "tasks")
_LONGEST = 1 << 20


class ForkedTask:
    """A running task, with what tests use of `subprocess.Popen`."""

    def __init__(self, words: Sequence[str], connection: socket.socket, output: int) -> None:
        self.args = words
        self.returncode: int | None = None
        self._connection, self._output, self._received = connection, output, b""
        self.pid = int(connection.recv(_LONGEST))

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Return the output of the task after its end. Raises TimeoutExpired as Popen does."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._output >= 0:
            self._wait_for(self._output, deadline)
            if chunk := os.read(self._output, _LONGEST):
                self._received += chunk
            else:
                os.close(self._output)
                self._output = -1
        if self.returncode is None:
            self._wait_for(self._connection.fileno(), deadline)
            self._end()
        return self._received.decode().replace("\r\n", "\n").replace("\r", "\n"), None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the task. Return its exit code."""
        if self.returncode is None:
            self._wait_for(self._connection.fileno(), None if timeout is None else time.monotonic() + timeout)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit code, or None while the task runs."""
        if self.returncode is None and _readable(self._connection.fileno(), 0):
            self._end()
        return self.returncode

    def _wait_for(self, descriptor: int, deadline: float | None) -> None:
        left = None if deadline is None else max(0, deadline - time.monotonic())
        if not _readable(descriptor, left):
            assert left is not None
            raise subprocess.TimeoutExpired(self.args, left, output=self._received)

    def _end(self) -> None:
        """Read the exit code. From here on, the kernel may reuse the process id."""
        status = self._connection.recv(_LONGEST)
        assert status, "the fork server has ended"
        self.returncode = int(status)
        self._connection.close()


class ForkServer:
    """The client of the server process, which ends with the process that started it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.deploy.fork_server", str(theirs.fileno())],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def start(self, words: Sequence[str], directory: Path, environment: Mapping[str, str]) -> ForkedTask:
        """Start `python -m invoke` with these arguments and both outputs merged."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reading, writing = os.pipe()
        request = json.dumps([list(words), str(directory), dict(environment), _umask()]).encode()
        with theirs, self._lock:
            socket.send_fds(self._control, [request], [theirs.fileno(), writing])
        os.close(writing)
        return ForkedTask(words, ours, reading)


@cache
def fork_server() -> ForkServer:
    """Return the fork server of this test process."""
    return ForkServer()


def _umask() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("\nUmask:")[2].split()[0], 8)


def _readable(descriptor: int, seconds: float | None) -> bool:
    with selectors.PollSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(seconds))


def main(control: socket.socket) -> None:
    """Import all modules and fork for each request. The forked process becomes the task."""
    sys.argv[0] = "invoke/__main__.py"  # errors.PROGRAM is read from it once, at import
    for name in PACKAGES:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in LAZY_IMPORTS:
        importlib.import_module(name)
    _fill_caches()
    gc.collect()
    gc.freeze()
    if request := _serve(control):
        words, directory, environment, umask = json.loads(request)
        os.umask(umask)
        os.chdir(directory)
        sys.path[0] = directory
        os.environ.clear()
        os.environ.update(environment)
        time.tzset()
        sys.argv[1:] = words
        runpy.run_module("invoke", run_name="__main__", alter_sys=True)


def _fill_caches() -> None:
    """Pack the site program and compile its template, once for all tasks."""
    from rolling_upgrade import rendering
    from tests.support.sample import application

    rendering.site_program()
    rendering.nginx_site(application())


def _serve(control: socket.socket) -> bytes:
    """Fork for each request. Return the request in the forked process, and nothing at the end of the server."""
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                selector.unregister(key.fileobj)
                key.data()
                continue
            request, descriptors, _, _ = socket.recv_fds(control, _LONGEST, 2)
            if not request:
                return b""
            pid = os.fork()
            if pid == 0:
                control.detach()
                selector.close()
                _detach(descriptors[1])
                return request
            os.close(descriptors[1])
            _follow(selector, pid, socket.socket(fileno=descriptors[0]))


def _follow(selector: selectors.BaseSelector, pid: int, client: socket.socket) -> None:
    """Send the client the process id and the exit code. The id is not reused before the client has left."""
    client.send(b"%d" % pid)
    descriptor = os.pidfd_open(pid)

    def report() -> None:
        os.close(descriptor)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        with suppress(BrokenPipeError):
            client.send(b"%d" % code)
        selector.register(client, selectors.EVENT_READ, reap)

    def reap() -> None:
        client.close()
        os.waitpid(pid, 0)

    selector.register(descriptor, selectors.EVENT_READ, report)


def _detach(output: int) -> None:
    """Start a new session, and close every file except the standard ones."""
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
