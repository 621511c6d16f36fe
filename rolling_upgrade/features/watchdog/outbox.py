"""Messages on their way: kept as files until a channel has them, sent by a process of its own. It decides nothing.

What sends mail needs more memory than what watches, and a channel may take seconds: neither is the watchdog's. One
process sends at a time, in the order in which things happened.
"""

from __future__ import annotations

import fcntl
import json
import os
import pkgutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from fabfile.commands.form import plain, typed
from fabfile.errors import ExitCode
from fabfile.model import Channels, Notice
from fabfile.watchdog import keeping
from fabfile.watchdog.keeping import say

#: A message that no channel took is tried again after this long, and for this long.
AGAIN_SECONDS, LONGEST_SECONDS = 60.0, 86_400.0
#: Beyond so many messages the oldest are dropped.
MOST = 100


def put(home: Path, notice: Notice, channels: Channels) -> None:
    """Keep the notice to be sent, where a channel takes it; in memory where the disk takes no more."""
    if not channels.taking(notice.severity):
        return
    for place in _places(home):
        with suppress(OSError):
            place.mkdir(mode=0o700, exist_ok=True)
            keeping.keep(place / f"{time.time_ns():020d}.json", json.dumps(plain(notice)))
            break
    else:
        say(f"message '{notice.id}' is lost: no place takes a file")
    for old in waiting(home)[:-MOST]:
        _drop(old, "too many messages wait")


def waiting(home: Path) -> list[Path]:
    """The messages that are kept, oldest first."""
    found = (path for place in _places(home) for path in place.glob("*.json"))
    return sorted(found, key=lambda path: path.name)


def _places(home: Path) -> tuple[Path, ...]:
    """On disk, and in memory. Source: pam_systemd(8): XDG_RUNTIME_DIR is a file system in memory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    disk = keeping.directory(home) / "outbox"
    return (disk, Path(runtime) / f"{home.name}-outbox") if runtime else (disk,)


class Sender:
    """Starts the process that sends, whenever there is something to send and none runs."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._child: subprocess.Popen[bytes] | None = None
        self._tried: list[Path] = []
        self._at = 0.0

    def send(self, now: float) -> None:
        """Start it when it is time, and come back at once. `now` is seconds on a clock that never jumps."""
        if self._child is not None and self._child.poll() is None:
            return
        found = waiting(self._home)
        if not found or (set(found) <= set(self._tried) and now - self._at < AGAIN_SECONDS):
            return
        self._tried, self._at = found, now
        command = [sys.executable, "-I", sys.argv[0], "tell", str(self._home)]
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        except OSError as error:
            say(f"messages could not be sent: {error.strerror}")


def tell(home: Path) -> ExitCode:
    """Send what is kept. FAILED when a message reached no channel; it and those after it stay for the next time."""
    settings = keeping.load(home)
    with (keeping.directory(home) / "watchdog.pyz").open() as one:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return ExitCode.LOCKED
        for path in waiting(home):
            if not _sent(path, settings.channels):
                return ExitCode.FAILED
    return ExitCode.DONE


def _sent(path: Path, channels: Channels) -> bool:
    """Whether the message is done with."""
    from fabfile.notify.send import send

    try:
        notice: Notice = typed(Notice, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError):
        return _drop(path, "the file is damaged")
    deliveries = send(notice, channels, read=_template)
    for one in deliveries:
        result = "told" if one.ok else f"NOT TOLD: {one.error}"
        say(f"message '{notice.id}': {one.channel} {result}")
    if deliveries and not any(one.ok for one in deliveries):
        old = time.time() - notice.at > LONGEST_SECONDS
        return _drop(path, "no channel took it for too long") if old else False
    path.unlink(missing_ok=True)
    return True


def _drop(path: Path, why: str) -> bool:
    say(f"message {path.stem} is dropped: {why}")
    path.unlink(missing_ok=True)
    return True


def _template(name: str) -> str:
    found = pkgutil.get_data("fabfile", f"templates/notify/{name}")
    if found is None:
        raise FileNotFoundError(name)
    return found.decode()


def first_lately(home: Path, name: str, seconds: float) -> bool:
    """Whether this was not said within so many seconds, by a file's date; from now on it was."""
    path = keeping.directory(home) / f"recovered-{name}"
    with suppress(OSError):
        if 0 <= time.time() - path.stat().st_mtime < seconds:
            return False
    with suppress(OSError):
        path.touch()
    return True
