"""The program that runs on hosts: runs of an operator, the watchdog and its recoveries.

run HOME RUN POSITION       start a run or end one whose executor was killed; follow it from a byte of its events
follow HOME RUN POSITION    follow a run that another program started
watch HOME | recover HOME ACTION SERVICE SECONDS REASON | send HOME    see features/watchdog
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rolling_upgrade.engine.masking import clean
from rolling_upgrade.errors import ConfigError, RollingError

if TYPE_CHECKING:
    from rolling_upgrade.engine import host_run
    from rolling_upgrade.engine.journal import Journal

_USAGE = "usage: run|follow HOME RUN POSITION, watch|send HOME, or recover HOME ACTION SERVICE SECONDS REASON"


def main(arguments: list[str]) -> int:
    """Run one command; return its exit code."""
    command, *words = arguments or [""]
    try:
        if command in {"run", "follow"} and len(words) == 3:
            home, run_id, position = Path(words[0]), words[1], int(words[2])
            return run(home, run_id, position) if command == "run" else follow(home, run_id, position)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        if command == "watch" and len(words) == 1:
            from rolling_upgrade.features.watchdog.loop import watch

            return watch(Path(words[0]))
        if command == "recover" and len(words) == 5:
            from rolling_upgrade.features.watchdog.policy import RecoveryAction
            from rolling_upgrade.features.watchdog.recovery import recover

            home_directory, action, service, seconds, reason = words
            return recover(Path(home_directory), RecoveryAction(action), service, float(seconds), reason)
        if command == "send" and len(words) == 1:
            from rolling_upgrade.features.watchdog.outbox import deliver

            return deliver(Path(words[0]))
        raise ConfigError(_USAGE)
    except RollingError as error:
        _complain(clean(str(error)))
        return int(error.exit_code)


def run(home: Path, run_id: str, position: int) -> int:
    """Start the executor of a run in a process of its own unless it lives or has ended, and follow the run."""
    from rolling_upgrade.engine.journal import Journal
    from rolling_upgrade.engine.journal import follow as follow_journal

    # Whatever the login's umask: the files of a run contain secrets and output.
    os.umask(0o077)
    journal = Journal(home, run_id)
    try:
        is_executor = journal.begin()
        # Open before anybody follows: a word that arrives without a reader is lost.
        control = journal.open_control() if is_executor else -1
    except OSError as error:
        _complain(f"cannot write to {journal.path}: {error.strerror or error}")
        if not journal.has_begun:
            journal.delete_plan()
        return 1
    if is_executor:
        # Imported before the fork, so that a damaged engine fails while the workstation listens.
        from rolling_upgrade.engine import host_run  # noqa: F401

        if os.fork() == 0:
            _become_executor(journal, control)
        os.close(control)
        journal.release()
    return follow_journal(journal, position, sys.stdin.fileno(), sys.stdout.fileno())


def follow(home: Path, run_id: str, position: int) -> int:
    """Follow a run without sending it words."""
    from rolling_upgrade.engine.journal import Journal
    from rolling_upgrade.engine.journal import follow as follow_journal

    return follow_journal(Journal(home, run_id), position, None, sys.stdout.fileno())


def _become_executor(journal: Journal, control: int) -> None:
    """Detach this process from its connection, execute the run, and exit."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        log = _open_log(journal.path / "engine.log")
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        _execute(journal, control)
        status = 0
    except BaseException:  # noqa: BLE001 - the process has no caller; the log has the traceback
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _open_log(path: Path) -> int:
    """Open the executor's log. Without one, on a full disk, a run that has begun must still end."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def _execute(journal: Journal, control: int) -> None:
    """Execute the run, and send its message if nobody has seen its end."""
    from rolling_upgrade.engine import host_run
    from rolling_upgrade.engine.journal import END, Words
    from rolling_upgrade.engine.plan import target
    from rolling_upgrade.engine.serialization import to_plain

    try:
        document = _document(journal)
        if document is None:
            end = host_run.end_without_plan(journal)
            journal.delete_plan()
            journal.append({END: to_plain(end)})
            return
        plan = document.plan
        owner = plan.record.owner if plan.record else ""
        journal.mark_unseen(title=f"{plan.action} {target([plan])}".strip(), owner=owner)
        words = Words()
        words.listen(control)
        end = host_run.execute(document, journal, words)
    except BaseException:
        # Not after the end of the run: the workstation may have written another plan by then.
        journal.delete_plan()
        raise
    is_due = document.notice is not None and not end.observation
    if is_due and not words.is_seen_within(document.seen_seconds):
        _notify(document, end)


def _document(journal: Journal) -> host_run.RunDocument | None:
    """Read the document of the run; None if it is missing or damaged. The errors could quote its secrets."""
    from rolling_upgrade.engine import host_run, untrusted
    from rolling_upgrade.engine.serialization import from_plain

    try:
        content = untrusted.json_object(journal.read_plan(), max_bytes=untrusted.LARGE_ANSWER_BYTES, surrogates=True)
        document: host_run.RunDocument = from_plain(host_run.RunDocument, content)
    except (OSError, TypeError, ValueError, KeyError):
        return None
    return document


def _notify(document: host_run.RunDocument, end: host_run.RunEnd) -> None:
    """Send the message about the end of the run, because its workstation is gone."""
    from rolling_upgrade.features.notify import endings
    from rolling_upgrade.features.notify.packed import template
    from rolling_upgrade.features.notify.send import send

    notice = endings.of_host(document, end)
    if notice is not None:
        for delivery in send(notice, document.channels, read=template, secrets=document.secrets).wait():
            _complain(f"{delivery.channel}: {'sent' if delivery.ok else delivery.error}")


def _complain(text: str) -> None:
    sys.stderr.write(f"{text}\n")
