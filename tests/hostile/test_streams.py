"""Streamed output of hosts: endless lines, endless labels, and secrets that span two chunks."""

from __future__ import annotations

import io
from threading import Event

import pytest

from rolling_upgrade.console.output import HostOutput
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.untrusted import LINE_BYTES
from rolling_upgrade.features.logs.follow import LogSource, _Follower
from rolling_upgrade.features.logs.shell import LogLine, LogQuery
from tests.support.sample import application
from tests.support.scripted_host import Scene, ScriptedHost

SECRET = "correct horse 'battery' staple"


def output(out: io.TextIOWrapper, *hosts: str) -> HostOutput:
    return HostOutput(out, hosts=hosts, secrets=(SECRET,))


@pytest.mark.parametrize("hosts", [("web1",), ("web1", "web2")])
def test_host_output_writes_an_endless_line_in_parts_with_secrets_masked(
    hosts: tuple[str, ...],
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    stream, buffered = output(out, *hosts), 0
    data = (SECRET.encode() + b"x" * 7) * (5 * LINE_BYTES // (len(SECRET) + 7))
    for at in range(0, len(data), 65_521):
        stream.feed("web1", data[at : at + 65_521])
        buffered = max(buffered, len(stream._partial["web1"]))
    stream.end("web1")
    out.flush()

    text = out.buffer.getvalue().decode()
    assert buffered <= LINE_BYTES + 2 * 65_521
    assert "battery" not in text
    assert text.count("x" * 7) >= data.count(b"x" * 7) - 20


def test_host_output_endless_line_to_a_pipe_is_unchanged() -> None:
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    stream, data = output(out, "web1"), bytes(range(256)).replace(b"\n", b"") * 20_000
    for at in range(0, len(data), 65_536):
        stream.feed("web1", data[at : at + 65_536])
    stream.end("web1")

    assert out.buffer.getvalue() == data


def test_follow_endless_line_is_printed_in_parts_and_not_kept() -> None:
    lines: list[LogLine] = []
    source = LogSource(ScriptedHost("web1", {}, [], Scene()), application(), "backend")
    follower = _Follower(source, LogQuery(), lines.append, Event())
    for _ in range(100):
        follower._take(b"x" * 65_536)
        assert len(follower._buffer) <= LINE_BYTES + 65_536

    assert len(lines) >= 5


def test_follow_labels_without_number_are_not_kept() -> None:
    source = LogSource(ScriptedHost("web1", {}, [], Scene()), application(), "backend")
    follower = _Follower(source, LogQuery(), lambda _: None, Event())
    for number in range(1000):
        follower._take(f"backend\tlabel{number}\t2026-11-23T03:00:00.123456789Z x\n".encode())
        follower._take_errors(b"y" * 10_000)

    assert len(follower._latest) <= 16
    assert len(follower._errors) <= 65_536


def test_output_tail_is_a_few_short_lines() -> None:
    tail = Answer(1, "x" * 2_000_000, "\n".join("y" * 5000 for _ in range(300))).output_tail

    assert len(tail) <= 31_000
    assert len(tail.splitlines()) <= 30
