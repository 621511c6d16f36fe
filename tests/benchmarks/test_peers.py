"""The comparison with Ansible and pyinfra: its figures, its proof of an upgrade, and equal commands in both tools."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment

from benchmarks.peers import commands
from benchmarks.peers.application import State, upstreams
from benchmarks.peers.comparison import Upgrade, ratios, table
from benchmarks.ssh_log import SshCounts

TOOLS = ("this product", "Ansible", "pyinfra")
BACKEND, FRONTEND = commands.SERVICES


def upgrade(tool: str, rtt: int, wall: float, by_hand: float, executions: int = 10) -> Upgrade:
    return Upgrade(tool, rtt, wall, by_hand, SshCounts(1, executions))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_repeated_upgrades_become_one_line_of_medians_and_worst_counts() -> None:
    upgrades = [upgrade("Ansible", 50, wall, 2.0, count) for wall, count in ((7.0, 25), (12.0, 29), (8.0, 25))]
    assert cells(table(upgrades).splitlines()[-1]) == [
        *("50", "Ansible", "8.0", "2.0", "6.00", "5.00 to 10.00", "75%", "1", "29"),
    ]


def test_table_lines_are_sorted_by_distance_and_keep_the_order_of_the_tools() -> None:
    upgrades = [upgrade(tool, rtt, 3.0, 1.0) for rtt in (150, 0, 50) for tool in TOOLS]
    found = [tuple(cells(line)[:2]) for line in table(upgrades).splitlines()[2:]]
    assert found == [(rtt, tool) for rtt in ("0", "50", "150") for tool in TOOLS]


def test_ratios_compare_medians_of_own_share_and_of_wall_time() -> None:
    upgrades = [
        *(upgrade("this product", 50, wall, 4.0) for wall in (6.0, 5.0, 90.0)),
        *(upgrade("Ansible", 50, wall, 2.0) for wall in (10.0, 10.0, 3.0)),
        *(upgrade("pyinfra", 50, wall, 2.0) for wall in (8.0, 7.0, 9.0)),
    ]
    assert cells(ratios(upgrades, *TOOLS).splitlines()[-1]) == ["50", "25%", "75%"]


def test_ratios_distance_that_a_tool_lacks_has_no_line() -> None:
    upgrades = [upgrade(tool, 0, 3.0, 1.0) for tool in TOOLS] + [upgrade("Ansible", 50, 3.0, 1.0)]
    assert [cells(line)[0] for line in ratios(upgrades, *TOOLS).splitlines()[2:]] == ["0"]


BLUE = {"backend": "blue", "frontend": "blue"}
GREEN = {"backend": "green", "frontend": "green"}
V1 = {"backend": "v1", "frontend": "v1"}
V2 = {"backend": "v2", "frontend": "v2"}


def test_state_after_an_upgrade_both_services_run_the_new_version_in_the_other_color() -> None:
    assert State(BLUE, V1).next_version == "v2"
    assert State(GREEN, V2).next_version == "v1"
    assert State(GREEN, V2).fault(State(BLUE, V1), "v2") == ""


@pytest.mark.parametrize(
    ("colors", "versions"),
    [
        (GREEN, V1),
        (GREEN, {**V2, "frontend": "v1"}),
        (GREEN, {**V2, "backend": "status 502"}),
        (BLUE, V2),
        ({**GREEN, "frontend": "blue"}, V2),
        ({**GREEN, "backend": "blue+green"}, V2),
        ({**GREEN, "backend": "stopped"}, V2),
        ({"backend": "green"}, V2),
    ],
)
def test_state_after_anything_else_is_a_fault(colors: dict[str, str], versions: dict[str, str]) -> None:
    assert State(colors, versions).fault(State(BLUE, V1), "v2") != ""


@pytest.mark.parametrize("versions", [{**V1, "frontend": "v2"}, {**V1, "backend": "status 502"}, {"backend": "v3"}])
def test_state_without_one_known_version_is_nothing_to_upgrade_from(versions: dict[str, str]) -> None:
    with pytest.raises(SystemExit):
        _ = State(BLUE, versions).next_version


@pytest.mark.parametrize(("active", "idle"), [("blue", "green"), ("green", "blue")])
def test_upstreams_name_the_color_and_its_ports(active: str, idle: str) -> None:
    text = upstreams(active)
    assert commands.colors(text) == (active, idle)
    assert re.findall(r"127\.0\.0\.1:(\d+);", text) == [str(each["ports"][active]) for each in commands.SERVICES]


def test_colors_file_without_a_color_is_refused() -> None:
    with pytest.raises(ValueError, match="names no color"):
        commands.colors("upstream peers-backend {}")


def playbook_command(task: str, module: str, **variables: Any) -> str:
    """Render the command of a task of the playbook, as Ansible does."""
    (play,) = yaml.safe_load((commands.DIRECTORY / "playbook.yaml").read_text())
    (found,) = [each for each in play["tasks"] if each["name"] == task]
    environment = Environment(autoescape=False)  # noqa: S701 - not HTML
    values = {name: environment.from_string(text).render(variables) for name, text in found.get("vars", {}).items()}
    return environment.from_string(found[f"ansible.builtin.{module}"]).render(variables | values)


@pytest.mark.parametrize("service", commands.SERVICES, ids=lambda service: str(service["name"]))
def test_playbook_has_the_commands_of_the_pyinfra_script(service: dict[str, Any]) -> None:
    values = {"item": service, "color": "green", "version": "v2"}
    for task, module, expected in (
        ("Pull the images", "command", commands.pull(service, "v2")),
        ("Start the new containers", "command", commands.start(service, "green", "v2")),
        ("Wait until each new container is healthy", "shell", commands.wait_until_healthy(service, "green")),
    ):
        assert shlex.split(playbook_command(task, module, **values)) == shlex.split(expected)


@pytest.mark.parametrize("tool", ["ansible", "pyinfra"])
def test_requirements_pin_every_package_and_name_no_index(tool: str) -> None:
    lines = (commands.DIRECTORY / f"{tool}.txt").read_text().splitlines()
    assert len(lines) > 5
    for line in lines:
        assert re.fullmatch(r'#.*|[\w.-]+==[\w.]+(; python_version (<|>=) "3\.\d+")?', line), line


def test_commands_pass_shellcheck() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    for text in (commands.wait_until_healthy(BACKEND, "blue"), commands.wait_until_switched(FRONTEND, "v2")):
        done = subprocess.run([shellcheck, "--shell=sh", "-"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@contextmanager
def server(statuses: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Serve these statuses, and the last one from then on. Yield the port, and the list of those that are left."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield running.server_port, statuses
        finally:
            running.shutdown()
            thread.join()


def test_wait_until_healthy_needs_two_good_answers_in_a_row() -> None:
    with server([503, 200, 503, 200, 200, 418]) as (port, left):
        service = {**BACKEND, "ports": {"blue": port}}
        done = subprocess.run(["sh", "-c", commands.wait_until_healthy(service, "blue")], check=False)
        assert (done.returncode, left) == (0, [418])
