"""Output of runs, of which a failed write ends none, and output of commands on hosts."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

from rolling_upgrade.console.output import HostOutput, Output


def test_output_closed_pipe_raises_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        output = Output(stream)

        output.show(["nobody reads this"])
        output.show(["nor this"])


def test_output_closed_pipe_keeps_the_exit_code() -> None:
    program = (
        "import sys, rolling_upgrade.console.output as o\n"
        "out = o.Output(sys.stdout)\n"
        "for _ in range(2000): out.show(['x' * 80])\n"
        "sys.exit(6)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    complaints = process.stderr.read()
    process.stderr.close()

    assert (process.wait(30), complaints) == (6, b"")


def test_output_full_disk_raises_nothing() -> None:
    with open("/dev/full", "w", buffering=1) as stream:  # noqa: PTH123  # a device, opened as a shell would
        Output(stream).show(["no room"])


def test_output_stream_of_another_encoding_gets_replacements() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")

    Output(stream).show(["v1 → v2"])

    assert raw.getvalue() == b"v1 ? v2\n"


def test_output_closed_stream_raises_nothing() -> None:
    stream = io.StringIO()
    stream.close()

    Output(stream).show(["too late"])


def test_output_of_many_threads_is_not_interleaved() -> None:
    stream = io.StringIO()
    output = Output(stream)
    block = [f"line {number}" for number in range(20)]

    def repeat() -> None:
        for _ in range(20):
            output.show(block)

    threads = [threading.Thread(target=repeat) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert stream.getvalue().splitlines() == block * 160


def test_output_secrets_are_masked() -> None:
    stream = io.StringIO()

    Output(stream, ("hunter22",)).show(["token hunter22"])

    assert stream.getvalue() == "token ••••••\n"


def test_host_output_of_several_hosts_has_the_host_before_each_complete_line() -> None:
    out = io.StringIO()
    output = HostOutput(out, hosts=["web1", "db"], secrets=["hunter2x"])

    for host, piece in (("web1", b"one hun"), ("db", b"two\n"), ("web1", b"ter2x\nend")):
        output.feed(host, piece)
    output.end("web1")

    assert out.getvalue() == "db   | two\nweb1 | one ••••••\nweb1 | end\n"


def test_host_output_of_one_host_into_a_file_is_unchanged_except_for_secrets() -> None:
    bottom = io.BytesIO()
    output = HostOutput(io.TextIOWrapper(bottom, "utf-8"), hosts=["web1"], secrets=["hunter2x"])

    output.feed("web1", b"\xff\x00\x1b[1m\nkey hunter2x\n\xfe")
    output.end("web1")

    assert bottom.getvalue() == b"\xff\x00\x1b[1m\nkey " + "••••••".encode() + b"\n\xfe"
