"""The outbox: stored messages, which a second process sends, oldest first.

Sending mail needs more memory than the watchdog may use, and a channel may take seconds; so the watchdog starts a
process for it, one at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Channels, Notice
from rolling_upgrade.engine.serialization import from_plain, to_plain
from rolling_upgrade.errors import ExitCode
from rolling_upgrade.features.watchdog import state_store
from rolling_upgrade.features.watchdog.state_store import log

#: Pause between two attempts to send a message that no channel accepted, and the age at which it is dropped.
RETRY_SECONDS, EXPIRY_SECONDS = 60.0, 86_400.0
#: The number of messages above which the oldest are dropped.
CAPACITY = 100


def put(home: Path, notice: Notice, channels: Channels) -> None:
    """Store a notice for sending, if a channel accepts its severity; in memory if the disk is full."""
    if not channels.accepting(notice.severity):
        return
    for directory in _directories(home):
        with suppress(OSError):
            directory.mkdir(mode=0o700, exist_ok=True)
            state_store.replace_file(directory / f"{time.time_ns():020d}.json", json.dumps(to_plain(notice)))
            break
    else:
        log(f"message '{notice.id}' is lost: it could be stored neither on disk nor in memory")
    for old in waiting(home)[:-CAPACITY]:
        _drop(old, "too many pending messages")


def waiting(home: Path) -> list[Path]:
    """The stored messages, oldest first."""
    paths = (path for directory in _directories(home) for path in directory.glob("*.json"))
    return sorted(paths, key=lambda path: path.name)


def _directories(home: Path) -> tuple[Path, ...]:
    """The directories on disk and in memory. Source: pam_systemd(8): XDG_RUNTIME_DIR is a file system in memory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    disk = state_store.directory(home) / "outbox"
    return (disk, Path(runtime) / f"{home.name}-outbox") if runtime else (disk,)


class Sender:
    """Starts the process that sends, while messages wait and none runs."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._child: subprocess.Popen[bytes] | None = None
        self._tried: list[Path] = []
        self._at = 0.0

    def send(self, now: float) -> None:
        """Start the process if a message is due; do not wait for it. `now` is seconds on a clock that never jumps."""
        if self._child is not None and self._child.poll() is None:
            return
        messages = waiting(self._home)
        if not messages or (set(messages) <= set(self._tried) and now - self._at < RETRY_SECONDS):
            return
        self._tried, self._at = messages, now
        command = [sys.executable, "-I", sys.argv[0], "send", str(self._home)]
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        except OSError as error:
            log(f"messages could not be sent: {error.strerror}")


def deliver(home: Path) -> ExitCode:
    """Send the stored messages. FAILED at the first that reaches no channel; it and the later ones stay stored."""
    settings = state_store.load_settings(home)
    with (state_store.directory(home) / "watchdog.pyz").open() as program:
        try:
            fcntl.flock(program, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return ExitCode.LOCKED
        for path in waiting(home):
            if not _sent(path, settings.channels):
                return ExitCode.FAILED
    return ExitCode.DONE


def _sent(path: Path, channels: Channels) -> bool:
    """Send one message; return whether it left the outbox."""
    from rolling_upgrade.features.notify.packed import template
    from rolling_upgrade.features.notify.send import send

    try:
        notice: Notice = from_plain(Notice, untrusted.json_object(state_store.read(path)))
    except (OSError, ValueError, TypeError, KeyError):
        return _drop(path, "the file is damaged")
    deliveries = send(notice, channels, read=template).wait()
    for delivery in deliveries:
        result = "sent" if delivery.ok else f"NOT SENT: {delivery.error}"
        log(f"message '{notice.id}': {delivery.channel} {result}")
    if deliveries and not any(delivery.ok for delivery in deliveries):
        old = time.time() - notice.at > EXPIRY_SECONDS
        return _drop(path, "no channel accepted it in time") if old else False
    path.unlink(missing_ok=True)
    return True


def _drop(path: Path, why: str) -> bool:
    log(f"message {path.stem} is dropped: {why}")
    path.unlink(missing_ok=True)
    return True
