"""The program that runs on hosts, as real processes: its executor outlives everything that may happen to a follower."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import observation, remote_run
from rolling_upgrade.engine.host import LocalHost
from rolling_upgrade.engine.host_run import LOCKED, PREPARED, RunDocument
from rolling_upgrade.engine.journal import CANCEL, DIED_STATUS, GO, PREPARE, SEEN
from rolling_upgrade.engine.model import Channels, Hook, HostResult, Occasion, Security, UnseenRun
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.engine.shell import Script, direct
from rolling_upgrade.errors import PreflightError
from tests.engine.test_host_run import APP, document, held, outcome, plan
from tests.engine.test_step_process import is_running
from tests.hostile.hosts import wait_until
from tests.support.engine_process import (
    FOLLOWING,
    VERSIONS,
    EngineHost,
    command_lines,
    environments,
    interpreter,
)
from tests.support.mailbox import mailbox
from tests.support.notices import notice
from tests.support.receiver import closed_port, receiving
from tests.support.shell import moved

SECRET = "hunter2-of-the-database"
URL_SECRET = "q7Zk1m9pX2vB8nW4sL6t"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    for name in ("lock", "config"):
        (directory / name).mkdir(parents=True)
    return directory


@pytest.fixture
def host(home: Path, tmp_path: Path) -> Iterator[EngineHost]:
    """A host with the Python of these tests."""
    found = EngineHost(home, tmp_path / "client")
    yield found
    found.close()


def waiting(home: Path) -> str:
    """The script of a step that says that it runs, and waits for `proceed`."""
    return f"echo $$ > {home}/pid; mv {home}/pid {home}/runs; until [ -e {home}/proceed ]; do sleep 0.02; done"


def proceed(home: Path) -> None:
    (home / "proceed").touch()


def wait_for_step(home: Path) -> int:
    """Wait until the step of `waiting` runs; return the id of its shell."""
    wait_until((home / "runs").exists, "the step")
    return int((home / "runs").read_text())


def done(home: Path) -> list[str]:
    """What the steps wrote."""
    file = home / "done"
    return file.read_text().split() if file.exists() else []


def secret_document(home: Path, channels: Channels, **scripts: str) -> RunDocument:
    """Return a run with a secret in a step and in a channel."""
    made = plan(home, **scripts)
    first, *others = made.steps
    text = f"PASSWORD='{SECRET}'\n{first.script.text}"
    steps = (replace(first, script=Script(text, (SECRET,))), *others)
    started = notice(Occasion.DEPLOY_STARTED, results=(), cause="")
    return replace(document(replace(made, steps=steps)), notice=started, channels=channels, seen_seconds=0.2)


# A good run


@pytest.mark.parametrize("version", ["running", *VERSIONS])
def test_run_completes_with_every_python(version: str, home: Path, tmp_path: Path) -> None:
    python = Path(sys.executable) if version == "running" else interpreter(version)
    if python is None:
        pytest.skip(f"this machine has no Python {version}")
    host = EngineHost(home, tmp_path / "client", python)
    try:
        client = host.start(document(plan(home)))
        client.say(PREPARE)
        client.wait_for_state(PREPARED)
        assert done(home) == ["backup"]
        client.say(GO)

        end = host.end()
        client.say(SEEN)

        assert (end.result, end.error, client.disconnect_after_end()) == (HostResult.UPGRADED, "", 0)
        assert (done(home), held(home), outcome(home)) == (["backup", "a", "b"], False, "good")
        assert client.output.read_bytes() == FOLLOWING + host.journal().events.read_bytes()
    finally:
        host.close()


def test_run_is_planned_again_when_the_plan_does_not_fit(host: EngineHost) -> None:
    """The second plan comes while the executor of the first one may still exist."""
    first = host.start(document(plan(host.home), basis="another"))
    first.wait_for(b'"observation"')
    second = host.start(replace(document(plan(host.home)), attempt=2))
    second.say(PREPARE, GO)

    assert host.end().result is HostResult.UPGRADED
    assert done(host.home) == ["backup", "a", "b"]


# The end of a connection

CONNECTION_ENDS = {
    "follower killed": (os.kill, signal.SIGKILL),
    "follower hung up": (os.kill, signal.SIGHUP),
    "session killed": (os.killpg, signal.SIGKILL),
    "session hung up": (os.killpg, signal.SIGHUP),
}


@pytest.mark.parametrize("way", CONNECTION_ENDS)
def test_run_after_go_completes_without_its_workstation(way: str, host: EngineHost) -> None:
    send, number = CONNECTION_ENDS[way]
    client = host.start(document(plan(host.home, a=waiting(host.home))))
    client.say(PREPARE, GO)
    wait_for_step(host.home)

    send(client.process.pid, number)
    assert client.wait() == -number
    proceed(host.home)

    assert host.end().result is HostResult.UPGRADED
    assert (done(host.home), held(host.home), outcome(host.home)) == (["backup", "a", "b"], False, "good")


@pytest.mark.parametrize("state", [LOCKED, PREPARED])
def test_run_before_go_ends_within_the_lease_and_releases_the_lock(state: str, host: EngineHost) -> None:
    client = host.start(document(plan(host.home), lease_seconds=1))
    client.say(*[PREPARE] * (state == PREPARED))
    client.wait_for_state(state)
    assert held(host.home)

    client.kill()
    killed_at = time.monotonic()
    end = host.end()

    assert time.monotonic() - killed_at < 3
    assert (end.result, held(host.home), "a" in done(host.home)) == (HostResult.NOT_STARTED, False, False)
    assert "no word from the workstation for 1 s" in end.message


@pytest.mark.parametrize("again", ["run", "follow"])
def test_second_follower_continues_from_a_byte_and_gets_exactly_the_rest(again: str, host: EngineHost) -> None:
    run = document(plan(host.home, b=waiting(host.home)))
    first = host.start(run)
    first.say(PREPARE, GO)
    wait_for_step(host.home)
    first.kill()
    seen = first.output.read_bytes().removeprefix(FOLLOWING)
    position = seen.rindex(b"\n") + 1

    rest = remote_run.follow(str(host.home), "r2", position)
    second = host.start(run, position) if again == "run" else host.execute(rest)
    second.wait_for(FOLLOWING)
    proceed(host.home)
    host.end()

    assert second.disconnect_after_end() == 0
    assert seen[:position] + second.output.read_bytes().removeprefix(FOLLOWING) == host.journal().events.read_bytes()
    assert second.output.read_bytes().startswith(FOLLOWING)
    assert done(host.home) == ["backup", "a", "b"]


# The message at the end


def test_seen_in_time_the_host_sends_no_message(host: EngineHost) -> None:
    with receiving() as receiver, mailbox() as box:
        channels = Channels(webhook=Hook(receiver.url()), mail=box.channel(Security.NONE))
        client = host.start(replace(secret_document(host.home, channels), seen_seconds=60))
        client.say(PREPARE, GO)
        client.wait_for(b'"end"')
        client.say(SEEN)
        host.wait_for_exit()

        assert (receiver.requests, box.mails) == ([], [])


def test_seen_after_cancel_the_host_sends_no_message(host: EngineHost) -> None:
    """The workstation that cancelled the run is there, and sends the message."""
    with receiving() as receiver:
        run = secret_document(host.home, Channels(webhook=Hook(receiver.url())), b=waiting(host.home))
        client = host.start(replace(run, seen_seconds=60))
        client.say(PREPARE, GO)
        wait_for_step(host.home)
        client.say(CANCEL)
        client.wait_for(b'"end"')
        client.say(SEEN)

        assert host.end().result is HostResult.UNDONE
        assert receiver.requests == []


@pytest.mark.parametrize("ending", ["upgraded", "undone"])
def test_not_seen_the_host_sends_one_message(ending: str, host: EngineHost) -> None:
    scripts = {"b": "exit 3"} if ending == "undone" else {}
    with receiving() as receiver, mailbox() as box:
        channels = Channels(webhook=Hook(receiver.url()), mail=box.channel(Security.NONE))
        run = secret_document(host.home, channels, a=waiting(host.home), **scripts)
        client = host.start(run)
        client.say(PREPARE, GO)
        wait_for_step(host.home)
        client.kill()
        proceed(host.home)
        host.end()
        # The workstation is back: the run has ended, and nothing sends its message again.
        assert host.start(run).disconnect_after_end() == 0
        host.wait_for_exit()

        [mail] = box.mails
        [request] = receiver.requests
        assert request.json["event"] == f"deploy {'done' if ending == 'upgraded' else ending}"
        assert "web1" in mail.body
    assert (host.journal().path / "engine.log").read_text() == "mail: sent\nwebhook: sent\n"


def test_message_of_a_host_masks_the_secrets_of_the_application(host: EngineHost) -> None:
    with receiving() as receiver:
        channels = Channels(webhook=Hook(receiver.url()))
        run = secret_document(host.home, channels, a=waiting(host.home), b=f"echo the password is {SECRET}; exit 3")
        client = host.start(replace(run, secrets=(SECRET,)))
        client.say(PREPARE, GO)
        wait_for_step(host.home)
        client.kill()
        proceed(host.home)
        host.end()

        [request] = receiver.requests
        assert "the password is ••••••" in request.json["cause"]
        assert SECRET not in request.body.decode()


def test_message_of_a_run_that_its_workstation_cancelled_is_not_sent(host: EngineHost) -> None:
    with receiving() as receiver:
        client = host.start(secret_document(host.home, Channels(webhook=Hook(receiver.url()))))
        client.say(CANCEL)
        host.end()

        assert receiver.requests == []


# A run that ends alone


def observed(home: Path) -> UnseenRun | None:
    """What the next observation of the host tells about the newest run."""
    text = moved(direct(observation.shell_text(APP, probe=False)), APP, home)
    output = LocalHost().run(Script(text), timeout_seconds=30).output
    return observation.unseen_run(observation.parse(APP.name, "web1", output))


@pytest.mark.parametrize("ending", ["upgraded", "undone"])
def test_run_that_ends_without_its_workstation_is_observed_until_the_next_run(ending: str, host: EngineHost) -> None:
    scripts = {"b": "exit 3"} if ending == "undone" else {}
    made = plan(host.home, a=waiting(host.home), **scripts)
    assert made.record is not None
    client = host.start(document(replace(made, record=replace(made.record, owner="ann"))))
    client.say(PREPARE, GO)
    wait_for_step(host.home)
    journal = host.home / "journal/20261130T080000Z-abcdef"
    journal.symlink_to(host.journal().path)
    assert observed(host.home) is None, "the run has not ended"
    client.kill()
    proceed(host.home)
    host.end()

    found = observed(host.home)

    assert found is not None
    assert (found.title, found.owner, found.result.value) == ("deploy", "ann", ending)
    assert abs(found.ended_at - time.time()) < 60
    (host.home / "journal/20261130T090000Z-abcdef").mkdir()
    assert observed(host.home) is None, "another run has begun"


def test_run_whose_workstation_returns_after_its_end_is_seen(host: EngineHost) -> None:
    client = host.start(document(plan(host.home)))
    client.say(PREPARE, GO)
    client.wait_for(b'"end"')
    client.kill()
    unseen = host.journal().unseen
    assert unseen.exists()

    again = host.start(document(plan(host.home)))
    again.wait_for(b'"end"')
    again.say(SEEN)

    wait_until(lambda: not unseen.exists(), "the word")


def test_seen_before_the_end_does_not_count(host: EngineHost) -> None:
    client = host.start(document(plan(host.home)))
    client.say(PREPARE, SEEN)
    client.wait_for_state(PREPARED)
    client.say(GO)
    client.wait_for(b'"end"')
    client.kill()

    assert host.journal().unseen.exists()


# A killed executor


def test_run_again_after_the_executor_was_killed_undoes_the_started_steps(host: EngineHost) -> None:
    run = document(plan(host.home, b=waiting(host.home)))
    client = host.start(run)
    client.say(PREPARE, GO)
    step = wait_for_step(host.home)
    os.kill(host.executor(), signal.SIGKILL)
    assert (client.wait(), is_running(step)) == (DIED_STATUS, True)

    again = host.start(run)
    end = host.end()

    assert (end.result, again.disconnect_after_end(), is_running(step)) == (HostResult.UNDONE, 0, False)
    assert done(host.home) == ["backup", "a", "undo-b", "undo-a"]
    assert (held(host.home), outcome(host.home)) == (False, "undone")
    assert not host.journal().plan.exists()


# Control words

HOSTILE = (
    b"\0\xff\xfe\x80go\n",
    b"x" * 5000 + b"go\n",
    b"x" * 5000 + b" " * 40 + b"go\n",
    b"GO\ngo \n go\ngo\r\ngo go\npreparego\n\n\n",
    b"go\0\ncancel\0\n{}\n$(touch pwned)\n",
    b"y" * 200_000,
    b"\n",
)


def inject(host: EngineHost, data: bytes) -> None:
    """Write to the FIFO of control words, as any process of the deploy user can."""
    handle = os.open(host.journal().path / "control", os.O_WRONLY)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
    finally:
        os.close(handle)


@pytest.mark.parametrize("way", ["connection", "FIFO"])
def test_malformed_words_do_not_let_a_run_continue(way: str, host: EngineHost) -> None:
    client = host.start(document(plan(host.home)))
    client.say(PREPARE)
    client.wait_for_state(PREPARED)
    for data in HOSTILE:
        if way == "connection":
            client.write(data)
        else:
            inject(host, data)
    client.say(CANCEL)

    assert host.end().result is HostResult.NOT_STARTED
    assert done(host.home) == ["backup"]
    assert not host.journal().path.joinpath("engine.log").read_text()


def test_unknown_words_do_not_prolong_the_wait(host: EngineHost) -> None:
    client = host.start(document(plan(host.home), lease_seconds=1))
    client.say(PREPARE)
    client.wait_for_state(PREPARED)
    stop = threading.Event()

    def chatter() -> None:
        while not stop.wait(0.05):
            inject(host, b"here I am\n")

    thread = threading.Thread(target=chatter, daemon=True)
    thread.start()
    try:
        wait_until(lambda: not held(host.home), "the end of the wait", 5)
    finally:
        stop.set()
    assert host.end().result is HostResult.NOT_STARTED


def unread(handle: int) -> int:
    """Return the number of bytes that wait in a pipe. Source: ioctl_tty(2), FIONREAD."""
    return int.from_bytes(fcntl.ioctl(handle, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_word_that_arrives_in_pieces_counts(host: EngineHost) -> None:
    client = host.start(document(plan(host.home)))
    client.say(PREPARE)
    client.wait_for_state(PREPARED)
    client.write(b"g")
    # The follower has read the first piece once it no longer waits in the pipe.
    wait_until(lambda: unread(client.stdin.fileno()) == 0, "the follower")
    client.write(b"o\n")

    assert host.end().result is HostResult.UPGRADED


def test_words_after_the_end_do_no_harm(host: EngineHost) -> None:
    client = host.start(document(plan(host.home)))
    client.say(PREPARE, GO)
    end = host.end()
    before = host.journal().events.read_bytes()
    client.write(b"cancel\ngo\nseen\n" + b"".join(HOSTILE))

    assert (client.disconnect_after_end(), end.result) == (0, HostResult.UPGRADED)
    assert host.journal().events.read_bytes() == before


# Files and secrets


def modes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): f"{path.lstat().st_mode & 0o777:04o}"
        for path in (directory, *directory.rglob("*"))
    }


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("way", ["script", "program"])
def test_files_of_a_run_are_only_for_their_user(way: str, umask: int, host: EngineHost) -> None:
    run = document(plan(host.home, a=waiting(host.home)))
    if way == "program":
        first = host.start(replace(run, attempt=9))
        first.say(CANCEL)
        host.end()
        first.kill()
        host.journal().events.unlink()
        write_plan(host, run)
        client = host.start_directly("r2", umask=umask)
    else:
        client = host.start(run, umask=umask)
    client.say(PREPARE, GO)
    wait_for_step(host.home)
    wait_until((host.journal().path / "a.session").exists, "the session of the step")
    during = modes(host.home / "journal")
    proceed(host.home)
    host.end()

    assert {"r2/plan.json", "r2/events.jsonl", "r2/a.log", "r2/a.session", "r2/alive", "r2/control"} <= set(during)
    for found in (during, modes(host.home / "journal"), modes(host.home / "engine")):
        directories = {name: mode for name, mode in found.items() if name in {".", "r2"}}
        assert set(directories.values()) == {"0700"}
        assert {mode for name, mode in found.items() if name not in directories} == {"0600"}


def write_plan(host: EngineHost, run: RunDocument) -> None:
    host.journal().plan.write_text(json.dumps(to_plain(run, secrets=True)))
    host.journal().plan.chmod(0o600)


def files_with(directory: Path, secret: str) -> list[str]:
    """Return the names of the regular files that contain a secret."""
    return [path.name for path in directory.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.parametrize("ending", ["upgraded", "undone", "cancelled"])
def test_secrets_are_only_in_the_plan_which_is_deleted_at_the_end(ending: str, host: EngineHost) -> None:
    channels = Channels(webhook=Hook(f"http://127.0.0.1:{closed_port()}/services/{URL_SECRET}"))
    scripts = {"b": "exit 3"} if ending == "undone" else {}
    client = host.start(secret_document(host.home, channels, a=waiting(host.home), **scripts))
    client.say(PREPARE, *[GO] * (ending != "cancelled"))
    if ending == "cancelled":
        client.wait_for_state(PREPARED)
    else:
        wait_for_step(host.home)
    for secret in (SECRET, URL_SECRET):
        assert files_with(host.home, secret) == ["plan.json"]
        assert not [line for line in command_lines().values() if secret.encode() in line]
        assert not any(secret.encode() in environment for environment in environments())
    if ending == "cancelled":
        client.say(CANCEL)
    proceed(host.home)

    assert host.end().result is {"undone": HostResult.UNDONE, "upgraded": HostResult.UPGRADED}.get(
        ending, HostResult.NOT_STARTED
    )
    assert not host.journal().plan.exists()
    for secret in (SECRET, URL_SECRET):
        assert (files_with(host.home, secret), secret.encode() in client.output.read_bytes()) == ([], False)


def test_plan_is_deleted_when_the_run_cannot_start(host: EngineHost) -> None:
    """Whatever is wrong with the journal, here a file in place of the FIFO, the secrets do not stay."""
    host.journal().path.mkdir(parents=True)
    (host.journal().path / "control").write_text("not a FIFO")
    client = host.start(secret_document(host.home, Channels()))

    assert (client.wait(), files_with(host.home, SECRET)) == (1, [])
    assert "is not a FIFO" in client.output.read_text()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\xff" * 1000,
        b'{"plan": "%s"}' % SECRET.encode(),
        b'{"plan": {"host": ["%s"]}}' % SECRET.encode(),
        b"[" * 100_000,
        b'{"plan": {"host": "web1", "%s' % SECRET.encode(),
    ],
    ids=["empty", "binary", "another type", "wrong field", "deep", "truncated"],
)
def test_unreadable_plan_is_reported_and_deleted(content: bytes, host: EngineHost) -> None:
    first = host.start(document(plan(host.home)))
    first.say(CANCEL)
    host.end()
    first.kill()
    host.journal().events.unlink()
    (host.journal().path / "engine.log").unlink()
    host.journal().plan.write_bytes(content)

    client = host.start_directly("r2", umask=0o022)
    end = host.end()

    assert (client.disconnect_after_end(), end.result) == (0, HostResult.NOT_STARTED)
    assert isinstance(end.raised, PreflightError)
    assert "nothing was touched: its plan is missing or damaged" in end.message
    assert (host.journal().plan.exists(), files_with(host.home, SECRET)) == (False, [])


def test_lost_plan_of_a_begun_run_has_an_unknown_outcome(host: EngineHost) -> None:
    run = document(plan(host.home, a=waiting(host.home)))
    client = host.start(run)
    client.say(PREPARE, GO)
    wait_for_step(host.home)
    os.kill(host.executor(), signal.SIGKILL)
    client.wait()
    host.journal().plan.unlink()

    host.start(run)
    end = host.end()
    proceed(host.home)

    assert (end.result, "its plan is gone" in end.message) == (HostResult.UNKNOWN, True)


def test_next_run_deletes_the_plan_of_a_killed_one(host: EngineHost) -> None:
    client = host.start(secret_document(host.home, Channels(), a=waiting(host.home)))
    client.say(PREPARE, GO)
    step = wait_for_step(host.home)
    os.kill(host.executor(), signal.SIGKILL)
    client.wait()
    proceed(host.home)
    wait_until(lambda: not is_running(step), "the end of the step")
    assert files_with(host.home, SECRET) == ["plan.json"]
    lock = host.home / "lock" / "held"
    lock.write_text(lock.read_text().replace("expires_at=", "expires_at=0\nwas="))

    made = plan(host.home)
    [acquire] = made.acquire
    next_lock = Script(acquire.script.text.replace("token=r2", "token=r3").replace("!= r2 ]", "!= r3 ]"))
    next_plan = replace(made, run_id="r3", acquire=(replace(acquire, script=next_lock),))
    client = host.start(document(next_plan))
    wait_until(lambda: {"state": LOCKED} in host.journal("r3").messages(), "the lock")
    client.say(CANCEL)
    host.end("r3")

    assert files_with(host.home, SECRET) == []
