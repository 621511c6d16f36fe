"""The contract of Host, tested on LocalHost and on FabricHost with a real OpenSSH server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rolling_upgrade.engine.host import Cancelled, Host, LocalHost, StreamingHost
from rolling_upgrade.engine.shell import Script, quote, write_file
from rolling_upgrade.errors import ConnectionDropped
from tests.support.shell import HOSTILE, Signal
from tests.support.sshd import Sshd


@pytest.fixture(params=["local", "ssh"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    made: Host = LocalHost("web1") if request.param == "local" else _over_ssh(request)
    yield made
    made.close()


def _over_ssh(request: pytest.FixtureRequest) -> Host:
    server: Sshd = request.getfixturevalue("sshd")
    return server.host()


def test_run_returns_output_errors_and_status(host: Host) -> None:
    answer = host.run(Script("echo out\necho err >&2\nexit 7"), timeout_seconds=20)

    assert (answer.status, answer.output, answer.errors, answer.ok) == (7, "out\n", "err\n", False)


def test_host_has_its_inventory_name(host: Host) -> None:
    assert host.name == "web1"


def test_runs_share_no_shell_state(host: Host) -> None:
    host.run(Script("cd /; changed=yes; umask 0"), timeout_seconds=20)

    assert host.run(Script('echo "${changed:-no}"'), timeout_seconds=20).output == "no\n"


def test_run_failing_command_under_set_e_ends_it(host: Host) -> None:
    answer = host.run(Script("set -eu\necho one\nfalse\necho two"), timeout_seconds=20)

    assert (answer.status, answer.output) == (1, "one\n")


@pytest.mark.parametrize("value", HOSTILE)
def test_run_hostile_values_arrive_byte_for_byte(value: str, host: Host) -> None:
    assert host.run(Script(f"printf %s {quote(value)}"), timeout_seconds=20).output == value


def test_run_five_megabytes_of_output_arrive_complete(host: Host) -> None:
    script = Script("head -c 5000000 /dev/zero | tr '\\0' x; echo end").answering(6_000_000)

    answer = host.run(script, timeout_seconds=30)

    assert (len(answer.output), answer.output[-5:], answer.ok) == (5_000_004, "xend\n", True)


def test_run_with_large_output_on_both_streams_does_not_block(host: Host) -> None:
    text = "for n in 1 2 3 4; do head -c 300000 /dev/zero | tr '\\0' e >&2; head -c 300000 /dev/zero | tr '\\0' o; done"

    answer = host.run(Script(text).answering(3_000_000), timeout_seconds=30)

    assert (len(answer.output), len(answer.errors)) == (1_200_000, 1_200_000)


def test_run_half_a_megabyte_of_script_arrives_complete(host: Host, tmp_path: Path) -> None:
    content = "0123456789abcde\n" * 25_000

    answer = host.run(write_file(f"{tmp_path}/large", content), timeout_seconds=30)

    assert (answer.ok, (tmp_path / "large").read_text()) == (True, content)


def test_run_replaces_invalid_utf8(host: Host) -> None:
    answer = host.run(Script("printf 'a\\377\\000b'"), timeout_seconds=20)

    assert answer.output == "a\ufffd\0b"


def test_run_standard_input_is_empty(host: Host) -> None:
    assert host.run(Script("cat; echo end"), timeout_seconds=20).output == "end\n"


def test_run_continues_after_a_command_that_reads_standard_input(host: Host) -> None:
    assert host.run(Script("read -r line || :\necho \"read '$line'\""), timeout_seconds=20).output == "read ''\n"


def test_run_waits_for_a_slow_script(host: Host) -> None:
    assert host.run(Script("sleep 0.4; echo end"), timeout_seconds=20).output == "end\n"


def test_run_past_its_deadline_is_a_dropped_connection(host: Host) -> None:
    with pytest.raises(ConnectionDropped, match=r"web1: no answer within 0\.3 s"):
        host.run(Script("sleep 20"), timeout_seconds=0.3)


def test_run_past_its_deadline_leaves_the_host_usable(host: Host) -> None:
    with pytest.raises(ConnectionDropped):
        host.run(Script("sleep 20"), timeout_seconds=0.3)

    assert host.run(Script("echo again"), timeout_seconds=20).output == "again\n"


def test_run_cancelled_ends_promptly(host: Host, began: Signal) -> None:
    cancelled = threading.Event()
    thread = threading.Thread(target=_set_once, args=(cancelled, began))
    thread.start()

    start = time.monotonic()
    with pytest.raises(Cancelled):
        host.run(Script(f"echo began > {began.path}; sleep 20"), timeout_seconds=30, cancelled=cancelled)

    thread.join()
    assert time.monotonic() - start < 10


def test_run_cancelled_leaves_the_host_usable(host: Host) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        host.run(Script("sleep 20"), timeout_seconds=30, cancelled=cancelled)

    assert host.run(Script("echo again"), timeout_seconds=20).output == "again\n"


def test_run_hides_secrets_from_the_process_list(host: Host, began: Signal, may_end: Signal) -> None:
    secret = f"hunter2-{host.name}-{id(host)}"
    text = f'key={secret}\necho began > {began.path}\nread -r _ < {may_end.path}\necho "${{#key}}"'
    thread = threading.Thread(target=host.run, args=(Script(text, (secret,)),), kwargs={"timeout_seconds": 30})
    thread.start()
    began.wait()

    seen = [path for path in Path("/proc").glob("[0-9]*") if secret.encode() in _told(path)]

    may_end.give()
    thread.join(30)
    assert seen == []


def _set_once(cancelled: threading.Event, began: Signal) -> None:
    began.wait()
    cancelled.set()


def _told(process: Path) -> bytes:
    """Return the arguments and the environment of a process, as /proc shows them."""
    found = b""
    for name in ("cmdline", "environ"):
        try:
            found += (process / name).read_bytes()
        except OSError:
            continue
    return found


def test_run_does_not_wait_for_a_detached_child(host: Host) -> None:
    text = "setsid sh -c 'sleep 0.3' </dev/null >/dev/null 2>&1 &\necho end"

    assert host.run(Script(text), timeout_seconds=20).output == "end\n"


def test_close_host_opens_again_for_the_next_run(host: Host) -> None:
    host.run(Script("true"), timeout_seconds=20)
    host.close()
    host.close()

    assert host.run(Script("echo again"), timeout_seconds=20).output == "again\n"


@pytest.fixture
def streaming(request: pytest.FixtureRequest) -> Iterator[StreamingHost]:
    server: Sshd = request.getfixturevalue("sshd")
    made = server.host()
    yield made
    made.close()


def test_stream_passes_on_both_streams_and_returns_the_status(streaming: StreamingHost) -> None:
    output, errors = bytearray(), bytearray()

    status = streaming.stream(Script("printf 'a\\377\\000b'; echo err >&2; exit 7"), output.extend, errors.extend)

    assert (status, bytes(output), bytes(errors)) == (7, b"a\xff\0b", b"err\n")


def test_stream_passes_on_output_while_the_script_runs(streaming: StreamingHost, may_end: Signal) -> None:
    heard = bytearray()

    def hear(piece: bytes) -> None:
        heard.extend(piece)
        if heard == b"begun\n":
            may_end.give()

    assert streaming.stream(Script(f"echo begun; read -r _ < {may_end.path}; echo end"), hear, heard.extend) == 0
    assert heard == b"begun\nend\n"


def test_stream_has_empty_standard_input_and_open_descriptor_3(streaming: StreamingHost) -> None:
    heard = bytearray()

    streaming.stream(Script("cat; timeout 0.3 cat <&3 || echo $?"), heard.extend, heard.extend)

    assert heard == b"124\n"


@pytest.mark.parametrize("how", ["cancelled", "callback", "closed"])
def test_stream_closes_descriptor_3_when_it_ends_early(how: str, streaming: StreamingHost, began: Signal) -> None:
    cancelled = threading.Event()

    def hear(piece: bytes) -> None:
        if how == "callback":
            raise ValueError("enough")
        (cancelled.set if how == "cancelled" else streaming.close)()

    with pytest.raises((Cancelled, ValueError, ConnectionDropped)):
        streaming.stream(Script(f"echo begun; cat <&3; echo 'let go' > {began.path}"), hear, hear, cancelled=cancelled)

    assert began.wait() == "let go\n"


def test_stream_past_its_deadline_is_a_dropped_connection(streaming: StreamingHost) -> None:
    with pytest.raises(ConnectionDropped, match=r"web1: no answer within 0\.3 s"):
        streaming.stream(Script("sleep 20"), bytearray().extend, bytearray().extend, timeout_seconds=0.3)


def test_concurrent_streams_share_one_connection(sshd: Sshd) -> None:
    host = sshd.host()
    heard = [bytearray() for _ in range(6)]
    threads = [
        threading.Thread(target=host.stream, args=(Script(f"echo {n}"), one.extend, one.extend))
        for n, one in enumerate(heard)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    host.close()
    assert [bytes(one) for one in heard] == [f"{n}\n".encode() for n in range(6)]
    assert host.connections == 1
