"""The databases that services name: which are in accessories, and which no backup contains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rolling_upgrade.config.databases import DatabaseUrl, parse_url
from rolling_upgrade.engine.model import AccessoryDatabase, Application
from tests.support.project import Project

ACCESSORIES: list[dict[str, Any]] = [
    {"name": "db", "image": "postgres:17", "host": "web1"},
    {"name": "my", "image": "mariadb:11", "host": "web1"},
]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with two hosts and two accessories on the first one."""
    return Project(tmp_path)


def declare(project: Project, *, accessories: list[dict[str, Any]] = ACCESSORIES, **variables: str) -> None:
    """Give the first service these variables."""
    path = project.root / "deploy/services.yaml"
    content = yaml.safe_load(path.read_text())
    content["services"][0]["env"] += [{name: {"value": value}} for name, value in variables.items()]
    path.write_text(yaml.safe_dump(content | {"accessories": accessories}))


def loaded(project: Project, host: int = 0) -> Application:
    return project.load().targets[host].application


def backup_warnings(project: Project) -> tuple[str, ...]:
    """The warnings, without those about accessories of another host."""
    return tuple(text for text in project.load().warnings if "runs only on other hosts" not in text)


def test_url_of_an_accessory_is_recognised_in_any_variable(project: Project) -> None:
    declare(project, QUEUE="postgresql+asyncpg://shop:p%27w@db:5433/que%20ue", LEGACY="mysql2://old:pw@my/legacy?x=1")

    assert loaded(project).databases == (
        AccessoryDatabase("db", "postgres", "que ue", "shop", 5433, "p'w"),
        AccessoryDatabase("my", "mysql", "legacy", "old", 3306, "pw"),
    )
    assert backup_warnings(project) == ()


def test_database_that_several_services_name_is_listed_once(project: Project) -> None:
    declare(project, A_URL="postgres://shop:pw@db/shop", B_URL="postgres://shop:pw@db/shop?sslmode=disable")

    assert len(loaded(project).databases) == 1


def test_database_belongs_to_the_host_of_its_accessory(project: Project) -> None:
    declare(project, DATABASE_URL="postgres://shop:pw@db/shop")

    assert [len(loaded(project, host).databases) for host in (0, 1)] == [1, 0]
    assert backup_warnings(project) == ()


def test_key_database_url_that_names_an_accessory_is_no_server(project: Project) -> None:
    project.env({"DATABASE_URL": "postgresql://shop:pw@db:5432/shop"})
    declare(project)

    app = loaded(project)
    assert (app.database_server, [one.name for one in app.databases]) == (None, ["shop"])


def test_key_database_url_of_a_server_is_covered_by_it(project: Project) -> None:
    project.env({"DATABASE_URL": "postgresql://shop:pw@host.containers.internal/shop"})
    declare(project)

    app = loaded(project)
    assert app.database_server is not None
    assert app.uncovered_databases == ()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://shop:hunter22@rds.example.org/shop", "rds.example.org/shop"),
        ("mongodb://shop:hunter22@db/shop", "db/shop"),
        ("postgresql://db/shop", "db/shop"),
        ("sqlite:////srv/other.db", "/srv/other.db"),
    ],
)
def test_database_url_that_no_backup_covers_is_a_warning_without_its_password(
    project: Project, url: str, place: str
) -> None:
    declare(project, SHOP_DATABASE_URL=url)

    text = f"backend in SHOP_DATABASE_URL ({place})"
    assert backup_warnings(project) == (f"no backup contains the database of {text}",)
    assert loaded(project).uncovered_databases == (text,)


@pytest.mark.parametrize("url", ["sqlite:////app/data/memoryark.db", "sqlite:////srv/memoryark/data/memoryark.db"])
def test_sqlite_file_at_database_path_is_covered(project: Project, url: str) -> None:
    declare(project, DATABASE_URL=url)

    assert backup_warnings(project) == ()


def test_accessory_without_backups_is_left_out_without_a_warning(project: Project) -> None:
    accessories = [ACCESSORIES[0] | {"backup": False}]
    declare(project, accessories=accessories, DATABASE_URL="postgres://shop:pw@db/shop")

    assert (loaded(project).databases, backup_warnings(project)) == ((), ())


def test_other_variables_are_not_warned_about(project: Project) -> None:
    declare(project, REDIS_URL="redis://cache.example.org", NOTE="postgres://", BROKER="amqp://a:b@mq")

    assert backup_warnings(project) == ()


@pytest.mark.parametrize("text", ["", "db", "postgres", "postgres://[db/x", "postgres://db:port/x", "9://db/x"])
def test_text_that_is_no_url(text: str) -> None:
    assert parse_url(text) is None


def test_parse_url_decodes_its_parts() -> None:
    url = parse_url("mariadb+pymysql://a%40b:c%2Fd@DB:1/e%2Ff")

    assert url == DatabaseUrl("mysql", "db", 1, "e/f", "a@b", "c/d", "/e/f")
