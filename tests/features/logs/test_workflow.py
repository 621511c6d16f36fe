"""`inv logs` on two hosts, and the lines that it writes: prefix, time, colors, filter, masking."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.logs.shell import LogLine
from rolling_upgrade.features.logs.workflow import LogWriter, logs
from tests.support.builders import Terminal
from tests.support.local_fleet import Machines
from tests.support.project import Project
from tests.support.shell import Programs

LINE = LogLine("web1", "backend", "blue", "it runs", 1795417699.25)
#: Each host logs one line; the line of web1 is the later one.
PODMAN = """\
case "$1 $HOST" in
"container "*) ;;
"logs web1") echo "2026-11-23T07:00:02.000000000Z second" ;;
"logs web2") echo "2026-11-23T07:00:01.000000000Z first" ;;
esac"""


def written(*lines: LogLine, stream: io.StringIO | None = None, json: bool = False, grep: str = "") -> tuple[str, str]:
    out, notes = stream or io.StringIO(), io.StringIO()
    pattern = re.compile(grep) if grep else None
    writer = LogWriter(
        out,
        notes,
        hosts=["web1"],
        sources=["backend"],
        secrets=["hunter2x"],
        grep=pattern,
        json=json,
        environ={"TERM": "xterm"},
    )
    for line in lines:
        writer.line(line)
    return out.getvalue(), notes.getvalue()


def test_log_line_has_host_service_color_and_time() -> None:
    assert written(LINE) == ("web1 backend blue  | 2026-11-23T07:08:19.250Z it runs\n", "")


def test_log_line_is_masked_and_stays_one_line() -> None:
    line = LogLine("web1", "backend", "blue", "\x1b[31mkey hunter2x\r\x1b]0;title\x07 end")

    assert written(line)[0] == "web1 backend blue  | key •••••• end\n"


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


def test_logs_of_all_hosts_are_merged_by_time(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", PODMAN)

    assert logs("demo", root=project.root, service=("backend",), lines="5") is ExitCode.DONE

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[-1]) for row in rows] == [("web2", "first"), ("web1", "second")]


def test_logs_with_an_unreachable_host_show_the_others_and_fail(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", PODMAN)
    machines.unreachable.add("web2")

    assert logs("demo", root=project.root, service=("backend",)) is ExitCode.FAILED

    captured = capsys.readouterr()
    assert captured.out.endswith("second\n")
    assert "web2" in captured.err


def test_logs_of_a_missing_container_fail(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", "exit 1")

    assert logs("demo", root=project.root, service=("frontend",), hosts=("web1",)) is ExitCode.FAILED

    assert "there is no container memoryark-frontend-blue" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        {"service": ("database",)},
        {"since": "yesterday"},
        {"lines": "many"},
        {"lines": "-1"},
        {"color": "red"},
        {"color": "blue", "all_colors": True},
        {"grep": "("},
    ],
)
def test_logs_with_an_invalid_option_contact_no_host(
    project: Project, machines: Machines, options: dict[str, Any]
) -> None:
    machines.unreachable |= {"web1", "web2"}

    with pytest.raises(ConfigError, match="command line"):
        logs("demo", root=project.root, **options)
