"""`inv logs` on two hosts: one order by time, sources that cannot be read, and options that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.logs.workflow import logs
from tests.support.local_fleet import Machines
from tests.support.project import Project
from tests.support.shell import Programs

#: Each host has a line of its own: web1's is the later one.
PODMAN = """\
case "$1 $HOST" in
"container "*) ;;
"logs web1") echo "2026-11-23T07:00:02.000000000Z second" ;;
"logs web2") echo "2026-11-23T07:00:01.000000000Z first" ;;
esac"""


def test_lines_of_all_hosts_are_merged_by_time(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", PODMAN)

    assert logs("demo", root=project.root, services=("backend",), lines="5") is ExitCode.DONE

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[-1]) for row in rows] == [("web2", "first"), ("web1", "second")]


def test_unreachable_host_fails_the_command_and_hides_no_other(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", PODMAN)
    machines.unreachable.add("web2")

    assert logs("demo", root=project.root, services=("backend",)) is ExitCode.FAILED

    captured = capsys.readouterr()
    assert captured.out.endswith("second\n")
    assert "web2" in captured.err


def test_missing_container_fails_the_command(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", "exit 1")

    assert logs("demo", root=project.root, services=("frontend",), hosts=("web1",)) is ExitCode.FAILED

    assert "there is no container memoryark-frontend-blue" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        {"services": ("database",)},
        {"since": "yesterday"},
        {"lines": "many"},
        {"color": "red"},
        {"color": "blue", "all_colors": True},
        {"grep": "("},
    ],
)
def test_mistakes_are_refused_before_a_host_is_contacted(
    project: Project, machines: Machines, options: dict[str, Any]
) -> None:
    machines.unreachable |= {"web1", "web2"}

    with pytest.raises(ConfigError, match="command line"):
        logs("demo", root=project.root, **options)
