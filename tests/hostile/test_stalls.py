"""Hosts that begin something and never go on: an exchange of keys, a request, a login. Each costs its own line."""

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
from tests.support.scripted_host import ScriptedHost
from tests.support.sshd import Sshd

SECONDS = 2.0
#: What anything here may take on a busy machine; paramiko's own patience is thirty seconds, or none.
LONGEST = 20.0


class Server(paramiko.ServerInterface):  # type: ignore[misc]
    """An SSH server that lets everybody in and stalls at one thing."""

    def __init__(self, stalls: str, over: threading.Event, began: threading.Event) -> None:
        self.stalls, self.over, self.began = stalls, over, began

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return int(paramiko.AUTH_SUCCESSFUL)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self.stalls == "exec":
            self.over.wait()
        else:
            threading.Thread(target=self._attack, args=(channel,), daemon=True).start()
        return True

    def check_port_forward_request(self, address: str, port: int) -> int:
        if self.stalls == "forward":
            self.over.wait()
        return 4242

    def cancel_port_forward_request(self, address: str, port: int) -> None:
        self.over.wait()

    def _attack(self, channel: paramiko.Channel) -> None:
        """Begin an exchange of keys, and take nothing more."""
        if self.stalls not in {"keys", "keys and data"}:
            return
        while not channel.recv(65_536).endswith(b"\n"):
            pass
        if self.stalls == "keys and data":
            channel.sendall(b"x" * 1_000_000)
        transport = channel.get_transport()
        transport._handler_table = {**transport._handler_table, MSG_KEXINIT: lambda _: None}
        transport.packetizer.read_message = lambda: self.over.wait()
        transport._send_kex_init()
        self.began.set()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server of these tests alone: others change whom the shared one lets in."""
    server = Sshd.start(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@contextmanager
def stalling(sshd: Sshd, stalls: str, began: threading.Event | None = None) -> Iterator[int]:
    """The port of a server that stalls, with the host key of the good one."""
    over, began = threading.Event(), began or threading.Event()
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
                transport.start_server(event=threading.Event(), server=Server(stalls, over, began))

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()


def client(sshd: Sshd, port: int, name: str = "evil", **changes: object) -> FabricHost:
    known = sshd.known(f"[127.0.0.1]:{port}", f"[127.0.0.1]:{sshd.port}")
    target = sshd.target(name=name, port=port, **changes)
    return FabricHost(target, known_hosts=(known,), connect_timeout_seconds=SECONDS)


@pytest.mark.parametrize("stalls", ["keys", "keys and data", "exec"])
def test_on_each_stalled_host_is_reported_and_the_other_answers(stalls: str, sshd: Sshd) -> None:
    began = time.monotonic()
    with stalling(sshd, stalls) as port:
        hosts = [sshd.host(known=sshd.known(f"[127.0.0.1]:{sshd.port}")), client(sshd, port)]
        found = parallel.on_each(hosts, 2, lambda host: host.run(Script("echo fine"), timeout_seconds=6))

    assert found["web1"] == Answer(0, "fine\n")
    assert isinstance(found["evil"], HostUnreachable)
    assert time.monotonic() - began < LONGEST


def test_run_cancelled_during_the_key_exchange_ends_at_once(sshd: Sshd) -> None:
    began, cancelled = threading.Event(), threading.Event()
    with stalling(sshd, "keys", began) as port:
        host = client(sshd, port)

        def give_up() -> None:
            began.wait()
            cancelled.set()

        threading.Thread(target=give_up, daemon=True).start()
        with pytest.raises(Cancelled):
            host.run(Script("sleep 9"), timeout_seconds=60, cancelled=cancelled)


def test_offer_host_that_never_answers_the_port_request_is_refused_in_time(sshd: Sshd) -> None:
    began = time.monotonic()
    with stalling(sshd, "forward") as port:
        host = client(sshd, port)
        with pytest.raises(PreflightError, match="ended without an answer"), host.offer(Offer({}, {}, lambda _: None)):
            pass

    assert time.monotonic() - began < LONGEST


def test_offer_host_that_never_closes_the_port_is_left_in_time(sshd: Sshd) -> None:
    began = time.monotonic()
    with stalling(sshd, "the end of the forwarding") as port:
        host = client(sshd, port)
        with host.offer(Offer({}, {}, lambda _: None)):
            pass

    assert time.monotonic() - began < LONGEST


def test_connection_through_a_hop_that_never_answers_ends_in_time(sshd: Sshd) -> None:
    began = time.monotonic()
    with stalling(sshd, "exec") as port:
        host = client(sshd, port)
        host._target = sshd.target(name="evil", jump=f"127.0.0.1:{port}")
        with pytest.raises(HostUnreachable):
            host.run(Script(":"), timeout_seconds=20)

    assert time.monotonic() - began < LONGEST


@pytest.mark.parametrize("content", [b"x" * 65_536, b""], ids=["a flood", "silence"])
def test_jump_host_of_ssh_config_has_the_same_bounds_as_the_host(
    content: bytes, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    began = time.monotonic()
    with greeting(content, 0.02) as port:
        (tmp_path / ".ssh" / "config").write_text(f"Host inner\n  ProxyJump me@127.0.0.1:{port}\n")
        connector = Connector(sshd.target(address="inner"), "me", (), SECONDS)
        outer, inner = connector.route()
        with pytest.raises(HostUnreachable):
            connector.open()

    assert outer.connect_timeout == inner.connect_timeout == round(SECONDS)
    for name in ("banner_timeout", "auth_timeout", "channel_timeout", "transport_factory"):
        assert outer.connect_kwargs[name] == inner.connect_kwargs[name]
    assert time.monotonic() - began < LONGEST


def test_on_each_unexpected_error_belongs_to_one_host() -> None:
    hosts = [ScriptedHost(name, {}, []) for name in ("web1", "web2")]

    def do(host: Host) -> str:
        return str(1 // (host.name == "web1"))

    found = parallel.on_each(hosts, 2, do)

    assert found["web1"] == "1"
    assert "unexpected error: ZeroDivisionError" in str(found["web2"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, Cancelled])
def test_on_each_interruption_is_not_an_error_of_a_host(error: type[BaseException]) -> None:
    def do(_: Host) -> None:
        raise error("x")

    with pytest.raises(error):
        parallel.on_each([ScriptedHost("web1", {}, [])], 1, do)
