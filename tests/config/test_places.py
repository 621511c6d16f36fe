"""The lines and names in messages, YAML anchors and merges, and the keys of Compose and Kamal."""

from __future__ import annotations

import json

import pytest

from rolling_upgrade.config.accessories import Accessory
from rolling_upgrade.config.foreign_keys import _KEYS
from rolling_upgrade.config.inventory import EnvironmentEntry, Host, Inventory
from rolling_upgrade.config.jobs import Job
from rolling_upgrade.config.services import Service, Services
from rolling_upgrade.console.output import issues_json
from rolling_upgrade.engine.model import Route
from tests.support.project import Project

SERVICES_FILE = "deploy/services.yaml"

SERVICES = """\
x-web: &web
  container_port: 8000
  routes: [/]

services:
  - name: web
    <<: *web
    image: repo/web:v1
  - name: api
    <<: *web
    image: repo/api:v1
    routes:
      - /api/
      - prefix: /ws
        stream: true
"""


@pytest.fixture
def web(project: Project) -> Project:
    project.write(SERVICES_FILE, SERVICES)
    return project


def messages(project: Project) -> list[str]:
    return [str(issue) for issue in project.issues()]


def test_anchors_merges_and_x_keys(web: Project) -> None:
    web.edit("hosts.yaml", "environments:\n", "x-host: &host {roles: [web]}\nenvironments:\n")
    web.edit("hosts.yaml", "{address: 192.0.2.12, roles: [web]}", "{<<: *host, address: 192.0.2.12}")

    environment = web.load()

    first, second = environment.targets[1].application.services
    assert (first.routes, first.container_port) == ((Route("/"),), 8000)
    assert (second.routes, second.container_port) == ((Route("/api/"), Route("/ws", stream=True)), 8000)
    assert environment.targets[1].roles == ("web",)


@pytest.mark.parametrize(
    ("old", "new", "merged"),
    [
        ("<<: *web\n    image: repo/web", "<<: [*web, {container_port: 9000}]\n    image: repo/web", 8000),
        ("<<: *web\n    image: repo/web", "<<: [{container_port: 9000}, *web]\n    image: repo/web", 9000),
        ("<<: *web\n    image: repo/web", "container_port: 7000\n    <<: *web\n    image: repo/web", 7000),
        ("x-web: &web\n", "x-base: &base {container_port: 1}\nx-web: &web\n  <<: *base\n", 8000),
    ],
)
def test_merge_precedence(web: Project, old: str, new: str, merged: int) -> None:
    web.edit(SERVICES_FILE, old, new)

    assert web.application().services[0].container_port == merged


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "    <<: *web\n    image: repo/web",
            "    <<: *web\n    <<: *web\n    image: repo/web",
            "8: found a duplicate key '<<'",
        ),
        ("  routes: [/]\n", "  routes: [/]\n  routes: []\n", "4: found a duplicate key 'routes'"),
        ("x-web: &web\n", "x-web: &web\n  <<: *web\n", "1: found a merge of something else"),
        ("x-web: &web\n", "x-web: &web\n  <<: text\n", "2: found a merge of something else"),
        ("  routes: [/]\n", "  routes: &r [*r]\n", "3: found an alias that contains itself"),
        ("  routes: [/]\n", "  routes: {a: *other}\n", "3: found text that is not YAML (found undefined alias"),
        ("x-web: &web\n", "X-web: &web\n", "1: X-web: found an unknown key"),
        (
            "    <<: *web\n    image: repo/web",
            "    '<<': *web\n    image: repo/web",
            "7: service web: <<: found an unknown key",
        ),
    ],
)
def test_wrong_merges_are_reported_with_their_line(web: Project, old: str, new: str, message: str) -> None:
    web.edit(SERVICES_FILE, old, new)

    assert messages(web)[0].startswith(f"{SERVICES_FILE}:{message}")


def test_aliases_cannot_fill_the_memory(web: Project) -> None:
    lists = "".join(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    web.write(SERVICES_FILE, f"x-many:\n  a0: &a0 [x]\n{lists}{SERVICES}")

    assert "too many aliases" in messages(web)[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    image: repo/web:v1\n", "", "6: service web: image is required"),
        ("    image: repo/api:v1\n", "    image: A B\n", "11: service api: image: found 'A B'; expected an image"),
        ("        stream: true\n", "        strem: true\n", "15: service api: routes[1].strem: found an unknown key"),
        ("      - /api/\n", "      - api\n", "13: service api: routes[0].prefix: found 'api'"),
        ("  container_port: 8000\n", "  container_port: 0\n", "2: service web: container_port: found '0'"),
        ("  - name: api\n", "  - name: web\n", "9: service web: name: found 'web', already used"),
        ("services:\n", "full_chain: {service: shop, path: /}\nservices:\n", "5: full_chain.service: found 'shop'"),
    ],
)
def test_message_has_the_line_and_the_service(web: Project, old: str, new: str, message: str) -> None:
    web.edit(SERVICES_FILE, old, new)

    assert messages(web)[0].startswith(f"{SERVICES_FILE}:{message}")


def test_line_is_right_after_an_invalid_entry_was_removed(web: Project) -> None:
    web.edit(SERVICES_FILE, "name: web", "name: Web")
    web.edit(SERVICES_FILE, "repo/api:v1", "${MISSING")

    first, second = messages(web)
    assert first.startswith(f"{SERVICES_FILE}:6: service Web: name: found 'Web'")
    assert second.startswith(f"{SERVICES_FILE}:11: service api: image: found '${{MISSING'")


def test_message_has_the_line_and_the_host_or_environment(web: Project) -> None:
    web.edit("hosts.yaml", "roles: [web]}", "rols: [web]}")
    web.edit("hosts.yaml", "    hosts:\n", "    rollout: {batch: all}\n    port: ssh\n    hosts:\n")

    assert sorted(message.partition("; ")[0] for message in messages(web)) == [
        "hosts.yaml:3: environment demo: rollout.batch: found 'all'",
        "hosts.yaml:4: environment demo: port: found 'ssh'",
        "hosts.yaml:7: host web2 of demo: rols: found an unknown key",
    ]


def test_override_and_env_file_have_lines(web: Project) -> None:
    web.env({"NGINX_PORT": "none"})
    web.edit("hosts.yaml", "{address: 192.0.2.12,", "{address: 192.0.2.12, env: {HTTPS_PORT: none},")

    found = [message.partition("; ")[0] for message in messages(web)]

    assert sorted(found) == [
        "deploy/demo.env:10: NGINX_PORT: found 'none'",
        "hosts.yaml:5: host web2 of demo: env.HTTPS_PORT: found 'none'",
    ]


def test_missing_key_has_no_line_and_is_reported_once(web: Project) -> None:
    web.edit(SERVICES_FILE, "repo/web:v1", "${WEB}:${TAG}")
    web.edit(SERVICES_FILE, "repo/api:v1", "repo/api:${TAG}")

    assert [message.partition(" is required")[0] for message in messages(web)] == [
        "deploy/demo.env: WEB",
        "deploy/demo.env: TAG",
    ]


def test_json_has_the_line_and_both_forms_of_the_place(web: Project) -> None:
    web.edit(SERVICES_FILE, "repo/api:v1", "A B")

    (issue,) = json.loads(json.dumps(issues_json(web.issues())))

    assert (issue["line"], issue["path"], issue["where"]) == (11, "services[1].image", "service api: image")
    assert issue["text"].startswith(f"{SERVICES_FILE}:11: service api: image: found")


def test_same_port_twice_is_one_message(web: Project) -> None:
    web.edit(SERVICES_FILE, "    image: repo/web:v1\n", "    image: repo/web:v1\n    port: 9000\n")
    web.edit(SERVICES_FILE, "    image: repo/api:v1\n", "    image: repo/api:v1\n    port: 9000\n")

    assert messages(web) == [
        f"{SERVICES_FILE}:13: service api: port: found port 9000, already used by the service web; "
        "expected an unused port"
    ]


@pytest.mark.parametrize(
    ("place", "key", "ours"),
    [
        ("    image: repo/web:v1\n", "environment: [A]", "`env`"),
        ("    image: repo/web:v1\n", "ports: ['80:8000']", "`container_port`"),
        ("    image: repo/web:v1\n", "depends_on: [api]", "`start: after_previous`"),
        ("    image: repo/web:v1\n", "healthcheck: {test: [CMD, x]}", "`health`"),
        ("    image: repo/web:v1\n", "proxy: {host: a.b}", "`routes`"),
    ],
)
def test_key_of_compose_or_kamal_is_answered_with_ours(web: Project, place: str, key: str, ours: str) -> None:
    web.edit(SERVICES_FILE, place, f"{place}    {key}\n")

    (message,) = messages(web)
    assert message.startswith(
        f"{SERVICES_FILE}:9: service web: {key.partition(':')[0]}: found an unknown key; expected "
    )
    assert ours in message


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("servers: {web: [a]}", "`environments"),
        ("builder: {arch: amd64}", "`building`"),
        ("version: 3", "leave it out"),
    ],
)
def test_top_level_key_of_compose_or_kamal_is_answered_with_ours(web: Project, key: str, ours: str) -> None:
    web.edit(SERVICES_FILE, "services:\n", f"{key}\nservices:\n")

    (message,) = messages(web)
    assert message.startswith(f"{SERVICES_FILE}:5: {key.partition(':')[0]}: found an unknown key; expected ")
    assert ours in message


def test_foreign_keys_are_unknown_keys_of_existing_models() -> None:
    models = {model.__name__: model for model in (Accessory, Service, Services, EnvironmentEntry, Inventory, Host, Job)}

    assert set(_KEYS) == set(models)
    assert [name for name, model in models.items() if set(_KEYS[name]) & set(model.model_fields)] == []


def test_key_of_an_accessory_is_answered_with_ours_and_its_name(web: Project) -> None:
    web.edit(
        SERVICES_FILE,
        "services:\n",
        "accessories:\n  - {name: db, host: web1, image: 'x:1', directories: [a]}\nservices:\n",
    )

    (message,) = messages(web)
    assert message == (
        f"{SERVICES_FILE}:6: accessory db: directories: found an unknown key; expected `volumes` or `mounts`"
    )
