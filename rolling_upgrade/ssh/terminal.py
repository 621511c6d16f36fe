"""Connect this terminal to a remote one until the remote program ends."""

from __future__ import annotations

import os
import select
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paramiko import Channel

_CHUNK = 65536
_POLL_SECONDS = 0.5


def attach(channel: Channel, keys: int, screen: int) -> None:
    """Copy input and output until the host closes the channel or the input ends; `keys` and `screen` are descriptors.

    The terminal is in raw mode, so that keys such as Ctrl-C reach the remote program, and is restored afterwards.
    Changes of the window size are passed on.
    """
    with _raw(keys), _sized(channel, screen):
        sources: list[object] = [channel, keys]
        while True:
            ready, _, _ = select.select(sources, [], [], _POLL_SECONDS)  # type: ignore[type-var]
            if channel in ready:
                piece = channel.recv(_CHUNK)
                if not piece:
                    return
                _write(screen, piece)
            if keys in ready:
                typed = _read(keys)
                if not typed:
                    return
                channel.sendall(typed)


def _read(keys: int) -> bytes:
    try:
        return os.read(keys, _CHUNK)
    except OSError:  # the terminal was closed
        return b""


def _write(screen: int, piece: bytes) -> None:
    while piece:
        piece = piece[os.write(screen, piece) :]


@contextmanager
def _raw(keys: int) -> Iterator[None]:
    before = termios.tcgetattr(keys)
    try:
        tty.setraw(keys, termios.TCSADRAIN)  # keeps input that was typed ahead
        yield
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)


@contextmanager
def _sized(channel: Channel, screen: int) -> Iterator[None]:
    def resize(_number: int = 0, _frame: FrameType | None = None) -> None:
        columns, rows = os.get_terminal_size(screen)
        channel.resize_pty(columns, rows)

    before = signal.signal(signal.SIGWINCH, resize)
    try:
        resize()
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
