"""Errors of `load`: file, location, found and expected value, all at once."""

from __future__ import annotations

import pytest

from rolling_upgrade import config
from rolling_upgrade.errors import ConfigIssue, ExitCode
from tests.support.project import Project

ENV_FILE = "deploy/demo.env"
SERVICES = "deploy/services.yaml"


def test_load_reports_the_errors_of_all_files_at_once(project: Project) -> None:
    project.edit("hosts.yaml", "192.0.2.12", "'a b', port: x")
    project.edit(SERVICES, "    alias: frontend", "    allias: frontend")
    project.env({"APP_NAME": None, "BACKEND_IMAGE": "a b", "DOMAIN_NAME": None, "HEALTH_CHECK_TIMEOUT": "soon"})

    error = project.refused(hosts=("web9",), tag="-x")

    assert {(issue.file, issue.path) for issue in error.issues} == {
        ("hosts.yaml", "environments.demo.hosts.web2.address"),
        ("hosts.yaml", "environments.demo.hosts.web2.port"),
        (SERVICES, "services[1].allias"),
        (ENV_FILE, "APP_NAME"),
        (ENV_FILE, "BACKEND_IMAGE"),
        (ENV_FILE, "DOMAIN_NAME"),
        (ENV_FILE, "HEALTH_CHECK_TIMEOUT"),
        ("--hosts", ""),
        ("--tag", ""),
    }
    assert error.exit_code == ExitCode.USAGE
    assert "has 9 errors. Nothing was contacted." in str(error)


def test_load_invalid_yaml_inventory_still_checks_the_other_files(project: Project) -> None:
    project.write("hosts.yaml", "environments: [")
    project.edit(SERVICES, "health: /health", "health: health")
    project.env({"NGINX_PORT": "x"})

    assert {file for file, _ in project.places()} == {"hosts.yaml", SERVICES, ENV_FILE}


def test_load_invalid_yaml_services_still_checks_the_env_file(project: Project) -> None:
    project.write(SERVICES, "services: [")
    project.env({"NGINX_PORT": "x", "BACKND_PORT": "1"})

    assert project.places() == [(SERVICES, "line 1"), (ENV_FILE, "NGINX_PORT")]


@pytest.mark.parametrize("path", [ENV_FILE, SERVICES])
def test_load_missing_file_is_an_error(project: Project, path: str) -> None:
    (project.root / path).unlink()

    (issue,) = project.issues()

    assert (issue.file, issue.found) == (path, "no such file")


@pytest.mark.parametrize("path", [ENV_FILE, SERVICES, "hosts.yaml"])
def test_load_binary_file_is_an_error(project: Project, path: str) -> None:
    project.write(path, b"\xff\xfe\x00")

    (issue,) = project.issues()

    assert (issue.file, issue.found) == (path, "bytes that are not UTF-8")


@pytest.mark.parametrize("path", [ENV_FILE, SERVICES, "hosts.yaml"])
def test_load_unreadable_file_is_an_error(project: Project, path: str) -> None:
    (project.root / path).unlink()
    (project.root / path).mkdir()

    (issue,) = project.issues()

    assert issue.file == path
    assert "unreadable" in issue.found


def test_load_error_about_a_secret_hides_its_value(project: Project) -> None:
    project.env({"SLACK_WEBHOOK": "T000/B000/hush", "WEBHOOK_URL": "ftp://:hush@host"})
    project.edit("hosts.yaml", "192.0.2.12", "192.0.2.12, env: {JWT_SECRET_KEY: [hush]}")

    error = project.refused()

    assert len(error.issues) == 3
    assert "hush" not in str(error)
    assert "a secret of 14 characters" in str(error)


def test_load_unknown_host_lists_hosts_groups_and_roles(project: Project) -> None:
    assert project.issues(hosts=("web1", "web9")) == [
        ConfigIssue("--hosts", "", "'web9'", "a host, group or role: web1, web2, canary, web")
    ]


def test_load_invalid_tag_is_an_error(project: Project) -> None:
    (issue,) = project.issues(tag="v1;reboot")

    assert (issue.file, issue.found) == ("--tag", "'v1;reboot'")


def test_load_without_environment_lists_the_environments(project: Project) -> None:
    project.write(".lab/lab/hosts.yaml", "environments: {lab: {hosts: {web1: }}}")

    error = project.refused(None)

    assert error.exit_code == ExitCode.USAGE
    assert "Environments: demo, lab." in str(error)
    assert "--env" in error.next_step


def test_load_unknown_environment_suggests_the_nearest(project: Project) -> None:
    error = project.refused("demoo")

    assert "Unknown environment 'demoo' (did you mean demo?)." in str(error)


def test_load_environment_in_two_files_is_an_error(project: Project) -> None:
    project.write(".lab/demo/hosts.yaml", "environments: {demo: {hosts: {web1: }}}")

    (issue,) = project.issues()

    assert issue.file == "hosts.yaml and .lab/demo/hosts.yaml"
    assert issue.path == "environments.demo"


def test_load_without_hosts_yaml_is_an_error(project: Project) -> None:
    (project.root / "hosts.yaml").unlink()

    error = project.refused(None)

    assert config.environments(project.root) == ()
    assert "Environments: none." in str(error)
    assert error.issues[0].file == "hosts.yaml"
