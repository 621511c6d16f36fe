"""`inv exec` and `inv shell`: statuses, output by host, and errors before any connection."""

from __future__ import annotations

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.exec.shell import NO_CONTAINER_STATUS
from rolling_upgrade.features.exec.workflow import execute, shell
from tests.support.local_fleet import Machines
from tests.support.project import Project
from tests.support.shell import Programs

#: `podman exec --env MARK NAME COMMAND…` runs the command here.
PODMAN = 'case $1 in container) echo true ;; exec) shift 4; exec "$@" ;; esac'


def run(project: Project, *argv: str, hosts: tuple[str, ...] = (), service: str = "") -> int:
    return execute("demo", argv, root=project.root, hosts=hosts, service=service)


def test_execute_on_a_single_host_returns_output_and_status(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", PODMAN)

    assert run(project, "sh", "-c", "echo out; echo err >&2; exit 3", hosts=("web1",)) == 3

    assert capsys.readouterr() == ("out\n", "err\n")
    assert programs.calls("podman")[-1][4] == "memoryark-backend-blue"


def test_execute_on_several_hosts_prefixes_output_and_fails_if_one_fails(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", PODMAN)

    assert run(project, "sh", "-c", 'echo "on $HOST"; [ "$HOST" = web1 ]', service="frontend") is ExitCode.FAILED

    captured = capsys.readouterr()
    assert sorted(captured.out.splitlines()) == ["web1 | on web1", "web2 | on web2"]
    assert captured.err == "web2 | exited with 1\n"


def test_execute_stopped_container_is_reported(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", "echo false")

    assert run(project, "true", hosts=("web1",)) == NO_CONTAINER_STATUS

    assert "memoryark-backend-blue" in capsys.readouterr().err


def test_execute_without_command_or_with_unknown_service_is_refused(project: Project, machines: Machines) -> None:
    machines.unreachable |= {"web1", "web2"}

    with pytest.raises(ConfigError, match="command line"):
        run(project)
    with pytest.raises(ConfigError, match="command line") as caught:
        run(project, "true", service="database")
    assert "backend, frontend" in str(caught.value)


def test_shell_requires_one_host_and_a_terminal(project: Project, machines: Machines) -> None:
    with pytest.raises(ConfigError, match="command line"):
        shell("demo", root=project.root)
    with pytest.raises(ConfigError, match="terminal"):
        shell("demo", root=project.root, hosts=("web1",))
