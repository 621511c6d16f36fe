"""`inv exec` and `inv shell`: statuses, output by host, and the mistakes that no host hears of."""

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


def test_single_host_gives_output_and_status_of_the_command(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", PODMAN)

    assert run(project, "sh", "-c", "echo out; echo err >&2; exit 3", hosts=("web1",)) == 3

    assert capsys.readouterr() == ("out\n", "err\n")
    assert programs.calls("podman")[-1][4] == "memoryark-backend-blue"


def test_several_hosts_prefix_their_output_and_one_failure_fails_the_command(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", PODMAN)

    assert run(project, "sh", "-c", 'echo "on $HOST"; [ "$HOST" = web1 ]', service="frontend") is ExitCode.FAILED

    captured = capsys.readouterr()
    assert sorted(captured.out.splitlines()) == ["web1 | on web1", "web2 | on web2"]
    assert captured.err == "web2 | exited with 1\n"


def test_container_that_does_not_run_is_reported(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", "echo false")

    assert run(project, "true", hosts=("web1",)) == NO_CONTAINER_STATUS

    assert "memoryark-backend-blue" in capsys.readouterr().err


def test_missing_command_and_unknown_service_are_refused(project: Project, machines: Machines) -> None:
    machines.unreachable |= {"web1", "web2"}

    with pytest.raises(ConfigError, match="command line"):
        run(project)
    with pytest.raises(ConfigError, match="command line") as caught:
        run(project, "true", service="database")
    assert "backend, frontend" in str(caught.value)


def test_shell_needs_one_host_and_a_terminal(project: Project, machines: Machines) -> None:
    with pytest.raises(ConfigError, match="command line"):
        shell("demo", root=project.root)
    with pytest.raises(ConfigError, match="terminal"):
        shell("demo", root=project.root, hosts=("web1",))
