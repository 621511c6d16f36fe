"""A run on a host as the workstation sees it: start it, follow its events, send it control words.

One SSH execution starts the run and follows it. If the connection drops, the run continues; the workstation reconnects
for up to a minute, continues after the last event that it has received, and repeats its words.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rolling_upgrade.engine import journal, untrusted
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Answer, Cancelled, StreamingHost, malformed_answer
from rolling_upgrade.engine.host_run import RunDocument, RunEnd
from rolling_upgrade.engine.journal import CANCEL, DIED_STATUS, SEEN, WAIT
from rolling_upgrade.engine.model import Event, HostResult, Phase
from rolling_upgrade.engine.serialization import from_plain, to_plain
from rolling_upgrade.engine.shell import AS_LOGIN_USER, ENVIRONMENT, Script, quote, shell_join
from rolling_upgrade.errors import (
    PROGRAM,
    ConnectionDropped,
    HostUnreachable,
    PreflightError,
    RollingError,
    unexpected,
)

#: How long the workstation reconnects to a lost host before the outcome counts as unknown.
RECONNECT_SECONDS = 60.0
#: The interval of the words that show a waiting host that its workstation is there.
WAIT_EVERY_SECONDS = 5.0
#: Exit statuses of the starting script: the engine is missing; its content is not the expected one; no Python 3.10; the
#: run was started before, and its journal is gone.
NO_ENGINE_STATUS, DAMAGED_STATUS, NO_PYTHON_STATUS, NO_JOURNAL_STATUS = 47, 48, 49, 50
#: Sets `scope` to the command that takes the executor out of its login session, if the end of the session ends its
#: processes. Source: logind.conf(5), KillUserProcesses; loginctl(1): show-session without an id shows the manager.
_SCOPE = """\
scope=''
case $(loginctl show-session --property=KillUserProcesses 2>/dev/null) in *=yes)
  scope='systemd-run --quiet --collect --scope'
  if [ "$(id -u)" -ne 0 ]; then scope="$scope --user"; fi ;;
esac"""
#: The most bytes of events that a host may send.
_MOST_BYTES = 64 << 20
#: How often a run is started again after its executor was killed on the host.
_MOST_RESTARTS = 3
_POLL_SECONDS = 0.2


class Follower:
    """Follows a run on one host from its first event to its end, without sending it words.

    Attributes:
        reached: the states that the run has announced.
        found_end: how the run ended, once it has.
    """

    def __init__(self, host: StreamingHost, home: str, run_id: str, environment: str, context: RunContext) -> None:
        self._host, self._home, self._run_id = host, home, run_id
        self._environment, self._context = environment, context
        self._follow_up = f"{PROGRAM} attach --env {environment}"
        self._changed = threading.Condition()
        self.reached: set[str] = set()
        self.found_end: RunEnd | None = None
        self._position, self._received, self._received_at = 0, 0, 0.0
        self._malformed: HostUnreachable | None = None
        self._is_over = threading.Event()

    def follow(self) -> RunEnd:
        """Follow the run, through reconnects, and return how it ended; an error is part of the result."""
        try:
            end = self._follow()
        except RollingError as error:
            end = _unknown(error)
        except Exception as error:  # noqa: BLE001 - a defect in the work on one host must not end the others
            end = _unknown(unexpected(self._host.name, error, RollingError, next_step=self._follow_up))
        return self._finish(end)

    def _finish(self, end: RunEnd) -> RunEnd:
        with self._changed:
            self.found_end = self.found_end or end
            self._changed.notify_all()
        self._is_over.set()
        return self.found_end

    def _follow(self) -> RunEnd:
        lost_at = 0.0
        while True:
            errors = bytearray()
            try:
                status = self._stream(self._reader(), errors.extend)
            except (ConnectionDropped, HostUnreachable) as error:
                if self._malformed is not None:
                    raise self._malformed from error
                if self.found_end is None:
                    lost_at = self._reconnecting(error, lost_at)
                    continue
            except Cancelled:
                raise HostUnreachable(f"{self._host.name}: the connection was given up.") from None
            else:
                lost_at = 0.0
                if self.found_end is None:
                    self._check(Answer(status, "", errors.decode(errors="replace")))
            if self.found_end is not None:
                return self.found_end

    def _stream(self, on_output: Callable[[bytes], None], on_errors: Callable[[bytes], None]) -> int:
        """Follow the run over one connection; return the exit status of the follower on the host."""
        script = follow(self._home, self._run_id, self._position)
        return self._host.stream(script, on_output, on_errors)

    def _check(self, answer: Answer) -> None:
        """Decide what to do after a follower that ended before its run: return to start another one, or raise."""
        host, again = self._host.name, f"run the same command again, or {PROGRAM} status --env {self._environment}"
        if answer.status == DIED_STATUS:
            raise HostUnreachable(f"{host}: the run was killed on the host.", next_step=again)
        is_gone = answer.status in {NO_ENGINE_STATUS, NO_JOURNAL_STATUS}
        reason = "its journal is gone" if is_gone else answer.output_tail
        raise HostUnreachable(f"{host}: the run cannot be followed: {reason or answer.status}", next_step=again)

    def _reconnecting(self, error: RollingError, lost_at: float) -> float:
        """Decide whether to connect again; return when the connection was lost. Raises the error, or HostUnreachable."""
        now, host = self._context.clock(), self._host.name
        if not self._received_at and isinstance(error, HostUnreachable):
            raise error
        is_new = not lost_at or self._received_at > lost_at
        if is_new:
            self._context.emit(Phase.NOTE, f"{error.message} Reconnecting.", host)
        if is_new and now - lost_at > 1.0:
            return now
        if not is_new and now - lost_at > RECONNECT_SECONDS:
            raise HostUnreachable(
                f"{host}: connection lost; the outcome is unknown. The host ends the run by itself.",
                next_step=f"{self._follow_up}, once the host answers",
            ) from error
        self._is_over.wait(1.0)
        return now if is_new else lost_at

    def _reader(self) -> Callable[[bytes], None]:
        """Return a function that receives the output of one execution."""
        rest = bytearray()

        def read(data: bytes) -> None:
            self._received += len(data)
            rest.extend(data)
            while (place := rest.find(b"\n")) >= 0:
                line = bytes(rest[:place])
                del rest[: place + 1]
                self._receive(line)
            if self._received > _MOST_BYTES or len(rest) > untrusted.LINE_BYTES:
                raise self._unreadable("its run reports too much")

        return read

    def _receive(self, line: bytes) -> None:
        """Handle one line of the follower on the host."""
        self._received_at = self._context.clock()
        try:
            message = untrusted.json_object(line.decode(errors="replace"))
            if message == journal.FOLLOWING:
                self._on_following()
                return
            self._position += len(line) + 1
            self._handle(message)
        except (TypeError, ValueError, KeyError) as error:
            raise self._unreadable(f"its run reports a malformed line: {error}") from error

    def _unreadable(self, problem: str) -> HostUnreachable:
        """Return the error for a host whose events cannot be read. No further connection could help."""
        self._malformed = malformed_answer(self._host.name, problem)
        return self._malformed

    def _handle(self, message: dict[str, Any]) -> None:
        if "event" in message:
            event: Event = from_plain(Event, message["event"])
            self._context.on_event(replace(event, host=self._host.name))
        elif "state" in message:
            with self._changed:
                self.reached.add(untrusted.string(message["state"]))
                self._changed.notify_all()
        elif journal.END in message:
            end = from_plain(RunEnd, message[journal.END])
            self._on_end()
            self._finish(end)

    def _on_following(self) -> None:
        """React to the first line of a follower."""

    def _on_end(self) -> None:
        """React to the end of the run."""


class RemoteRun(Follower):
    """A run that this workstation starts on one host and controls by words. Any thread may call the public methods."""

    def __init__(
        self,
        host: StreamingHost,
        document: RunDocument,
        engine: bytes,
        context: RunContext,
        shell: str = AS_LOGIN_USER,
    ) -> None:
        plan = document.plan
        super().__init__(host, plan.home, plan.run_id, plan.environment, context)
        if not plan.is_locked:
            self._follow_up = "the same command again"
        self._document, self._engine, self._brings_engine = document, engine, False
        self._restarts, self._shell = 0, shell
        self._words: list[str] = []
        self._pending: Callable[[bytes], None] | None = None
        self._send: Callable[[bytes], None] | None = None

    def start(self) -> None:
        """Start the run on the host and follow it in a thread."""
        threading.Thread(target=self.follow, daemon=True).start()
        threading.Thread(target=self._keep_in_touch, daemon=True).start()

    def wait_for(self, state: str) -> RunEnd | None:
        """Wait until the run has reached a state, then return None; or for its end, then return it."""
        with self._changed:
            while state not in self.reached and self.found_end is None:
                self._changed.wait(_POLL_SECONDS)
            return self.found_end

    def end(self) -> RunEnd:
        """Wait for the end of the run."""
        with self._changed:
            while self.found_end is None:
                self._changed.wait(_POLL_SECONDS)
            return self.found_end

    def send(self, word: str) -> None:
        """Send a control word, now or as soon as the connection is back."""
        with self._changed:
            if word not in self._words:
                self._words.append(word)
        self._write(word)

    def _write(self, *words: str) -> None:
        send = self._send
        if send is None or not words:
            return
        try:
            send("".join(f"{word}\n" for word in words).encode())
        except (RollingError, OSError, EOFError):
            # The words are repeated when the connection is back.
            self._send = None

    def _keep_in_touch(self) -> None:
        """Pass on Ctrl-C, and show the host from time to time that the workstation is there."""
        waited = 0.0
        while not self._is_over.wait(_POLL_SECONDS):
            if self._context.cancelled.is_set() and CANCEL not in self._words:
                self.send(CANCEL)
            waited += _POLL_SECONDS
            if waited >= WAIT_EVERY_SECONDS:
                self._write(WAIT)
                waited = 0.0

    def _stream(self, on_output: Callable[[bytes], None], on_errors: Callable[[bytes], None]) -> int:
        self._send = None
        script = start(self._document, self._engine, self._position, with_engine=self._brings_engine)
        return self._host.stream(script, on_output, on_errors, on_open=self._opened, shell=self._shell)

    def _check(self, answer: Answer) -> None:
        if answer.status == NO_ENGINE_STATUS and not self._brings_engine:
            self._brings_engine = True
        elif answer.status == DIED_STATUS and self._restarts < _MOST_RESTARTS:
            self._restarts += 1
            self._is_over.wait(1.0)
        elif answer.status in {DIED_STATUS, NO_JOURNAL_STATUS} or self.reached:
            super()._check(answer)
        else:
            raise _refused(self._document, answer)

    def _opened(self, send: Callable[[bytes], None]) -> None:
        """Keep the way to the follower, which passes on words once it has printed its first line."""
        self._pending = send

    def _on_following(self) -> None:
        with self._changed:
            self._send, words = self._pending, list(self._words)
        self._write(*words)

    def _on_end(self) -> None:
        self._write(SEEN)


def _unknown(error: RollingError) -> RunEnd:
    return RunEnd(HostResult.UNKNOWN, 0.0, type(error).__name__, error.message, error.next_step)


def _refused(document: RunDocument, answer: Answer) -> RollingError:
    """The error for a host on which the run did not start."""
    plan = document.plan
    doctor = f"{PROGRAM} doctor --env {plan.environment} --hosts {plan.host}"
    reasons = {
        NO_ENGINE_STATUS: "the engine disappeared",
        DAMAGED_STATUS: "the engine on the host is damaged, or another one than this version uses",
        NO_PYTHON_STATUS: "python3 is missing or older than 3.10",
    }
    reason = reasons.get(answer.status) or answer.output_tail or f"status {answer.status}"
    return PreflightError(f"{plan.host}: the run could not start; nothing was touched: {reason}", next_step=doctor)


def engine_sum(engine: bytes) -> str:
    """Return the hash that names an engine."""
    return hashlib.sha256(engine).hexdigest()


def start(document: RunDocument, engine: bytes, position: int, *, with_engine: bool) -> Script:
    """Start the run, unless it was started before, and follow its events from a byte position.

    The plan travels over the standard input of `sh`, like every script, into a file with mode 0600. The engine is
    verified by its hash; without one of this version on the host, the script exits with NO_ENGINE_STATUS unless it
    brings it along. A script that fails, such as on a full disk, leaves nothing of its run.
    """
    plan = document.plan
    home, name = plan.home, engine_sum(engine)
    path, run = f"{home}/engine/{name}.pyz", f"{home}/journal/{plan.run_id}"
    own = f"{run}/engine.pyz"
    content = json.dumps(to_plain(document, secrets=True), ensure_ascii=False).encode(errors="surrogateescape")
    encoded = base64.b64encode(content).decode()
    upload = f"printf %s {quote(base64.b64encode(engine).decode())} | write {quote(path)}" if with_engine else ":"
    text = f"""\
{ENVIRONMENT}{_refuse_lost_journal(run, position)}
mkdir -p {quote(f"{home}/engine")} {quote(run)}
{_write_or_discard(path, run)}
{"" if plan.is_locked else journal.tidy(home, plan.run_id)}
if [ ! -f {quote(path)} ]; then
  {upload}
fi
if [ ! -f {quote(path)} ]; then exit {NO_ENGINE_STATUS}; fi
# A journal on another file system gets a copy.
if [ ! -e {quote(own)} ]; then ln {quote(path)} {quote(own)} 2>/dev/null || cp {quote(path)} {quote(own)}; fi
if ! echo {quote(f"{name}  {own}")} | sha256sum --check --status; then
  rm -f {shell_join(path, own)}
  exit {DAMAGED_STATUS}
fi
if ! command -v python3 >/dev/null; then exit {NO_PYTHON_STATUS}; fi
if [ "$(cat {quote(f"{run}/attempt")} 2>/dev/null)" != {document.attempt} ]; then
  # The events of an earlier plan, which did not fit the host and changed nothing.
  rm -f {quote(f"{run}/events.jsonl")}
  echo {document.attempt} | base64 | write {quote(f"{run}/attempt")}
fi
if [ ! -e {quote(f"{run}/events.jsonl")} ]; then
  printf %s {quote(encoded)} | write {quote(f"{run}/plan.json")}
fi
{_SCOPE}
# shellcheck disable=SC2086
exec $scope python3 -I {quote(own)} run {quote(home)} {quote(plan.run_id)} {position} <&3 3<&-
"""
    return Script(text, (encoded,))


def _refuse_lost_journal(run: str, position: int) -> str:
    """Exit NO_JOURNAL_STATUS if events of the run were read before and exist no more: a boot deletes root's journals."""
    return f"if [ ! -e {quote(f'{run}/events.jsonl')} ]; then exit {NO_JOURNAL_STATUS}; fi" if position else ""


def _write_or_discard(engine: str, run: str) -> str:
    """Define `write`; if the script ends before `exec`, delete what is incomplete and a run that has not begun."""
    parts = " ".join(f"{quote(path)}.$$" for path in (engine, f"{run}/attempt", f"{run}/plan.json"))
    files = shell_join(*(f"{run}/{file}" for file in ("engine.pyz", "attempt", "plan.json")))
    return f"""\
write() {{
  if ! base64 -d > "$1.$$" || ! mv -fT "$1.$$" "$1"; then echo "cannot write to $1" >&2; exit 1; fi
}}
discard() {{
  exec 2>/dev/null
  rm -f {parts} || :
  if [ ! -e {quote(f"{run}/events.jsonl")} ]; then rm -f {files} || :; rmdir {quote(run)} || :; fi
}}
trap discard EXIT"""


def follow(home: str, run_id: str, position: int) -> Script:
    """Follow a run that another command or another machine started, without sending it words."""
    engine = f"{home}/journal/{run_id}/engine.pyz"
    text = f"""\
{ENVIRONMENT}if [ ! -f {quote(engine)} ]; then exit {NO_ENGINE_STATUS}; fi
exec python3 -I {quote(engine)} follow {quote(home)} {quote(run_id)} {position} </dev/null
"""
    return Script(text)
