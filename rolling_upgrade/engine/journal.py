"""The journal of one run on its host: its plan, its events, its control words, and whether its executor is alive.

`journal/RUN/` holds the plan (`plan.json`, deleted at the end), the events (`events.jsonl`), a FIFO for control words
(`control`), and a file that the executor locks as long as it lives (`alive`). Its followers print the events and pass
control words on. Any number of followers may come and go; the executor needs none.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.prune_entry import size_of
from rolling_upgrade.engine.shell import quote

#: Exit status of a follower when the executor died before the run ended.
DIED_STATUS = 43
#: Exit status of a follower whose reader is gone.
GONE_STATUS = 46
#: Control words: prepare the host; run the release command; change the host; stop and undo; the workstation is there;
#: it has received the end.
PREPARE, RELEASE, GO, CANCEL, WAIT, SEEN = "prepare", "release", "go", "cancel", "wait", "seen"
_WORDS = frozenset({PREPARE, RELEASE, GO, CANCEL, WAIT, SEEN})
#: The key of the line that ends a run.
END = "end"
_END_START = b'{"end"'
#: The file that describes a run whose end no workstation has seen.
UNSEEN = "unseen.json"
#: The line that a follower prints first: from now on it passes on control words.
FOLLOWING = {"following": True}
_POLL_SECONDS = 0.02
#: How long the executor of a plan that did not fit may take to exit.
_EXIT_SECONDS = 5.0
#: How long a script that asks whether a run has an executor may take.
_ASK_SECONDS = 0.2
#: How long a follower passes on words after the end of the run.
_LAST_WORDS_SECONDS = 10.0
#: How many journals of root `tidy` keeps.
_KEPT = 5
#: The part of an incomplete line of control words that is kept: longer than every word.
_LONGEST_WORD = 32


class Journal:
    """The journal of one run, for its executor and its followers."""

    def __init__(self, home: Path, run_id: str) -> None:
        self.home, self.path = home, home / "journal" / run_id
        self.plan = self.path / "plan.json"
        self.events = self.path / "events.jsonl"
        #: Describes the run until its workstation has seen the end.
        self.unseen = self.path / UNSEEN
        self._control, self._alive = self.path / "control", self.path / "alive"
        self._lock = threading.Lock()
        self._handle: int | None = None

    def begin(self) -> bool:
        """Become the executor of the run; False if it has one, or has ended.

        Raises OSError if the journal is not writable.
        """
        handle = os.open(self._alive, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Before the first event, the executor of an earlier plan may still hold the lock; it is about to exit.
                # Later, a script that asks for an executor may hold it for a moment.
                seconds = _ASK_SECONDS if self.events.exists() else _EXIT_SECONDS
                if time.monotonic() - began > seconds:
                    os.close(handle)
                    return False
                time.sleep(_POLL_SECONDS)
        self._handle = handle
        if any(END in message for message in self.messages()):
            self.release()
            return False
        with suppress(FileExistsError):
            os.mkfifo(self._control, 0o600)
        with self.events.open("a+b", buffering=0) as file:
            file.seek(0)
            content = file.read()
            try:
                # A power cut may have left half a line.
                file.truncate(content.rfind(b"\n") + 1)
                if file.write(b"{}\n") != 3:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                # A run that has begun must end, even on a full disk.
                if not content:
                    raise
        return True

    @property
    def has_begun(self) -> bool:
        """Whether an executor has reported anything about the run."""
        return any("state" in message or "event" in message for message in self.messages())

    def release(self) -> None:
        """Leave the run to a forked child, which has inherited the lock."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def is_alive(self) -> bool:
        """Whether the run has an executor."""
        try:
            handle = os.open(self._alive, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def append(self, message: Mapping[str, Any]) -> None:
        """Append a line to the events, and wait until it is on the disk. A full disk loses the line, not the run.

        After a power cut, the events tell which steps have to be undone, and a follower continues after its last line.
        """
        line = json.dumps(message, ensure_ascii=False).encode(errors="surrogateescape") + b"\n"
        with self._lock, suppress(OSError), self.events.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if file.write(line) != len(line):
                file.truncate(size)
            os.fdatasync(file.fileno())

    def mark_unseen(self, **description: str) -> None:
        """Describe the run for those who ask after its end. A full disk loses the description, not the run."""
        new = self.unseen.with_suffix(".new")
        with suppress(OSError):
            new.write_text(json.dumps(description), "utf-8")
            new.replace(self.unseen)

    def mark_seen(self) -> None:
        """Note that the workstation of the run has seen its end."""
        with suppress(OSError):
            self.unseen.unlink(missing_ok=True)

    def messages(self) -> list[dict[str, Any]]:
        """The complete lines of the events so far; damaged ones are left out."""
        try:
            content = self.events.read_bytes()
        except OSError:
            return []
        found = []
        for line in content.decode(errors="replace").split("\n")[:-1]:
            with suppress(untrusted.Malformed):
                found.append(untrusted.json_object(line))
        return found

    def read_plan(self) -> str:
        """Read the plan, and wait until it is on the disk, like the events that refer to it. Raises OSError."""
        with self.plan.open("rb") as file:
            os.fsync(file.fileno())
            return file.read().decode(errors="surrogateescape")

    def delete_plan(self) -> None:
        """Delete the plan, which contains secrets."""
        with suppress(OSError):
            self.plan.unlink(missing_ok=True)

    def delete_plans_of_dead_runs(self) -> None:
        """Delete the plans of runs whose executor was killed.

        This run needs the lock: without it, a workstation may be about to start the executor again, to undo its run.
        """
        for plan in self.home.glob("journal/*/plan.json"):
            other = Journal(self.home, plan.parent.name)
            # Without events, the run is about to start.
            if plan != self.plan and other.events.exists() and not other.is_alive():
                other.delete_plan()

    def send(self, word: str) -> None:
        """Pass a control word to the executor; nothing happens if there is none."""
        with suppress(OSError):
            handle = os.open(self._control, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(handle, f"{word}\n".encode())
            finally:
                os.close(handle)

    def open_control(self) -> int:
        """Open the FIFO for reading and writing: with a writer of its own, it never reports an end. Raises OSError."""
        handle = os.open(self._control, os.O_RDWR | os.O_CLOEXEC)
        if not stat.S_ISFIFO(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(f"{self._control} is not a FIFO")
        return handle


class Words:
    """The control words that a run has received."""

    def __init__(self, *given: str) -> None:
        self.cancelled = threading.Event()
        self._given = set(given)
        self._received_at = time.monotonic()
        self._changed = threading.Condition()

    def listen(self, handle: int) -> None:
        """Receive the words from a file in a thread."""
        threading.Thread(target=self._read, args=(handle,), daemon=True).start()

    def add(self, word: str) -> None:
        """Receive one word. Every known word shows that the workstation is there; others are ignored."""
        if word not in _WORDS:
            return
        with self._changed:
            self._received_at = time.monotonic()
            self._given.add(word)
            if word == CANCEL:
                self.cancelled.set()
            self._changed.notify_all()

    def has(self, word: str) -> bool:
        """Whether the word was received."""
        with self._changed:
            return word in self._given

    def wait_for(self, word: str, lease_seconds: float, renew: Callable[[], bool] = lambda: True) -> bool:
        """Wait for a word, or for `go`.

        Return False after `cancel`, after `lease_seconds` without any word from the workstation, and when `renew`, which
        is called from time to time while the workstation is there, returns False.
        """
        renewed_at = began = time.monotonic()
        while True:
            with self._changed:
                if (is_given := bool({word, GO} & self._given)) or self.cancelled.is_set():
                    return is_given
                left = max(began, self._received_at) + lease_seconds - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, lease_seconds / 4))
                is_due = self._received_at > renewed_at
            if is_due:
                if not renew():
                    return False
                renewed_at = time.monotonic()

    def is_seen_within(self, seconds: float) -> bool:
        """Wait for `seen`, also after `cancel`: a run that its workstation cancelled has a workstation."""
        with self._changed:
            return self._changed.wait_for(lambda: SEEN in self._given, seconds)

    def _read(self, handle: int) -> None:
        rest = b""
        while chunk := os.read(handle, 4096):
            words, rest = _split_words(rest + chunk)
            for word in words:
                self.add(word)


def _split_words(data: bytes) -> tuple[list[str], bytes]:
    """Return the known words in the complete lines, and the end of the incomplete line."""
    *lines, rest = data.split(b"\n")
    words = [line.decode(errors="replace") for line in lines]
    return [word for word in words if word in _WORDS], rest[-_LONGEST_WORD:]


class _Relay:
    """Passes the control words of a workstation on to the executor."""

    def __init__(self, journal: Journal, source: int | None) -> None:
        self._journal, self.source = journal, source
        self._rest = b""
        self.has_ended = False

    def pass_on(self, seconds: float) -> bool:
        """Wait for words for up to `seconds` and pass them on. False once the workstation disconnects."""
        if self.source is None:
            time.sleep(seconds)
            return True
        if not select.select([self.source], [], [], seconds)[0]:
            return True
        data = os.read(self.source, 4096)
        words, self._rest = _split_words(self._rest + data)
        for word in words:
            self._journal.send(word)
            if word == SEEN and self.has_ended:
                self._journal.mark_seen()
        return bool(data)


def follow(journal: Journal, position: int, source: int | None, target: int) -> int:
    """Print the events from a byte position until the run ends, and pass the words of `source` to the executor.

    Returns 0 at the end of the run, DIED_STATUS if the executor died, and GONE_STATUS when the reader is gone.
    """
    relay = _Relay(journal, source)
    try:
        _write(target, json.dumps(FOLLOWING).encode() + b"\n")
        with journal.events.open("rb") as events:
            events.seek(min(position, events.seek(0, os.SEEK_END)))
            rest = b""
            while True:
                # Ask before the last read: the executor writes its last line before it dies.
                is_alive = journal.is_alive()
                new = events.read()
                _write(target, new)
                *lines, rest = (rest + new).split(b"\n")
                if any(line.startswith(_END_START) for line in lines):
                    return _after_end(relay)
                if not is_alive:
                    return DIED_STATUS
                if not relay.pass_on(_POLL_SECONDS):
                    return GONE_STATUS
    except BrokenPipeError:
        return GONE_STATUS


def _after_end(relay: _Relay) -> int:
    """Pass on the workstation's last words, until it disconnects."""
    relay.has_ended = True
    deadline = time.monotonic() + _LAST_WORDS_SECONDS
    while relay.source is not None and time.monotonic() < deadline and relay.pass_on(1.0):
        pass
    return 0


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


#: A shell condition: the journal $old has an executor.
_IS_ALIVE = '[ -e "$old/alive" ] && ! flock -n -s "$old/alive" true'


def tidy(home: str, run_id: str) -> str:
    """Delete the older journals of root, which no deploy prunes, then the engines that no journal uses.

    The journals of this run, which is about to start, and of running runs stay.
    """
    directory, engines = quote(f"{home}/journal"), quote(f"{home}/engine")
    return (
        f"find {directory} -mindepth 1 -maxdepth 1 -type d ! -name {quote(run_id)} | sort -r | tail -n +{_KEPT} | "
        f'while read -r old; do if {_IS_ALIVE}; then continue; fi; rm -rf "$old"; done\n'
        f"find {engines} -type f -links 1 -mmin +60 -delete"
    )


def prune(home: str, keep: int) -> str:
    """Select the journals of all runs except the newest, then the engines that no journal uses; run ids sort by time.

    The journal of a running run stays, even if the clock of its workstation is behind. Each journal has a hard link to
    the engine of its run.
    """
    directory, engines = quote(f"{home}/journal"), quote(f"{home}/engine")
    return (
        f"find {directory} -mindepth 1 -maxdepth 1 -type d | sort -r | tail -n +{keep + 1} | "
        f"while read -r old; do if {_IS_ALIVE}; then continue; fi; "
        f'prune_entry journal "$old" {size_of("old")} rm -rf "$old"; done\n'
        f"if [ -d {engines} ]; then find {engines} -type f -links 1 -mmin +60; fi | "
        f'while read -r old; do prune_entry engine "$old" {size_of("old")} rm -f "$old"; done'
    )
