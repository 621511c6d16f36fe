"""Connections to a real sshd: verified keys, logins, dropped connections and jump hosts."""

from __future__ import annotations

import contextlib
import getpass
import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import ConnectionDropped, HostUnreachable, RollingError
from rolling_upgrade.ssh import connection
from rolling_upgrade.ssh.connection import load_key, login_fingerprints
from tests.support.shell import Signal
from tests.support.sshd import Sshd, free_port

ECHO = Script("echo here")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Sshd]:
    """A server for one test, which may stop it."""
    server = Sshd.start(tmp_path / "own")
    yield server
    if server.process.poll() is None:
        server.stop()


def drop_once(server: Sshd, began: Signal) -> None:
    """Drop the server's sessions once a script has started."""
    began.wait()
    server.drop_sessions()


def refusal(host: object) -> HostUnreachable:
    with pytest.raises(HostUnreachable) as caught:
        host.run(ECHO, timeout_seconds=20)  # type: ignore[attr-defined]
    return caught.value


@contextmanager
def busy(server: Sshd, refusals: int) -> Iterator[int]:
    """Yield a port that closes the first connections before a greeting and then forwards to the server."""
    left = refusals
    sessions: list[subprocess.Popen[bytes]] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            nonlocal left
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listening.accept()
                    with peer:
                        if left == 0:
                            daemon = ["/usr/sbin/sshd", "-i", "-f", str(server.directory / "config")]
                            both = peer.fileno()
                            sessions.append(
                                subprocess.Popen(daemon, stdin=both, stdout=both, stderr=subprocess.DEVNULL)
                            )
                        left = max(0, left - 1)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        for session in sessions:
            session.wait(20)


@pytest.mark.parametrize(("refusals", "known"), [(0, 1), (2, 1), (2, 0)])
def test_run_server_that_closes_early_connections_is_retried(
    own: Sshd, monkeypatch: pytest.MonkeyPatch, refusals: int, known: int
) -> None:
    monkeypatch.setattr(connection, "PAUSES", (0.01, 0.02, 0.04))
    with busy(own, refusals) as port:
        host = own.host(own.known(f"[127.0.0.1]:{port}") if known else "", port=port)
        if known:
            assert host.run(ECHO, timeout_seconds=20).output == "here\n"
        else:
            assert "no verified connection" in refusal(host).message
        host.close()


def test_run_server_that_closes_every_connection_is_reported_unreachable(
    own: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PAUSES", (0.01, 0.02))
    with busy(own, 3) as port:
        error = refusal(own.host(own.known(f"[127.0.0.1]:{port}"), port=port))

    assert "closed 3 connections before its greeting" in error.message


def test_run_unknown_host_key_is_refused_before_login(sshd: Sshd) -> None:
    host = sshd.host(known="")

    error = refusal(host)

    assert "no verified connection" in error.message
    assert "known_hosts" in error.next_step
    assert host.executions == 0


def test_run_changed_host_key_is_refused_before_login(sshd: Sshd) -> None:
    error = refusal(sshd.host(known=sshd.known(key="stranger")))

    assert "is not the recorded one; refused before the login" in error.message
    assert "known_hosts.stranger" in error.next_step


@pytest.mark.parametrize("known", ["", "stranger"])
def test_run_refused_host_key_causes_no_login_attempt(known: str, own: Sshd) -> None:
    (own.directory / "authorized_keys").write_text((own.directory / "user.pub").read_text())

    refusal(own.host(known=own.known(key=known) if known else ""))

    assert not [line for line in own.ended() if "user" in line or "Accepted" in line]


def test_run_refused_user_key_causes_a_login_attempt(own: Sshd) -> None:
    refusal(own.host(identity_file=str(own.directory / "stranger")))

    assert [line for line in own.ended() if "authenticating user" in line]


def test_run_revoked_host_key_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    line = Path(sshd.known()).read_text()
    (tmp_path / "known").write_text(f"{line}@revoked * {line.partition(' ')[2]}")

    assert "no verified connection" in refusal(sshd.host(known=str(tmp_path / "known"))).message


def test_run_host_key_of_a_wildcard_record_is_accepted(sshd: Sshd) -> None:
    host = sshd.host(known=sshd.known(f"[127.0.0.*]:{sshd.port}"))

    assert host.run(ECHO, timeout_seconds=20).ok
    host.close()


def test_run_wrong_user_key_is_refused_by_the_server(sshd: Sshd) -> None:
    error = refusal(sshd.host(identity_file=str(sshd.directory / "stranger")))

    assert f"{getpass.getuser()}@127.0.0.1:{sshd.port} refused the login" in error.message


def test_run_missing_user_key_is_reported(sshd: Sshd) -> None:
    error = refusal(sshd.host(identity_file=str(sshd.directory / "none")))

    assert "the key file" in error.message
    assert "identity_file" in error.next_step


def test_run_refused_port_is_unreachable(sshd: Sshd) -> None:
    port = free_port()

    error = refusal(sshd.host(known=sshd.known(f"[127.0.0.1]:{port}"), port=port))

    assert f"cannot reach {getpass.getuser()}@127.0.0.1:{port}" in error.message


def test_run_error_starts_with_the_inventory_name(sshd: Sshd) -> None:
    assert refusal(sshd.host(known="", name="the-shop")).message.startswith("the-shop: ")


def test_run_three_scripts_take_one_connection(sshd: Sshd) -> None:
    host = sshd.host()
    for _ in range(3):
        host.run(ECHO, timeout_seconds=20)
    host.close()

    assert (host.connections, host.executions) == (1, 3)


def test_run_after_a_close_takes_a_second_connection(sshd: Sshd) -> None:
    host = sshd.host()
    host.run(ECHO, timeout_seconds=20)
    host.close()
    host.run(ECHO, timeout_seconds=20)
    host.close()

    assert (host.connections, host.executions) == (2, 2)


def test_close_ends_the_session_on_the_host(own: Sshd) -> None:
    host = own.host()
    host.run(ECHO, timeout_seconds=20)
    (session,) = own.sessions()
    watched = os.pidfd_open(session)

    host.close()

    ended, _, _ = select.select([watched], [], [], 20)
    os.close(watched)
    assert ended


def test_run_dropped_connection_raises_connection_dropped(own: Sshd, began: Signal) -> None:
    host = own.host()
    dropper = threading.Thread(target=drop_once, args=(own, began))
    dropper.start()

    with pytest.raises(ConnectionDropped, match="web1: the connection dropped while a script ran"):
        host.run(Script(f"echo began > {began.path}; sleep 20"), timeout_seconds=60)

    dropper.join(20)
    host.close()


def test_run_after_a_drop_connects_again(own: Sshd, began: Signal) -> None:
    host = own.host()
    dropper = threading.Thread(target=drop_once, args=(own, began))
    dropper.start()
    with pytest.raises(ConnectionDropped):
        host.run(Script(f"echo began > {began.path}; sleep 20"), timeout_seconds=60)
    dropper.join(20)

    answer = host.run(ECHO, timeout_seconds=20)

    host.close()
    assert (answer.output, host.connections) == ("here\n", 2)


def test_run_after_a_drop_between_two_scripts_reconnects(own: Sshd) -> None:
    host = own.host()
    host.run(ECHO, timeout_seconds=20)
    own.drop_sessions()

    answer = host.run(ECHO, timeout_seconds=20)

    host.close()
    assert answer.output == "here\n"


def test_run_stopped_server_is_unreachable(own: Sshd) -> None:
    host = own.host()
    host.run(ECHO, timeout_seconds=20)
    own.stop()

    with pytest.raises(RollingError):
        host.run(ECHO, timeout_seconds=20)


def test_run_through_a_jump_host_reaches_the_host(own: Sshd, sshd: Sshd) -> None:
    known = own.known(f"[127.0.0.1]:{own.port}")
    Path(known).write_text(Path(known).read_text() + Path(sshd.known()).read_text())
    jump = f"{getpass.getuser()}@127.0.0.1:{own.port}"
    (own.directory / "authorized_keys").write_text((sshd.directory / "user.pub").read_text())

    host = sshd.host(known=known, jump=jump)
    answer = host.run(Script('echo "${SSH_CONNECTION##* }"'), timeout_seconds=20)

    assert (answer.output, len(own.sessions())) == (f"{sshd.port}\n", 1)
    host.close()


def test_run_jump_host_with_an_unknown_key_is_refused(own: Sshd, sshd: Sshd) -> None:
    error = refusal(sshd.host(jump=f"{getpass.getuser()}@127.0.0.1:{own.port}"))

    assert f"no verified connection to {getpass.getuser()}@127.0.0.1:{own.port}" in error.message


def test_run_host_behind_a_jump_host_is_verified_too(own: Sshd, sshd: Sshd) -> None:
    (own.directory / "authorized_keys").write_text((sshd.directory / "user.pub").read_text())
    jump = f"{getpass.getuser()}@127.0.0.1:{own.port}"

    error = refusal(sshd.host(known=own.known(), jump=jump))

    assert f"127.0.0.1:{sshd.port}" in error.message


@pytest.mark.parametrize("changed", ["hop", "host"])
def test_run_changed_key_of_a_hop_is_refused_before_login(changed: str, own: Sshd, sshd: Sshd) -> None:
    (own.directory / "authorized_keys").write_text((sshd.directory / "user.pub").read_text())
    hop = own.known(key="stranger" if changed == "hop" else "host")
    host = sshd.known(key="stranger" if changed == "host" else "host")
    Path(hop).write_text(Path(hop).read_text() + Path(host).read_text())

    error = refusal(sshd.host(known=hop, jump=f"{getpass.getuser()}@127.0.0.1:{own.port}"))

    port = own.port if changed == "hop" else sshd.port
    assert f"127.0.0.1:{port} is not the recorded one; refused before the login" in error.message
    if changed == "hop":
        assert not [line for line in own.ended() if "user" in line or "Accepted" in line]


def test_load_key_reads_the_file_once(sshd: Sshd) -> None:
    path = str(sshd.directory / "user")

    assert load_key(path) is load_key(path)


def test_login_fingerprints_are_the_identity_file_or_the_keys_of_the_home_directory(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = login_fingerprints(str(sshd.directory / "user"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519.pub").write_text((sshd.directory / "user.pub").read_text())
    (tmp_path / ".ssh/id_broken.pub").write_text("nonsense")

    assert login_fingerprints("") == named
    assert len(named) == 1
