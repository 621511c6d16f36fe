"""Accessories in services.yaml: their forms, their hosts, their values, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rolling_upgrade.engine.model import Accessory, Image, Mount, PublishedPort, Volume
from tests.support.project import Project

DB: dict[str, Any] = {"name": "db", "image": "postgres:17", "host": "web1"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with the services of the example and two hosts."""
    return Project(tmp_path)


def declare(project: Project, *accessories: dict[str, Any]) -> None:
    path = project.root / "deploy/services.yaml"
    content = yaml.safe_load(path.read_text())
    content["accessories"] = list(accessories)
    path.write_text(yaml.safe_dump(content))


def loaded(project: Project, host: int = 0) -> tuple[Accessory, ...]:
    return project.load().targets[host].application.accessories


def test_accessory_with_every_key(project: Project) -> None:
    project.env({"DB_PASSWORD": "hunter22", "DB_IMAGE": "registry.test/postgres:17"})
    declare(
        project,
        DB
        | {
            "image": "DB_IMAGE",
            "command": ["postgres", "-c", "x=1"],
            "env": ["DB_PASSWORD", {"POSTGRES_PASSWORD": "DB_PASSWORD"}, {"POSTGRES_USER": {"value": "u-${APP_NAME}"}}],
            "volumes": ["db:/data"],
            "mounts": [{"source": "/srv/init", "target": "/init", "read_only": True}],
            "ports": ["5432", "15432:5432", "10.0.0.5:5433:5432"],
            "health": {"command": ["pg_isready"], "timeout_seconds": "2s", "deadline_seconds": "3m"},
            "stop_seconds": "1m",
            "limits": {"memory": "1GB", "cpus": "2"},
            "init": True,
        },
    )

    [found] = loaded(project)

    assert found.image == Image("registry.test/postgres", "17")
    assert found.env == (
        ("DB_PASSWORD", "hunter22"),
        ("POSTGRES_PASSWORD", "hunter22"),
        ("POSTGRES_USER", "u-memoryark"),
    )
    assert found.ports == (
        PublishedPort(5432, 5432),
        PublishedPort(15432, 5432),
        PublishedPort(5433, 5432, "10.0.0.5"),
    )
    assert (found.mounts, found.options.volumes) == ((Mount("/srv/init", "/init", True),), (Volume("db", "/data"),))
    assert (found.health, found.health_timeout_seconds, found.deadline_seconds) == (("pg_isready",), 2.0, 180.0)
    assert (found.stop_seconds, found.memory_bytes, found.cpus, found.options.init) == (60.0, 1 << 30, 2.0, True)


def test_env_may_be_a_mapping_and_health_a_command(project: Project) -> None:
    project.env({"DB_PASSWORD": "hunter22"})
    declare(project, DB | {"env": {"PASSWORD": "DB_PASSWORD", "USER": {"value": "SHOP"}}, "health": "pg_isready -q"})

    [found] = loaded(project)

    assert found.env == (("PASSWORD", "hunter22"), ("USER", "SHOP"))
    assert found.health == ("sh", "-c", "pg_isready -q")


def test_accessory_is_on_its_host_only(project: Project) -> None:
    declare(project, DB)

    here, elsewhere = (target.application for target in project.load().targets)

    assert ([one.name for one in here.accessories], here.accessories_elsewhere) == (["db"], ())
    assert (elsewhere.accessories, elsewhere.accessories_elsewhere) == ((), ("db",))


def test_url_of_an_accessory_on_another_host_is_a_warning(project: Project) -> None:
    declare(project, DB)
    path = project.root / "deploy/services.yaml"
    content = yaml.safe_load(path.read_text())
    content["services"][0]["env"].append({"CACHE": {"value": "redis://db:6379"}})
    path.write_text(yaml.safe_dump(content))

    (warning,) = project.load().warnings

    assert warning.endswith(": CACHE of backend names the accessory db, which runs only on other hosts")


def test_accessory_with_roles_is_on_each_host_with_one(project: Project) -> None:
    project.edit("hosts.yaml", "192.0.2.12, roles: [web]", "192.0.2.12, roles: [worker]")
    declare(project, {"name": "cache", "image": "redis:8", "roles": ["worker", "web"]})
    assert [len(loaded(project, host)) for host in (0, 1)] == [1, 1]
    declare(project, {"name": "cache", "image": "redis:8", "roles": ["worker"]})
    assert [len(loaded(project, host)) for host in (0, 1)] == [0, 1]


def test_accessory_of_an_environment_with_one_host_needs_no_host(project: Project) -> None:
    project.edit("hosts.yaml", "      web2: {address: 192.0.2.12, roles: [web]}\n", "")
    declare(project, {"name": "db", "image": "postgres:17"})

    assert [one.name for one in loaded(project)] == ["db"]


@pytest.mark.parametrize(
    ("changes", "place", "text"),
    [
        ({"host": ""}, "accessories[0]", "`host` or `roles`, because the environment has 2 hosts"),
        ({"host": "web9"}, "accessories[0].host", "a host of the environment: web1, web2"),
        ({"roles": ["web"]}, "accessories[0].roles", "one of the two"),
        ({"host": "", "roles": ["db"]}, "accessories[0].roles[0]", "a role of a host: web"),
        ({"name": "backend"}, "accessories[0].name", "a unique value"),
        ({"name": "green"}, "accessories[0].name", "a name other than a color's"),
        ({"name": "My DB"}, "accessories[0].name", "a lower-case letter"),
        ({"image": "postgres"}, "accessories[0].image", "an image with a tag or a digest"),
        ({"image": "Postgres:17"}, "accessories[0].image", "an image reference"),
        ({"ports": ["80:5432"]}, "accessories[0].ports[0]", "a port such as 5432"),
        ({"ports": ["host:5432:5432"]}, "accessories[0].ports[0]", "a port such as 5432"),
        ({"ports": ["5432/tcp"]}, "accessories[0].ports[0]", "a port such as 5432"),
        (
            {"env": [{"A": "B", "C": "D"}]},
            "accessories[0].env[0]",
            "NAME, NAME: KEY, NAME: literal or NAME: {value: text}",
        ),
        ({"env": ["DB_PASSWORD"]}, "DB_PASSWORD", "a value for the accessory db"),
        ({"volumes": ["a:/x", "b:/x"]}, "accessories[0].volumes[1].target", "a unique value"),
        ({"health": {"command": []}}, "accessories[0].health.command", "a command"),
        ({"volume": "x"}, "accessories[0].volume", "did you mean volumes?"),
    ],
)
def test_invalid_accessory_is_refused(project: Project, changes: dict[str, Any], place: str, text: str) -> None:
    declare(project, DB | changes)

    issues = {issue.path: issue for issue in project.issues()}

    assert text in str(issues[place])


@pytest.mark.parametrize(
    ("port", "user"), [("8080", "service backend"), ("28080:5432", "(green)"), ("7777:1", "accessory db")]
)
def test_port_with_two_uses_is_refused(project: Project, port: str, user: str) -> None:
    declare(project, DB | {"ports": ["7777:5432"]}, DB | {"name": "other", "ports": [port]})

    [issue] = project.issues()

    assert (issue.path, user in issue.found) == ("accessories[1].ports[0]", True)


def test_two_accessories_of_one_name_are_refused(project: Project) -> None:
    declare(project, DB, DB)

    assert "already used by accessories[0].name" in str(project.issues()[0])


def test_value_of_several_lines_is_passed_unless_podman_reads_the_variable(project: Project) -> None:
    project.env(extra='DB_CERTIFICATE="two\nlines"')
    declare(project, DB | {"env": ["DB_CERTIFICATE"]})
    (accessory,) = project.application().accessories
    assert accessory.env == (("DB_CERTIFICATE", "two\nlines"),)

    declare(project, DB | {"env": [{"PATH": "DB_CERTIFICATE"}]})
    assert "a single line" in str(project.issues()[0])


def test_keys_of_accessories_are_known(project: Project) -> None:
    project.env({"DB_PASSWORD": "hunter22", "DB_HOST": "web1", "DB_NAME": "x"})
    declare(project, DB | {"host": "DB_HOST", "env": [{"P": "DB_PASSWORD"}, {"N": {"value": "${DB_NAME}"}}]})

    assert project.load().warnings == ()


def test_secrets_of_accessories_are_masked(project: Project) -> None:
    project.env({"DB_PASSWORD": "hunter22"})
    declare(project, DB | {"env": ["DB_PASSWORD"]})

    assert "hunter22" in project.load().secrets
