"""`inv exec`, `inv run` and `inv shell`: statuses, output by host, and errors before any connection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.engine.history import dump_definition
from rolling_upgrade.engine.podman import spec_hash
from rolling_upgrade.errors import ConfigError, ExitCode, PreflightError
from rolling_upgrade.features.exec.shell import NO_CONTAINER_STATUS
from rolling_upgrade.features.exec.workflow import execute, shell
from rolling_upgrade.features.exec.workflow import run as run_once
from tests.support.history_line import history_line
from tests.support.local_fleet import Machines
from tests.support.project import Project
from tests.support.shell import Programs
from tests.support.simulated_fleet import resolved
from tests.support.states import recorded

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


#: `podman run … IMAGE COMMAND…` runs the command here.
RUN = 'case $1 in run) until [ "${1#*@sha256:}" != "$1" ]; do shift; done; shift; exec "$@" ;; esac'


def released(project: Project, machines: Machines, host: str, **changes: object) -> None:
    """Leave on the host what a deploy of the application leaves."""
    app = resolved(project.load().targets[0].application)
    home = machines.prepare(host)
    release = replace(recorded(app), **changes)  # type: ignore[arg-type]
    (home / "releases.jsonl").write_text(history_line(release) + "\n")
    (home / "config" / "r1.json").write_text(dump_definition(app))
    for service in app.services:
        directory = home / "config" / f"{service.name}-{spec_hash(app.name, service)}"
        directory.mkdir()
        (directory / "env").touch()


def once(project: Project, *argv: str, **options: object) -> int:
    return run_once("demo", argv, root=project.root, **options)  # type: ignore[arg-type]


def test_run_uses_the_release_of_the_first_host_with_the_service(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", RUN)
    released(project, machines, "web1")

    assert once(project, "sh", "-c", "echo $HOST; exit 5", service="frontend", entrypoint="") == 5

    assert capsys.readouterr().out == "web1\n"
    (words,) = (call for call in programs.calls("podman") if call[1] == "run")
    assert words[words.index("--entrypoint") + 1] == ""
    assert any("frontend@sha256:" in word for word in words)
    assert "rolling.release=r1" in words


def test_run_after_a_rollback_uses_the_release_that_it_returned_to(
    project: Project, machines: Machines, programs: Programs
) -> None:
    programs.add("podman", RUN)
    released(project, machines, "web1", id="r9", action="rollback", target="r1")

    assert once(project, "true") == 0


def test_run_before_the_first_deploy_is_refused(project: Project, machines: Machines, programs: Programs) -> None:
    programs.add("podman")
    machines.prepare("web1")

    with pytest.raises(PreflightError, match="no release was deployed yet"):
        once(project, "true")
    assert [call for call in programs.calls("podman") if call[1] == "run"] == []


def test_run_damaged_definition_is_refused(project: Project, machines: Machines, programs: Programs) -> None:
    programs.add("podman")
    released(project, machines, "web1")
    (machines.home("web1") / "config" / "r1.json").write_text("{}")

    with pytest.raises(PreflightError, match="definition of release r1 cannot be read"):
        once(project, "true")


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        ((), {}),
        (("true",), {"hosts": ("web1", "web2")}),
        (("true",), {"service": "database"}),
        (("true",), {"entrypoint": "it's"}),
    ],
)
def test_run_with_wrong_options_is_refused_before_any_connection(
    argv: tuple[str, ...], options: dict[str, object], project: Project, machines: Machines
) -> None:
    machines.unreachable |= {"web1", "web2"}

    with pytest.raises(ConfigError, match="command line"):
        once(project, *argv, **options)
