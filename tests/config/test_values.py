"""A literal wherever services.yaml may name an env key."""

from __future__ import annotations

import pytest

from rolling_upgrade.config.values import named_keys
from rolling_upgrade.engine.model import Image, Mount
from tests.support.project import Project

SERVICES_FILE = "deploy/services.yaml"

WEB = """\
services:
  - name: web
    image: ghcr.io/acme/shop:v1
    container_port: 8000
    port: 8000
    mounts: [{source: /srv/shop, target: /data}, {source: /srv/db/shop.db, parent: true, target: /db}]
    limits: {memory: 512M, cpus: 1.5}
"""


@pytest.fixture
def web(project: Project) -> Project:
    """A project with one service without keys."""
    project.write(SERVICES_FILE, WEB)
    return project


def replaced(project: Project, old: str, new: str) -> Project:
    project.edit(SERVICES_FILE, old, new)
    return project


def test_literals_are_used_as_they_are(web: Project) -> None:
    (service,) = web.application().services

    assert (service.image, service.service_port) == (Image("ghcr.io/acme/shop", "v1"), 8000)
    assert service.mounts == (Mount("/srv/shop", "/data"), Mount("/srv/db", "/db"))
    assert (service.memory_bytes, service.cpus) == (512 * 1024**2, 1.5)


def test_text_in_capitals_is_a_key(web: Project) -> None:
    web.env({"SHOP_IMAGE": "repo/shop:v2", "SHOP_PORT": "9000"})
    replaced(web, "ghcr.io/acme/shop:v1", "SHOP_IMAGE")
    replaced(web, "    port: 8000", "    port: SHOP_PORT")

    (service,) = web.application().services

    assert (service.image, service.service_port) == (Image("repo/shop", "v2"), 9000)


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("${REGION}.example.org/shop:${RELEASE}", "eu.example.org/shop:v7"),
        ("${MISSING:-eu}.example.org/shop:${EMPTY-v8}", "eu.example.org/shop:v8"),
        ("${REGION:-us}.example.org/shop:v1", "eu.example.org/shop:v1"),
    ],
)
def test_references_in_a_literal_are_replaced(web: Project, literal: str, value: str) -> None:
    web.env({"REGION": "eu", "RELEASE": "v7", "EMPTY": ""})
    replaced(web, "ghcr.io/acme/shop:v1", literal)

    assert web.application().services[0].image.reference == value


def test_override_of_a_host_replaces_a_reference(web: Project) -> None:
    web.env({"DISK": "disk1"})
    replaced(web, "/srv/shop,", '"/srv/${DISK}",')
    web.edit("hosts.yaml", "web2: {address: 192.0.2.12,", "web2: {address: 192.0.2.12, env: {DISK: disk2},")

    sources = [target.application.services[0].mounts[0].source for target in web.load().targets]

    assert sources == ["/srv/disk1", "/srv/disk2"]


@pytest.mark.parametrize(
    ("old", "new", "place", "expected"),
    [
        ("ghcr.io/acme/shop:v1", "Shop Image", "services[0].image", "an image reference"),
        ("    port: 8000", "    port: 80", "services[0].port", "a port from 1024"),
        ("memory: 512M", "memory: lots", "services[0].limits.memory", "a size"),
        ("cpus: 1.5", 'cpus: "-1"', "services[0].limits.cpus", "a number of CPUs"),
        ("source: /srv/shop,", "source: srv/shop,", "services[0].mounts[0].source", "an absolute path"),
        ("source: /srv/db/shop.db", "source: /shop.db", "services[0].mounts[1].source", "a file in a directory"),
        ("source: /srv/shop,", "source: /etc,", "services[0].mounts[0].source", "/etc belongs to the system"),
        ("/srv/shop,", '"/srv/${APP_NAME",', "services[0].mounts[0].source", "${KEY} or ${KEY:-default}"),
        ("/srv/shop,", '"/srv/${a:+b}",', "services[0].mounts[0].source", "${KEY} or ${KEY:-default}"),
        ("/srv/shop,", '"/srv/$${APP_NAME}",', "services[0].mounts[0].source", "an absolute path"),
        ("ghcr.io/acme/shop:v1", "${APP_NAME}/Shop:v1", "services[0].image", "an image reference"),
    ],
)
def test_error_of_a_literal_is_reported_in_services_yaml(
    web: Project, old: str, new: str, place: str, expected: str
) -> None:
    (issue,) = replaced(web, old, new).issues()

    assert (issue.file, issue.path) == (SERVICES_FILE, place)
    assert expected in issue.expected


def test_reference_to_a_key_that_is_not_set_is_reported_once_for_the_key(web: Project) -> None:
    (issue,) = replaced(web, "/srv/shop,", '"/srv/${DISK}/${DISK}",').issues()

    assert (issue.file, issue.path, issue.found) == ("deploy/demo.env", "DISK", "")
    assert issue.expected == "a value, because deploy/services.yaml uses it (service web: mounts[0].source)"


def test_literal_without_a_tag_needs_one(web: Project) -> None:
    web.env({"APP_VERSION": None})
    (issue,) = replaced(web, "ghcr.io/acme/shop:v1", "ghcr.io/acme/shop").issues()

    assert (issue.file, issue.path, issue.found) == ("deploy/demo.env", "APP_VERSION", "")
    assert "or a tag in `image`, or --tag of the deploy" in issue.expected
    web.env()
    assert web.application().services[0].image.tag == "2.0.1"


def test_literal_ports_with_two_uses_are_reported(web: Project) -> None:
    second = "  - {name: api, image: repo/api:v1, container_port: 80, port: 28000}\n"
    web.write(SERVICES_FILE, WEB + second)

    issues = web.issues()

    assert issues
    assert {(issue.file, issue.path) for issue in issues} == {(SERVICES_FILE, "services[0].port")}
    assert issues[0].found == "port 28000, already used by the service api"


def test_literal_mount_of_the_uploads_is_their_mount(web: Project) -> None:
    web.env({"UPLOADS_PATH": "/srv/shop"})
    assert web.application().uploads == "/srv/shop"

    web.env({"UPLOADS_PATH": None, "UPLOADS_BACKUP_PATH": "/srv/shop"})
    (issue,) = web.issues()
    assert "of UPLOADS_BACKUP_PATH, which the container could replace" in issue.expected


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("IMAGE", ["IMAGE"]),
        ("image", []),
        ("${A}/${b_1:-x", ["A"]),
        ("${A:-x}${B}$${C}$D", ["A", "B"]),
    ],
)
def test_keys_that_a_text_names(text: str, keys: list[str]) -> None:
    assert list(named_keys(text)) == keys
