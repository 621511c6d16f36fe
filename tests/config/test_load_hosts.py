"""The inventory that `load` returns: hosts, their settings and overrides, and the environments."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade import config
from rolling_upgrade.engine.model import RolloutPolicy
from tests.support.project import Project


def test_load_without_rollout_uses_the_defaults(project: Project) -> None:
    assert project.load().rollout == RolloutPolicy()


def test_load_host_override_applies_only_to_that_host(project: Project) -> None:
    project.edit("hosts.yaml", "roles: [web]}\n", "env: {BACKEND_MEMORY_LIMIT: 2GB, API_TOKEN_KEY: s3cret!}}\n")
    project.edit("deploy/services.yaml", "      - REDIS_URL", "      - REDIS_URL\n      - API_TOKEN_KEY")
    project.env({"BACKEND_MEMORY_LIMIT": "1GB"})

    environment = project.load()

    web1, web2 = (target.application.services[0] for target in environment.targets)
    assert (web1.memory_bytes, web2.memory_bytes) == (1024**3, 2 * 1024**3)
    assert ("API_TOKEN_KEY", "s3cret!") in web2.env
    assert "API_TOKEN_KEY" not in dict(web1.env)
    assert "s3cret!" in environment.secrets


def test_load_host_settings_default_to_the_environment(project: Project) -> None:
    project.write(
        "hosts.yaml",
        """\
environments:
  demo:
    user: ark
    setup_user: admin
    port: 2222
    jump: ops@bastion.example.org:2200
    hosts:
      web1: {address: 192.0.2.11}
      web2: {address: 192.0.2.12, port: 22, user: other, jump: none}
      bare:
""",
    )

    web1, web2, bare = project.load().targets

    assert (web1.user, web1.setup_user, web1.port, web1.jump) == (
        "ark",
        "admin",
        2222,
        "ops@bastion.example.org:2200",
    )
    assert (web2.user, web2.port, web2.jump) == ("other", 22, "")
    assert bare.address == "bare"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), ["web1", "web2"]),
        (("web2",), ["web2"]),
        (("canary",), ["web1"]),
        (("web",), ["web1", "web2"]),
        (("web2", "canary"), ["web1", "web2"]),
        (("web1", "web1"), ["web1"]),
    ],
)
def test_load_hosts_are_selected_by_name_group_or_role(
    project: Project, words: tuple[str, ...], names: list[str]
) -> None:
    assert [target.name for target in project.load(hosts=words).targets] == names


@pytest.mark.parametrize(
    ("environment", "declared", "confirm"),
    [
        ("staging", "", False),
        ("production", "", True),
        ("production", "false", False),
        ("staging", "yes", True),
    ],
)
def test_load_confirm_defaults_to_true_in_production(
    project: Project, environment: str, declared: str, confirm: bool
) -> None:
    project.env({"ENVIRONMENT": environment})
    if declared:
        project.rollout(f"confirm: {declared}")

    assert project.load().rollout.confirm is confirm


def test_load_environment_named_production_requires_confirmation(project: Project) -> None:
    project.edit("hosts.yaml", "  demo:\n", "  production:\n    env_file: deploy/demo.env\n")

    assert project.load("production").rollout.confirm is True


def test_load_known_hosts_are_the_existing_files_in_order(project: Project, tmp_path: Path) -> None:
    project.edit("hosts.yaml", "    hosts:\n", "    known_hosts: keys/demo\n    hosts:\n")
    assert project.load().known_hosts == ()
    own = project.write("keys/demo", "")
    beside = project.write("known_hosts", "")
    (tmp_path / "home/.ssh").mkdir()
    users = tmp_path / "home/.ssh/known_hosts"
    users.touch()

    assert project.load().known_hosts == (str(own), str(beside), str(users))


def test_load_finds_lab_environments(project: Project) -> None:
    project.write(
        ".lab/lab/hosts.yaml",
        """\
environments:
  lab:
    env_file: lab.env
    services_file: ../../deploy/services.yaml
    identity_file: id_ed25519
    known_hosts: known_hosts
    hosts: {web1: {address: 192.0.2.31}}
""",
    )
    project.write(".lab/lab/lab.env", (project.root / "deploy/demo.env").read_text())
    key = project.write(".lab/lab/id_ed25519", "")
    known = project.write(".lab/lab/known_hosts", "")

    environment = project.load("lab")

    assert config.environments(project.root) == ("demo", "lab")
    assert environment.targets[0].identity_file == str(key)
    assert environment.known_hosts == (str(known),)


def test_load_ignores_an_invalid_lab_inventory(project: Project) -> None:
    project.write(".lab/lab/hosts.yaml", "environments: [")

    assert project.load().name == "demo"
    assert config.environments(project.root) == ("demo",)


def test_load_yaml_values_are_not_converted(project: Project) -> None:
    project.edit("hosts.yaml", "roles: [web]}\n", "env: {LOG_LEVEL: no, WORKER_PROCESSES: 8, CACHE_TTL: 1}}\n")

    env = dict(project.load().targets[1].application.services[0].env)

    assert (env["LOG_LEVEL"], env["WORKER_PROCESSES"], env["CACHE_TTL"]) == ("no", "8", "1")
