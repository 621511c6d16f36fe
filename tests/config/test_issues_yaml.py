"""Errors in `hosts.yaml` and `deploy/services.yaml`: one error at its location."""

from __future__ import annotations

import pytest

from tests.support.project import Project

ENV_FILE = "deploy/demo.env"
SERVICES = "deploy/services.yaml"

WRONG_HOSTS = [
    ("  demo:\n", "  demo:\n    usr: ark\n", "environments.demo.usr", "did you mean user"),
    ("  demo:\n", "  demo:\n    user: 'a;b'\n", "environments.demo.user", "login name"),
    ("  demo:\n", "  demo:\n    port: ssh\n", "environments.demo.port", "a port"),
    ("  demo:\n", "  demo:\n    jump: '-oProxyCommand=x'\n", "environments.demo.jump", "host"),
    (
        "  demo:\n",
        "  demo:\n    rollout: {batchs: 1}\n",
        "environments.demo.rollout.batchs",
        "did you mean batch",
    ),
    ("  demo:\n", "  demo:\n    rollout: {batch: 0%}\n", "environments.demo.rollout.batch", "percentage"),
    ("  demo:\n", "  demo:\n    rollout: fast\n", "environments.demo.rollout", "a mapping"),
    (
        "  demo:\n",
        "  demo:\n    rollout: {bake_seconds: long}\n",
        "environments.demo.rollout.bake_seconds",
        "a duration",
    ),
    ("  demo:\n", "  demo:\n    rollout: {parallel: 0}\n", "environments.demo.rollout.parallel", "1 to 256"),
    (
        "  demo:\n",
        "  demo:\n    rollout: {confirm: perhaps}\n",
        "environments.demo.rollout.confirm",
        "true or",
    ),
    ("  demo:\n", "  demo:\n    identity_file: nokey\n", "environments.demo.identity_file", "private key"),
    (
        "address: 192.0.2.12",
        "adress: 192.0.2.12",
        "environments.demo.hosts.web2.adress",
        "did you mean address",
    ),
    ("192.0.2.12", "'a b'", "environments.demo.hosts.web2.address", "an IP address"),
    ("192.0.2.12", "-oProxyCommand=x", "environments.demo.hosts.web2.address", "an IP address"),
    ("192.0.2.12", "192.0.2.11", "environments.demo.hosts.web2", "a different address or port"),
    ("192.0.2.12, roles: [web]", "192.0.2.12, roles: web", "environments.demo.hosts.web2.roles", "a list"),
    (
        "192.0.2.12, roles: [web]",
        "192.0.2.12, roles: ['a b']",
        "environments.demo.hosts.web2.roles[0]",
        "a letter",
    ),
    ("groups: [canary]", "groups: [web2]", "environments.demo.hosts.web1", "a different name"),
    ("      web2:", "      'web 2':", "environments.demo.hosts.web 2", "a letter"),
    (
        "192.0.2.12",
        "192.0.2.12, env: {APP_NAME: x}",
        "environments.demo.hosts.web2.env.APP_NAME",
        "all hosts",
    ),
    (
        "192.0.2.12",
        "192.0.2.12, env: {BACKND_PORT: 1}",
        "environments.demo.hosts.web2.env.BACKND_PORT",
        "did you mean BACKEND_PORT",
    ),
    (
        "192.0.2.12",
        "192.0.2.12, env: {BACKEND_PORT: x}",
        "environments.demo.hosts.web2.env.BACKEND_PORT",
        "a port",
    ),
    (
        "192.0.2.12",
        "192.0.2.12, env: {LOG_LEVEL: [a]}",
        "environments.demo.hosts.web2.env.LOG_LEVEL",
        "text",
    ),
    ("environments:\n", "enviroments: {}\nenvironments:\n", "enviroments", "did you mean environments"),
    ("environments:\n", "environments:\n  'a b': {hosts: {x: }}\n", "environments.a b", "a letter"),
    ("environments:\n", "environments:\n  empty: {}\n", "environments.empty.hosts", "at least one host"),
    ("      web2:", "      web1:", "line 5", "each key once"),
    ("      web2:", "\tweb2:", "line 5", "spaces"),
    ("      web2:", "      [a, b]:", "line 5", "plain text"),
    ("roles: [web]}\n", "roles: [web}\n", "line 5", "valid YAML"),
]


@pytest.mark.parametrize(("old", "new", "path", "expected"), WRONG_HOSTS)
def test_load_invalid_inventory_is_one_error_at_its_location(
    project: Project, old: str, new: str, path: str, expected: str
) -> None:
    project.edit("hosts.yaml", old, new)

    (issue,) = project.issues()

    assert (issue.file, issue.path or issue.place) == ("hosts.yaml", path)
    assert expected in str(issue)


def test_load_duplicate_address_ignores_letter_case(project: Project) -> None:
    project.edit("hosts.yaml", "192.0.2.11", "WEB.example.org")
    project.edit("hosts.yaml", "192.0.2.12", "web.example.org")

    assert project.places() == [("hosts.yaml", "environments.demo.hosts.web2")]


def test_load_same_address_with_another_port_is_accepted(project: Project) -> None:
    project.edit("hosts.yaml", "192.0.2.12", "192.0.2.11, port: 2222")

    assert len(project.load().targets) == 2


WRONG_SERVICES = [
    ("    alias: backend ", "    allias: backend ", "services[0].allias", "did you mean alias"),
    ("passes: 3, interval_seconds: 1, deadline_seconds: 120", "pases: 3", "services[0].gate.pases", "passes"),
    ("deadline_seconds: 120", "deadline_seconds: 2h", "services[0].gate.deadline_seconds", "a duration"),
    ("name: backend", "name: Back_End", "services[0].name", "a lower-case letter"),
    ("    image: BACKEND_IMAGE\n", "", "services[0].image", "is required"),
    ("image: BACKEND_IMAGE", "image: 'Repo:tag'", "services[0].image", "env key"),
    ("container_port: 8080", "container_port: 80800", "services[0].container_port", "a port"),
    ("default_port: 8080", "default_port: 50000", "services[0].default_port", "candidates"),
    ("health: /api/health", "health: api", "services[0].health", "a path"),
    ("prefix: /ws,", "prefix: '/ws; }',", "services[0].routes[1].prefix", "a path"),
    ("prefix: /ws,", "prefix: /api/,", "services[0].routes[1].prefix", "a unique value"),
    ("prefix: /}", "prefix: /ws}", "services[1].routes[0].prefix", "a unique value"),
    ("stream: true}   #", "strem: true}   #", "services[0].routes[0].strem", "did you mean stream"),
    ("target: /app/uploads", "target: /app/data", "services[0].mounts[1].target", "a unique value"),
    ("target: /app/uploads", "target: 'app:rw'", "services[0].mounts[1].target", "absolute path"),
    ("parent: true", "parent: 7", "services[0].mounts[0].parent", "true or false"),
    ("    alias: frontend", "    start: later", "services[1].start", "together or after_previous"),
    ("name: frontend", "name: backend", "services[1].name", "a unique value"),
    ("alias: frontend", "alias: backend", "services[1].alias", "a unique value"),
    ("{service: frontend, path", "{service: fronted, path", "full_chain.service", "one of backend, frontend"),
    ("path: /api/health}", "path: health}", "full_chain.path", "a path"),
    ("services:\n", "release: {service: db, command: x}\nservices:\n", "release.service", "one of backend, frontend"),
    ("services:\n", "release: {service: backend}\nservices:\n", "release.command", "is required"),
    ("services:\n", "release: {command: []}\nservices:\n", "release.command", "a command"),
    ("      - REDIS_URL", "      - 'REDIS URL'", "services[0].env[19]", "env key"),
    ("services:\n", "services: []\nservices_:\n", "services", "at least one"),
    ("services:\n", "Services:\n", "services", "is required"),
    ("    alias: backend ", "    alias: backend\n    alias: b ", "line 25", "each key once"),
    ("    alias: backend ", "\talias: backend ", "line 24", "spaces"),
]


@pytest.mark.parametrize(("old", "new", "path", "expected"), WRONG_SERVICES)
def test_load_invalid_services_are_an_error_at_their_location(
    project: Project, old: str, new: str, path: str, expected: str
) -> None:
    project.edit(SERVICES, old, new)

    issues = project.issues()

    assert {issue.file for issue in issues} == {SERVICES}
    assert any((issue.path or issue.place) == path and expected in str(issue) for issue in issues)


def test_load_removed_invalid_service_causes_no_further_errors(project: Project) -> None:
    project.edit(SERVICES, "name: frontend\n", "name: Front\n")

    assert project.places() == [(SERVICES, "services[1].name")]


@pytest.mark.parametrize("content", ["", "just text", "- a\n- b", "a: b\n---\nc: d", "[" * 5000, "a: \x07"])
def test_load_inventory_of_the_wrong_structure_is_an_error(project: Project, content: str) -> None:
    project.write("hosts.yaml", content)

    assert {file for file, _ in project.places()} == {"hosts.yaml"}
