"""Checks across environments, and against the files of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade.config.cross_checks import conflicts, local_warnings, unknown_hosts
from rolling_upgrade.config.encryption import vault
from rolling_upgrade.errors import ConfigIssue
from tests.support.project import ENV, Project

BOTH = """\
environments:
  demo:
    hosts: {web1: {address: 192.0.2.11}}
  other:
    hosts: {box: {address: ADDRESS}}
"""
APART = {
    "APP_NAME": "other",
    "DOMAIN_NAME": "other.example.org",
    "DATABASE_PATH": "/srv/other/data/o.db",
    "UPLOADS_PATH": "/srv/other/uploads",
    "BACKEND_PORT": "8180",
    "FRONTEND_PORT": "7101",
}


def conflicts_with(project: Project, changes: dict[str, str], address: str = "192.0.2.11") -> tuple[ConfigIssue, ...]:
    project.write("hosts.yaml", BOTH.replace("ADDRESS", address))
    values = {**ENV, **APART, **changes}
    project.write("deploy/other.env", "\n".join(f"{key}={value}" for key, value in values.items()))
    return conflicts([project.load("demo"), project.load("other")])


def test_conflicts_of_separate_environments_are_empty(project: Project) -> None:
    assert conflicts_with(project, {}) == ()


def test_conflicts_on_different_hosts_are_empty(project: Project) -> None:
    assert conflicts_with(project, {**ENV, "APP_NAME": "memoryark"}, address="192.0.2.99") == ()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"APP_NAME": "memoryark"}, "APP_NAME memoryark in both"),
        ({"BACKEND_PORT": "8080"}, "port 8080 as backend's service port and as backend's service port"),
        ({"FRONTEND_PORT": "8080"}, "port 8080 as backend's service port and as frontend's service port"),
        ({"BACKEND_PORT": "18080"}, "port 18080 as backend's blue port and as backend's service port"),
        ({"NGINX_PORT": "7001"}, "port 7001, public in one environment and of a service in the other"),
        ({"DOMAIN_NAME": "files.example.org"}, "the domain files.example.org on one public port"),
        ({"DATABASE_PATH": ENV["DATABASE_PATH"]}, f"{ENV['DATABASE_PATH']} as DATABASE_PATH and as DATABASE_PATH"),
        ({"UPLOADS_BACKUP_PATH": ENV["UPLOADS_PATH"]}, "/srv/memoryark/uploads as UPLOADS_PATH and as UPLOADS_BACKUP"),
        (
            {"DATABASE_PATH": "/srv/memoryark/data/o.db"},
            "/srv/memoryark/data, mounted by memoryark, is or contains /srv/memo",
        ),
        ({"UPLOADS_PATH": "/srv/memoryark"}, "/srv/memoryark, mounted by other, is or contains /srv/memoryark/data"),
        ({"UPLOADS_BACKUP_PATH": "/srv/memoryark/uploads/x"}, "/srv/memoryark/uploads, mounted by memoryark, is or"),
        ({"UPLOADS_PATH": "/var/lib/memoryark/live"}, "/var/lib/memoryark/live, mounted by other, is inside /var/lib/"),
    ],
)
def test_conflicts_between_environments_are_errors(changes: dict[str, str], found: str, project: Project) -> None:
    issues = conflicts_with(project, changes)

    assert any(issue.found.startswith(found) for issue in issues), issues
    assert issues[0].file == "demo and other"


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_local_warnings_group_readable_env_file_has_none(project: Project, mode: int) -> None:
    (project.root / "deploy/demo.env").chmod(mode)

    assert not any("lets other users" in warning for warning in local_warnings(project.load(), project.root))


def test_local_warnings_world_readable_encrypted_env_file_has_none(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("correct horse")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "password"))
    file = project.root / "deploy/demo.env"
    file.write_bytes(vault.encrypt(file.read_bytes(), b"correct horse"))
    file.chmod(0o644)

    assert not any("lets other users" in warning for warning in local_warnings(project.load(), project.root))


def test_local_warnings_world_readable_env_file_has_one(project: Project) -> None:
    (project.root / "deploy/demo.env").chmod(0o644)
    assert "mode 0644" in local_warnings(project.load(), project.root)[0]

    (project.root / "deploy/demo.env").chmod(0o600)
    assert not any("mode" in warning for warning in local_warnings(project.load(), project.root))


def test_unknown_hosts_are_named_with_the_command_that_records_them(project: Project) -> None:
    project.write("known_hosts", "192.0.2.11 ssh-ed25519 AAAA\n")

    found = unknown_hosts(project.load())

    assert len(found) == 1
    assert found[0].startswith(
        "web2: no known_hosts file has a key for 192.0.2.12; rolling-upgrade trust --env demo --hosts web2 "
    )


def test_unknown_hosts_skips_aliases_of_ssh_config(project: Project) -> None:
    project.edit("hosts.yaml", "192.0.2.12", "second")
    project.write("known_hosts", "192.0.2.11 ssh-ed25519 AAAA\n")
    (Path.home() / ".ssh").mkdir()
    (Path.home() / ".ssh" / "config").write_text("Host first second\n  HostName 192.0.2.12\n")

    assert unknown_hosts(project.load()) == ()
