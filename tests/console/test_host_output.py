"""Output of commands on hosts: a prefix per line, masked secrets, unchanged bytes for one host."""

from __future__ import annotations

import io

from rolling_upgrade.console.host_output import HostOutput


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
