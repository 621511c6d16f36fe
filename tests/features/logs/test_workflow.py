"""Lines of logs as they are shown: prefix, time, colors, filter, and nothing that a terminal would obey."""

from __future__ import annotations

import io
import json
import re

from rolling_upgrade.console.host_output import HostOutput
from rolling_upgrade.features.logs.shell import LogLine
from rolling_upgrade.features.logs.workflow import LogWriter
from tests.support.builders import Terminal

LINE = LogLine("web1", "backend", "blue", "it runs", 1795417699.25)


def written(*lines: LogLine, stream: io.StringIO | None = None, json: bool = False, grep: str = "") -> tuple[str, str]:
    out, aside = stream or io.StringIO(), io.StringIO()
    pattern = re.compile(grep) if grep else None
    writer = LogWriter(
        out,
        aside,
        hosts=["web1"],
        sources=["backend"],
        secrets=["hunter2x"],
        grep=pattern,
        json=json,
        environ={"TERM": "xterm"},
    )
    for line in lines:
        writer.line(line)
    return out.getvalue(), aside.getvalue()


def test_log_line_has_host_service_color_and_time() -> None:
    assert written(LINE) == ("web1 backend blue  | 2026-11-23T07:08:19.250Z it runs\n", "")


def test_log_line_is_masked_and_stays_one_line() -> None:
    said = LogLine("web1", "backend", "blue", "\x1b[31mkey hunter2x\r\x1b]0;title\x07 end")

    assert written(said)[0] == "web1 backend blue  | key •••••• end\n"


def test_log_line_without_a_match_is_dropped_and_notes_stay() -> None:
    note = LogLine("web1", "backend", "", "green serves now", note=True)

    assert written(LINE, note, grep="^no") == ("", "web1 backend       | -- green serves now\n")


def test_log_grep_cannot_match_a_secret() -> None:
    assert written(LogLine("web1", "backend", "blue", "key hunter2x"), grep="hunter")[0] == ""


def test_log_line_on_a_terminal_has_a_colored_host() -> None:
    assert written(LINE, stream=Terminal())[0].startswith("\x1b[36mweb1 backend blue  |\x1b[0m ")


def test_log_json_is_an_object_per_line() -> None:
    assert json.loads(written(LINE, json=True)[0]) == {
        "host": "web1",
        "source": "backend",
        "label": "blue",
        "time": "2026-11-23T07:08:19.250Z",
        "text": "it runs",
    }


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
