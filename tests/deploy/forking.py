"""Tasks that begin at once: a process that has imported everything forks a process for each of them.

What is forked is like a process of `python -m invoke`: its own arguments, environment, directory, session and standard
streams, no other open file, and the end that the interpreter gives it. It differs in what /proc shows of its arguments
and of its environment: both are those of the process that forked it.
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
#: The packages whose modules are all imported beforehand, and what else tasks import as they need it.
OURS = ("fabfile", "rolling_upgrade")
OTHERS = ("dotenv", "fabric", "invoke.program", "jinja2", "paramiko", "tasks")
_LONGEST = 1 << 20


class Forked:
    """A task that was begun, with what tests use of `subprocess.Popen`."""

    def __init__(self, words: Sequence[str], connection: socket.socket, output: int) -> None:
        self.args = words
        self.returncode: int | None = None
        self._connection, self._output, self._said = connection, output, b""
        self.pid = int(connection.recv(_LONGEST))

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Everything it says until its end. Raises TimeoutExpired when that takes longer, as Popen does."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._output >= 0:
            self._wait_for(self._output, deadline)
            if part := os.read(self._output, _LONGEST):
                self._said += part
            else:
                os.close(self._output)
                self._output = -1
        if self.returncode is None:
            self._wait_for(self._connection.fileno(), deadline)
            self._end()
        return self._said.decode().replace("\r\n", "\n").replace("\r", "\n"), None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended."""
        if self.returncode is None:
            self._wait_for(self._connection.fileno(), None if timeout is None else time.monotonic() + timeout)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        if self.returncode is None and _readable(self._connection.fileno(), 0):
            self._end()
        return self.returncode

    def _wait_for(self, descriptor: int, deadline: float | None) -> None:
        left = None if deadline is None else max(0, deadline - time.monotonic())
        if not _readable(descriptor, left):
            assert left is not None
            raise subprocess.TimeoutExpired(self.args, left, output=self._said)

    def _end(self) -> None:
        """Take over how it ended. Its process id is free from here on."""
        told = self._connection.recv(_LONGEST)
        assert told, "the process that forks tasks has ended"
        self.returncode = int(told)
        self._connection.close()


class Forker:
    """The process that forks, as the tests have it. It ends with the process that started it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.deploy.forking", str(theirs.fileno())],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def start(self, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Forked:
        """Begin `python -m invoke` with these words, its two outputs in one."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reading, writing = os.pipe()
        order = json.dumps([list(words), str(folder), dict(environment), _umask()]).encode()
        with theirs, self._lock:
            socket.send_fds(self._control, [order], [theirs.fileno(), writing])
        os.close(writing)
        return Forked(words, ours, reading)


@cache
def forker() -> Forker:
    """The one of this process."""
    return Forker()


def _umask() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("\nUmask:")[2].split()[0], 8)


def _readable(descriptor: int, seconds: float | None) -> bool:
    with selectors.PollSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(seconds))


def main(control: socket.socket) -> None:
    """Import everything, fork for each order, and in the forked process be the task."""
    for name in OURS:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in OTHERS:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    if order := _serve(control):
        words, folder, environment, umask = json.loads(order)
        os.umask(umask)
        os.chdir(folder)
        sys.path[0] = folder
        os.environ.clear()
        os.environ.update(environment)
        time.tzset()
        sys.argv[1:] = words
        runpy.run_module("invoke", run_name="__main__", alter_sys=True)


def _serve(control: socket.socket) -> bytes:
    """Fork for each order; its bytes in the forked process, none at the end of all."""
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                selector.unregister(key.fileobj)
                key.data()
                continue
            order, descriptors, _, _ = socket.recv_fds(control, _LONGEST, 2)
            if not order:
                return b""
            pid = os.fork()
            if pid == 0:
                control.detach()
                selector.close()
                _stand_alone(descriptors[1])
                return order
            os.close(descriptors[1])
            _follow(selector, pid, socket.socket(fileno=descriptors[0]))


def _follow(selector: selectors.BaseSelector, pid: int, asker: socket.socket) -> None:
    """Tell who asked for a process its id and its end. Until it knows, the process is a zombie: its id is not free."""
    asker.send(b"%d" % pid)
    descriptor = os.pidfd_open(pid)

    def tell() -> None:
        os.close(descriptor)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        with suppress(BrokenPipeError):
            asker.send(b"%d" % code)
        selector.register(asker, selectors.EVENT_READ, forget)

    def forget() -> None:
        asker.close()
        os.waitpid(pid, 0)

    selector.register(descriptor, selectors.EVENT_READ, tell)


def _stand_alone(output: int) -> None:
    """A session of its own, and no file but the standard ones."""
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
