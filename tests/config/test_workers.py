"""Workers, commands and readiness checks in services.yaml."""

from __future__ import annotations

import pytest

from rolling_upgrade.engine.model import Color, Handoff, Service
from rolling_upgrade.errors import ConfigError
from tests.support.project import Project


def worker(project: Project, text: str = "") -> Service:
    """Declare a worker with these further lines, and return it as resolved."""
    declare(project, text)
    return project.load(strict=True).targets[0].application.service("worker")


def declare(project: Project, text: str) -> None:
    services = (project.root / "deploy/services.yaml").read_text()
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    project.write("deploy/services.yaml", f"{services}\n  - name: worker\n    image: repo/worker:v7\n{lines}")


def issues(project: Project, text: str) -> list[tuple[str, str, str]]:
    declare(project, text)
    with pytest.raises(ConfigError) as caught:
        project.load()
    return [(issue.path, issue.found, issue.expected) for issue in caught.value.issues]


def test_service_without_container_port_is_a_worker_without_ports_and_alias(project: Project) -> None:
    found = worker(project, "command: celery -A shop worker")

    assert (found.is_worker, found.container_port, found.service_port, found.alias) == (True, 0, 0, "")
    assert (found.command, found.entrypoint, found.handoff) == (
        ("celery", "-A", "shop", "worker"),
        None,
        Handoff.OVERLAP,
    )
    assert (found.gate.ready, found.gate.running_seconds) == ((), 10)
    with pytest.raises(ValueError, match="the worker worker has no port"):
        found.port(Color.BLUE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("""'sh -c "echo $HOME && run"'""", ("sh", "-c", "echo $HOME && run")),
        ("[sh, -c, 'a && b', '']", ("sh", "-c", "a && b", "")),
        ("run a\\ b 'c d'", ("run", "a b", "c d")),
        ("[run, 8080, true]", ("run", "8080", "true")),
    ],
)
def test_command_text_is_split_like_a_shell_does_and_a_list_is_taken_as_it_is(
    project: Project, text: str, words: tuple[str, ...]
) -> None:
    assert worker(project, f"command: {text}").command == words


@pytest.mark.parametrize("text", ["''", "[]", "['', a]", "migrate && serve", "a | b", "run > /tmp/log", "'\"open'"])
def test_command_that_needs_a_shell_or_is_empty_is_refused(project: Project, text: str) -> None:
    [(place, _, expected)] = issues(project, f"command: {text}")

    assert place.endswith("services[2].command")
    assert "for a shell [sh, -c, TEXT]" in expected


def test_empty_entrypoint_makes_the_command_the_program(project: Project) -> None:
    assert worker(project, "entrypoint: []\ncommand: run").entrypoint == ()


def test_empty_entrypoint_without_a_command_is_refused(project: Project) -> None:
    assert issues(project, "entrypoint: ''")[0][0].endswith("services[2].entrypoint")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("port: 9000", "port"),
        ("default_port: 9000", "default_port"),
        ("routes: [{prefix: /w/}]", "routes"),
        ("health: /up\nroutes: [/w/]", "health, routes"),
    ],
)
def test_worker_with_fields_that_need_a_port_is_refused_once(project: Project, text: str, fields: str) -> None:
    [(place, found, expected)] = issues(project, text)

    assert (place, found) == ("services[2].container_port", "")
    assert expected.startswith(f"the port of the process, because {fields} cannot be set for a worker")


def test_full_chain_on_a_worker_is_refused(project: Project) -> None:
    project.edit("deploy/services.yaml", "full_chain: {service: frontend", "full_chain: {service: worker")

    assert ("full_chain.service", "'worker', a worker", "a service with container_port") in issues(project, "")


def test_ready_command_and_handoff(project: Project) -> None:
    found = worker(project, "ready: {command: [test, -e, /ready], timeout_seconds: 3}\nhandoff: exclusive")

    assert (found.gate.ready, found.gate.ready_timeout_seconds) == (("test", "-e", "/ready"), 3)
    assert found.is_exclusive


def test_gate_of_a_worker_leaves_time_to_run(project: Project) -> None:
    assert worker(project, "gate: {running_seconds: 5m}").gate.deadline_seconds == 330
