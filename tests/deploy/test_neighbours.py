"""Two applications on one host, and an application that grows by a service: configuration alone does it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
import yaml

from tests.deploy.conftest import Site, fingerprint

pytestmark = pytest.mark.xdist_group("neighbours")

_OTHER = {
    "APP_NAME": "notes",
    "DOMAIN_NAME": "notes.lab.test",
    "BACKEND_PORT": "8090",
    "FRONTEND_PORT": "7011",
    "DATABASE_PATH": "/home/deploy/notes/data/notes.db",
    "DATABASE_BACKUP_PATH": "/home/deploy/notes/backups",
    "UPLOADS_PATH": "/home/deploy/notes/uploads",
}


@pytest.fixture
def neighbour(site: Site) -> Iterator[Site]:
    """A second environment on the same hosts: another APP_NAME, other ports and paths."""
    name = f"{site.lab.name}-notes"
    folder = site.folder.with_name(name)
    shutil.copytree(site.folder, folder, dirs_exist_ok=True)
    hosts = yaml.safe_load((folder / "hosts.yaml").read_text())
    environment = hosts["environments"].pop(site.lab.name)
    environment["env_file"] = f"{name}.env"
    environment["hosts"].pop("web2")
    (folder / "hosts.yaml").write_text(yaml.safe_dump({"environments": {name: environment}}))
    (folder / f"{site.lab.name}.env").rename(folder / f"{name}.env")
    other = Site(replace(site.lab, name=name, root=folder))
    other.edit_env(**_OTHER)
    yield other
    shutil.rmtree(folder)


def test_second_application_on_a_host_leaves_the_first_alone(site: Site, neighbour: Site) -> None:
    host = site.lab.hosts[0]
    before = {row for row in fingerprint(host).splitlines() if "memoryark" in row}
    for words in (("setup",), ("deploy", "--tag", "v2")):
        code, output = neighbour.run(*words)
        assert code == 0, output
    assert neighbour.version(host, "notes.lab.test") == "v2"
    assert site.versions() == ["v1", "v1"]
    assert before <= set(fingerprint(host).splitlines())
    assert site.run("status")[0] == 0
    host.sh("podman rm -f -t 1 $(podman ps -aq --filter label=rolling.app=notes)", user="deploy")


def test_third_service_needs_configuration_alone(site: Site) -> None:
    path = site.folder / "services.yaml"
    services = yaml.safe_load(path.read_text())
    third = next(service for service in services["services"] if service["name"] == "frontend") | {
        "name": "help",
        "image": "HELP_IMAGE",
        "port": "HELP_PORT",
        "default_port": 7002,
        "routes": [{"prefix": "/help/"}],
        "alias": "help",
        "limits": {},
    }
    services["services"].append(third)
    path.write_text(yaml.safe_dump(services, sort_keys=False))
    site.edit_env(HELP_IMAGE="registry:5000/memoryark/frontend:v2", HELP_PORT="7002")
    code, output = site.run("deploy", "--hosts", "web1")
    assert code == 0, output
    host = site.lab.hosts[0]
    assert host.sh("curl -fs http://127.0.0.1:7002/health").stdout
    assert site.version(host) == "v1"
    host.sh("podman rm -f -t 1 $(podman ps -aq --filter label=rolling.service=help)", user="deploy")
