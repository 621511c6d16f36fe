"""`roles` of a service: on which hosts it runs, and what follows for full chain, site and warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rolling_upgrade import rendering
from tests.support.project import Project

HOSTS = """\
environments:
  demo:
    hosts:
      web1: {address: 192.0.2.11, roles: [web]}
      api1: {address: 192.0.2.12, roles: [api, internal]}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two hosts with different roles; the frontend runs on one of them."""
    made = Project(tmp_path)
    made.write("hosts.yaml", HOSTS)
    place(made, frontend=["web"])
    return made


def place(project: Project, **roles: Any) -> None:
    path = project.root / "deploy/services.yaml"
    content = yaml.safe_load(path.read_text())
    for service in content["services"]:
        service.pop("roles", None)
        if service["name"] in roles:
            service["roles"] = roles[service["name"]]
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def placed(project: Project) -> dict[str, list[str]]:
    return {target.name: [service.name for service in target.application.services] for target in project.load().targets}


def test_service_runs_on_the_hosts_with_one_of_its_roles(project: Project) -> None:
    assert placed(project) == {"web1": ["backend", "frontend"], "api1": ["backend"]}

    place(project, backend=["api"], frontend=["web", "internal"])
    assert placed(project) == {"web1": ["frontend"], "api1": ["backend", "frontend"]}


def test_full_chain_exists_where_its_service_runs(project: Project) -> None:
    web, api = (target.application for target in project.load().targets)

    assert web.full_chain is not None
    assert web.full_chain.service == "frontend"
    assert api.full_chain is None


def test_keys_of_a_service_are_required_only_where_it_runs(project: Project) -> None:
    project.env({"FRONTEND_IMAGE": None})
    project.edit("hosts.yaml", "roles: [web]", "roles: [web], env: {FRONTEND_IMAGE: registry.test/frontend}")

    assert placed(project)["api1"] == ["backend"]


def test_host_without_services_has_no_site_and_a_warning(project: Project) -> None:
    place(project, backend=["web"], frontend=["web"])
    environment = project.load()
    api = environment.targets[1].application

    assert (api.services, api.has_site, api.public_ports) == ((), False, ())
    assert rendering.nginx_site(api) == ""
    assert rendering.site_hash("") == ""
    assert environment.warnings == (
        *(warning for warning in environment.warnings if "no service runs" not in warning),
        "deploy/services.yaml: no service runs on api1, which has the roles api, internal",
    )


def test_role_that_no_host_has_is_an_error_with_the_known_ones(project: Project) -> None:
    place(project, frontend=["web", "wbe"])

    (issue,) = project.issues()

    assert (issue.file, issue.path) == ("deploy/services.yaml", "services[1].roles[1]")
    assert (issue.found, issue.expected) == ("'wbe'", "a role of a host in hosts.yaml: web, api, internal")


def test_role_without_any_in_hosts_yaml_is_an_error(project: Project) -> None:
    project.edit("hosts.yaml", "roles: [web]", "port: 22")
    project.edit("hosts.yaml", ", roles: [api, internal]", "")

    (issue,) = project.issues()

    assert issue.expected == "a role of a host in hosts.yaml: no host has one yet"


def test_environment_lists_each_service_once_and_the_hosts_that_run_it(project: Project) -> None:
    environment = project.load()

    assert [service.name for service in environment.services] == ["backend", "frontend"]
    assert [target.name for target in environment.running("frontend").targets] == ["web1"]
    assert [target.name for target in environment.running("backend").targets] == ["web1", "api1"]
    assert environment.running("other").targets == ()
