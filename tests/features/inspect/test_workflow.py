"""`inv inspect` on two hosts: the page with its parts and its warnings, and its JSON."""

from __future__ import annotations

import json

import pytest

from rolling_upgrade.engine import observation
from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.inspect.workflow import Inspection, inspect, inspect_json
from tests.engine.test_observation import APP, row, text
from tests.support.builders import environment
from tests.support.local_fleet import HELD, Machines
from tests.support.project import ENV, Project
from tests.support.shell import Programs

#: The backend runs as blue and logs the secret; the frontend has no container.
PODMAN = f"""\
case "$1 $2 $*" in
"ps "*) echo 7 ;;
"container exists "*) [ "$3" = memoryark-backend-blue ] ;;
"container inspect "*" 7") cat "$here/row" ;;
"logs "*) echo "2026-11-24 key {ENV["JWT_SECRET_KEY"]}" ;;
"top "*) echo "1 root 0.0 1h server" ;;
"--version "*) echo "podman version 5.4.2" ;;
*) exit 1 ;;
esac"""


@pytest.fixture
def hosts(machines: Machines, programs: Programs) -> Machines:
    """Two hosts that run the backend; Nginx listens on every port but the frontend's."""
    for name in ("systemctl", "loginctl", "nginx"):
        programs.add(name)
    (programs.directory.parent / "row").write_text(
        f"{row(name='memoryark-backend-blue', app='memoryark', color='blue')}\n"
    )
    programs.add("podman", PODMAN)
    programs.add(
        "ss", 'case "$1" in -Hltn) for port in 8080 80 443 18080; do echo "L 0 0 127.0.0.1:$port *"; done ;; esac'
    )
    programs.add("curl", 'case "$*" in *:7001*) printf "502\\t0.01\\t" ;; *) printf "200\\t0.01\\t" ;; esac')
    for host in ("web1", "web2"):
        machines.prepare(host)
    return machines


def block(output: str, title: str) -> list[str]:
    """Return the lines of the first block with this title."""
    _, _, rest = output.partition(f"--- {title}\n")
    return [line.strip() for line in rest.partition("---")[0].splitlines()]


def test_inspect_shows_containers_ports_problems_and_logs_without_secrets(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect("demo", root=project.root, hosts=("web1",)) is ExitCode.DONE

    output = capsys.readouterr().out
    assert output.startswith("web1 (192.0.2.11)  ")
    assert output.partition("\n")[0].endswith("  podman 5.4.2")
    assert "  ! frontend: no blue container, though blue is the live color\n" in output
    containers = [line.split()[:4] for line in block(output, "containers")]
    assert ["backend", "blue", "(active)", "running"] in containers
    assert ["frontend", "blue", "(active)", "none"] in containers
    unexpected = [line.split()[:2] for line in block(output, "ports") if line.endswith("<- unexpected")]
    assert ["7001", "frontend"] in unexpected
    assert block(output, "last log lines") == ["memoryark-backend-blue", "2026-11-24 key ••••••"]
    assert block(output, "lock") == ["free", ""]


def test_inspect_shows_the_lock_of_a_run_and_changes_nothing(
    project: Project, hosts: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    held = hosts.home("web2") / "lock/held"
    held.write_text(HELD)

    assert inspect("demo", root=project.root) is ExitCode.DONE

    assert "ben@desk (deploy v3), " in capsys.readouterr().out
    assert held.read_text() == HELD
    assert {call[1] for call in programs.calls("podman")} <= {
        "ps", "container", "images", "logs", "stats", "top", "volume", "--version",
    }  # fmt: skip
    assert {call[2] for call in programs.calls("podman") if call[1] == "volume"} <= {"ls", "inspect"}


def test_inspect_json_has_every_host_and_no_token_of_a_lock(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    (hosts.home("web2") / "lock/held").write_text(HELD)

    assert inspect("demo", root=project.root, service=("backend",), json=True) is ExitCode.DONE

    output = capsys.readouterr().out
    first, second = json.loads(output)["hosts"]
    assert (first["host"], second["host"], first["lock"]) == ("web1", "web2", None)
    assert (second["lock"]["owner"], "token" in second["lock"]) == ("ben", False)
    assert first["active"] == {"backend": "blue"}
    assert [container["service"] for container in first["containers"]] == ["backend"]
    assert ENV["JWT_SECRET_KEY"] not in output


def test_inspect_with_an_unreachable_host_shows_the_others_and_fails(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts.unreachable.add("web1")

    assert inspect("demo", root=project.root) is ExitCode.FAILED

    output = capsys.readouterr().out
    assert output.startswith("web2 (192.0.2.12)  ")
    assert output.splitlines()[-1] == "web1  UNREACHABLE: cannot reach 192.0.2.1. Next: check the network"


def test_inspect_with_an_unknown_service_contacts_no_host(project: Project, machines: Machines) -> None:
    machines.unreachable |= {"web1", "web2"}

    with pytest.raises(ConfigError, match="command line"):
        inspect("demo", root=project.root, service=("database",))


def test_inspect_json_ports_use_the_same_words_for_expected_and_found() -> None:
    target = environment("web1")
    state = observation.parse(APP.name, "web1", text(containers=row()))

    (page,) = inspect_json(target, {"web1": Inspection(state, {}, "")}, {}, ["backend"])["hosts"]

    assert {port["expected"] for port in page["ports"]} <= {"listening", "free"}
    assert {port["found"] for port in page["ports"]} == {"free"}
