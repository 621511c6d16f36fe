"""Hosts that stall during a key exchange, a request or a login: only their own task fails, in bounded time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko
import pytest
from paramiko.common import MSG_KEXINIT

from rolling_upgrade.engine import parallel
from rolling_upgrade.engine.host import Answer, Cancelled, Host
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import HostUnreachable, PreflightError
from rolling_upgrade.ssh.connection import Connector
from rolling_upgrade.ssh.fabric_host import FabricHost
from rolling_upgrade.ssh.image_server import Offer
from tests.hostile.hosts import greeting
from tests.support.scripted_host import Scene, ScriptedHost
from tests.support.sshd import Sshd

SECONDS = 2.0
#: The time limit of each test on a busy machine. Paramiko's own timeouts are thirty seconds or none.
LONGEST = 20.0


class Server(paramiko.ServerInterface):  # type: ignore[misc]
    """An SSH server that accepts every login and stalls at one request."""

    def __init__(self, stalls: str, finished: threading.Event, stalled: threading.Event) -> None:
        self.stalls, self.finished, self.stalled = stalls, finished, stalled

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return int(paramiko.AUTH_SUCCESSFUL)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self.stalls == "exec":
            self.finished.wait()
        else:
            threading.Thread(target=self._attack, args=(channel,), daemon=True).start()
        return True

    def check_port_forward_request(self, address: str, port: int) -> int:
        if self.stalls == "forward":
            self.finished.wait()
        return 4242

    def cancel_port_forward_request(self, address: str, port: int) -> None:
        self.finished.wait()

    def _attack(self, channel: paramiko.Channel) -> None:
        """Start a key exchange and read nothing more."""
        if self.stalls not in {"keys", "keys and data"}:
            return
        while not channel.recv(65_536).endswith(b"\n"):
            pass
        if self.stalls == "keys and data":
            channel.sendall(b"x" * 1_000_000)
        transport = channel.get_transport()
        transport._handler_table = {**transport._handler_table, MSG_KEXINIT: lambda _: None}
        transport.packetizer.read_message = lambda: self.finished.wait()
        transport._send_kex_init()
        self.stalled.set()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A separate server, because other tests change the keys that the shared one accepts."""
    server = Sshd.start(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@contextmanager
def stalling(sshd: Sshd, stalls: str, stalled: threading.Event | None = None) -> Iterator[int]:
    """Run a stalling server with the host key of the healthy one. Yields its port."""
    finished, stalled = threading.Event(), stalled or threading.Event()
    key = paramiko.PKey.from_path(sshd.directory / "host")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listening.accept()
                except OSError:
                    return
                transport = paramiko.Transport(peer)
                transport.add_server_key(key)
                transport.start_server(event=threading.Event(), server=Server(stalls, finished, stalled))

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            finished.set()


def client(sshd: Sshd, port: int, name: str = "evil", **changes: object) -> FabricHost:
    known = sshd.known(f"[127.0.0.1]:{port}", f"[127.0.0.1]:{sshd.port}")
    target = sshd.target(name=name, port=port, **changes)
    return FabricHost(target, known_hosts=(known,), connect_timeout_seconds=SECONDS)


@pytest.mark.parametrize("stalls", ["keys", "keys and data", "exec"])
def test_on_each_stalled_host_is_reported_and_the_other_answers(stalls: str, sshd: Sshd) -> None:
    started_at = time.monotonic()
    with stalling(sshd, stalls) as port:
        hosts = [sshd.host(known=sshd.known(f"[127.0.0.1]:{sshd.port}")), client(sshd, port)]
        results = parallel.on_each(hosts, 2, lambda host: host.run(Script("echo fine"), timeout_seconds=6))

    assert results["web1"] == Answer(0, "fine\n")
    assert isinstance(results["evil"], HostUnreachable)
    assert time.monotonic() - started_at < LONGEST


def test_run_cancelled_during_the_key_exchange_ends_at_once(sshd: Sshd) -> None:
    stalled, cancelled = threading.Event(), threading.Event()
    with stalling(sshd, "keys", stalled) as port:
        host = client(sshd, port)

        def cancel() -> None:
            stalled.wait()
            cancelled.set()

        threading.Thread(target=cancel, daemon=True).start()
        with pytest.raises(Cancelled):
            host.run(Script("sleep 9"), timeout_seconds=60, cancelled=cancelled)


def test_offer_host_that_never_answers_the_port_request_is_refused_in_time(sshd: Sshd) -> None:
    started_at = time.monotonic()
    with stalling(sshd, "forward") as port:
        host = client(sshd, port)
        with pytest.raises(PreflightError, match="ended without an answer"), host.offer(Offer({}, {}, lambda _: None)):
            pass

    assert time.monotonic() - started_at < LONGEST


def test_offer_stops_waiting_for_a_host_that_never_closes_the_port(sshd: Sshd) -> None:
    started_at = time.monotonic()
    with stalling(sshd, "the end of the forwarding") as port:
        host = client(sshd, port)
        with host.offer(Offer({}, {}, lambda _: None)):
            pass

    assert time.monotonic() - started_at < LONGEST


def test_connection_through_a_hop_that_never_answers_ends_in_time(sshd: Sshd) -> None:
    started_at = time.monotonic()
    with stalling(sshd, "exec") as port:
        known = sshd.known(f"[127.0.0.1]:{port}", f"[127.0.0.1]:{sshd.port}")
        target = sshd.target(name="evil", jump=f"127.0.0.1:{port}")
        host = FabricHost(target, known_hosts=(known,), connect_timeout_seconds=SECONDS)
        with pytest.raises(HostUnreachable):
            host.run(Script(":"), timeout_seconds=20)

    assert time.monotonic() - started_at < LONGEST


@pytest.mark.parametrize("content", [b"x" * 65_536, b""], ids=["a flood", "silence"])
def test_jump_host_of_ssh_config_has_the_same_bounds_as_the_host(
    content: bytes, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    started_at = time.monotonic()
    with greeting(content, 0.02) as port:
        (tmp_path / ".ssh" / "config").write_text(f"Host inner\n  ProxyJump me@127.0.0.1:{port}\n")
        connector = Connector(sshd.target(address="inner"), "me", (), SECONDS)
        outer, inner = connector.route()
        with pytest.raises(HostUnreachable):
            connector.open()

    assert outer.connect_timeout == inner.connect_timeout == round(SECONDS)
    for name in ("banner_timeout", "auth_timeout", "channel_timeout", "transport_factory"):
        assert outer.connect_kwargs[name] == inner.connect_kwargs[name]
    assert time.monotonic() - started_at < LONGEST


def test_on_each_unexpected_error_belongs_to_one_host() -> None:
    hosts = [ScriptedHost(name, {}, [], Scene()) for name in ("web1", "web2")]

    def do(host: Host) -> str:
        return str(1 // (host.name == "web1"))

    results = parallel.on_each(hosts, 2, do)

    assert results["web1"] == "1"
    assert "unexpected error: ZeroDivisionError" in str(results["web2"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, Cancelled])
def test_on_each_interruption_is_not_an_error_of_a_host(error: type[BaseException]) -> None:
    def do(_: Host) -> None:
        raise error("x")

    with pytest.raises(error):
        parallel.on_each([ScriptedHost("web1", {}, [], Scene())], 1, do)
