"""The input of commands on many hosts: chunks, their order, the slowest host, and the end."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event, Thread

import pytest

from rolling_upgrade.errors import ConnectionDropped
from rolling_upgrade.features.exec.input import READY, Receiver, has_input, read


class Command:
    """A command on a host that receives chunks, and keeps them until `open` is set."""

    def __init__(self) -> None:
        self.output: list[bytes] = []
        self.sent: list[bytes] = []
        self.open, self.ended = Event(), Event()
        self.open.set()
        self.receiver = Receiver(self.output.append)
        self.receiver.opened(self._send)

    def _send(self, data: bytes) -> None:
        assert self.open.wait(20)
        self.sent.append(data)
        if data.startswith(b"0\n"):
            self.ended.set()

    @property
    def content(self) -> bytes:
        return b"".join(data.partition(b"\n")[2] for data in self.sent)


def write(descriptor: int, content: bytes) -> None:
    """Write everything, and close the descriptor."""
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


@pytest.fixture
def pipe() -> tuple[int, int]:
    return os.pipe()


def test_input_reaches_every_command_with_its_end(pipe: tuple[int, int]) -> None:
    commands = [Command(), Command()]
    for command in commands:
        command.receiver.received(READY)
    content = os.urandom(300_000)
    read(pipe[0], [command.receiver for command in commands])
    os.write(pipe[1], content[:10])
    writer = Thread(target=write, args=(pipe[1], content[10:]))
    writer.start()

    assert all(command.ended.wait(20) for command in commands)
    writer.join(20)
    assert [command.content == content for command in commands] == [True, True]
    assert commands[0].sent[-1] == b"0\n"


def test_input_waits_for_the_script_to_be_ready(pipe: tuple[int, int]) -> None:
    command = Command()
    read(pipe[0], [command.receiver])
    os.close(pipe[1])
    assert not command.ended.wait(0.3)

    for piece in (READY[:2], READY[2:] + b"out"):
        command.receiver.received(piece)

    assert (command.ended.wait(20), command.output) == (True, [b"out"])


def test_input_waits_for_the_slowest_command_instead_of_collecting_in_memory(pipe: tuple[int, int]) -> None:
    command = Command()
    command.open.clear()
    command.receiver.received(READY)
    read(pipe[0], [command.receiver])
    os.set_blocking(pipe[1], False)
    accepted, stuck = 0, Event()
    for _ in range(200):
        try:
            accepted += os.write(pipe[1], bytes(65_536))
        except BlockingIOError:
            if stuck.wait(0.05):
                break
    assert accepted < 2_000_000

    command.open.set()
    os.close(pipe[1])
    assert (command.ended.wait(20), len(command.content)) == (True, accepted)


def test_input_of_a_command_that_has_ended_does_not_hold_the_others_up(pipe: tuple[int, int]) -> None:
    ended, command = Command(), Command()
    ended.receiver.end()
    command.receiver.received(READY)
    read(pipe[0], [ended.receiver, command.receiver])
    writer = Thread(target=write, args=(pipe[1], bytes(2_000_000)))
    writer.start()

    assert (command.ended.wait(20), len(command.content), ended.sent) == (True, 2_000_000, [])
    writer.join(20)


def test_input_after_a_lost_connection_is_dropped() -> None:
    receiver, tried = Receiver(lambda _: None), Event()

    def send(_: bytes) -> None:
        tried.set()
        raise ConnectionDropped("web1: dropped.")

    receiver.opened(send)
    receiver.received(READY)
    receiver.put(b"x")

    assert tried.wait(20)


def test_has_input_needs_a_pipe_or_a_file(pipe: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    closed = os.open(os.devnull, os.O_RDONLY)
    assert not has_input(closed)
    os.close(closed)
    file = os.open(tmp_path / "file", os.O_RDONLY)

    assert (has_input(pipe[0]), has_input(file), has_input(closed if closed != file else 999)) == (True, True, False)
    os.close(file)
