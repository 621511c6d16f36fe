"""`config.check` and `config.show`, which contact no host."""

from __future__ import annotations

import json
import random
import re
import socket
from pathlib import Path

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.configuration.workflow import check, show
from tests.support.project import ENV, Project

SECRETS = {
    "JWT_SECRET_KEY": "hunter22",
    "SMTP_PASSWORD": "p'w\"x \\ü",
    "SLACK_WEBHOOK": "https://hooks.example.org/T0/B0/abc",
    "REDIS_URL": "redis://:longpassword@cache:6379",
    "DATABASE_URL": "postgresql://u:dbpass@db/x",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project on which any attempt to open a connection fails the test."""

    def refuse(*_: object) -> None:
        raise AssertionError("something was contacted")

    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    (project.root / "deploy/demo.env").chmod(0o600)
    project.write("known_hosts", "192.0.2.11,192.0.2.12 ssh-ed25519 AAAA\n")
    return project


def test_check_valid_configuration_is_done(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(None, root=project.root) is ExitCode.DONE
    assert capsys.readouterr().out == ("demo: 2 hosts, 2 services\nNo errors, 0 warnings; nothing was contacted.\n")


def test_check_lists_every_error_of_every_environment(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    hosts = (project.root / "hosts.yaml").read_text()
    project.write("hosts.yaml", hosts + "  other:\n    hosts: {box: {address: 192.0.2.30}}\n")
    project.env({"BACKEND_PORT": "no", "DOMAIN_NAME": None})

    assert check(None, root=project.root) is ExitCode.USAGE

    out = capsys.readouterr().out
    assert all(text in out for text in ("BACKEND_PORT", "DOMAIN_NAME", "deploy/other.env", "3 errors"))


def test_check_single_environment_is_compared_with_the_others(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = (project.root / "hosts.yaml").read_text()
    project.write("hosts.yaml", hosts + "  other:\n    hosts: {box: {address: 192.0.2.11}}\n")
    project.write("deploy/other.env", "\n".join(f"{key}={value}" for key, value in ENV.items()))

    assert check("demo", root=project.root) is ExitCode.USAGE
    assert "APP_NAME memoryark in both" in capsys.readouterr().out


def test_check_unknown_key_is_an_error_when_strict(project: Project) -> None:
    project.env(extra="BACKEND_PROT=1\n")

    assert check("demo", root=project.root) is ExitCode.DONE
    assert check("demo", root=project.root, strict=True) is ExitCode.USAGE


def test_check_unknown_environment_is_refused(project: Project) -> None:
    with pytest.raises(ConfigError, match="Unknown environment 'demmo'"):
        check("demmo", root=project.root)


def shown(project: Project, capsys: pytest.CaptureFixture[str], tag: str = "") -> dict[str, dict[str, dict[str, str]]]:
    assert show("demo", root=project.root, hosts=("web2",), tag=tag, json=True) is ExitCode.DONE
    found: dict[str, dict[str, dict[str, str]]] = json.loads(capsys.readouterr().out)["hosts"]["web2"]
    return found


def test_show_each_value_names_its_source(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.edit("hosts.yaml", "192.0.2.12, roles: [web]}", "192.0.2.12, env: {LOG_LEVEL: debug}}")

    keys = shown(project, capsys, tag="v9")["keys"]

    assert keys["LOG_LEVEL"] == {"value": "debug", "source": "hosts.yaml environments.demo.hosts.web2.env"}
    assert keys["APP_NAME"] == {"value": "memoryark", "source": "deploy/demo.env line 1"}
    assert keys["APP_VERSION"] == {"value": "v9", "source": "--tag"}
    assert keys["NGINX_PORT"] == {"value": "80", "source": "default"}
    assert keys["BACKEND_PORT"]["source"].startswith("deploy/services.yaml")


def test_show_rollout_values_are_written_as_in_hosts_yaml(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    show("demo", root=project.root)

    assert re.search(r"^  transfer +pull +default$", capsys.readouterr().out, re.MULTILINE)


def test_show_derived_values_equal_those_of_a_deploy(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    derived = shown(project, capsys)["derived"]

    assert derived["backend: green"]["value"] == "memoryark-backend-green on port 28080"
    assert derived["public address"]["value"] == "http://files.example.org"


def test_show_worker_has_its_command_and_how_its_gate_passes(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = (
        "  - {name: worker, image: shop:v1, command: run 'a b', handoff: exclusive, ready: {command: [check, up]}}\n"
    )
    project.write("deploy/services.yaml", (project.root / "deploy/services.yaml").read_text() + worker)

    derived = shown(project, capsys)["derived"]
    found = {name.removeprefix("worker: "): row["value"] for name, row in derived.items() if name.startswith("worker")}
    assert (found["service port"], found["green"]) == ("none, a worker", "memoryark-worker-green")
    assert (found["command"], found["entrypoint"]) == ("run 'a b'", "that of the image")
    assert found["gate"].startswith("ready: 3 passes")
    assert (found["ready"], found["handoff"]) == ("check up, ends within 10 s", "exclusive")


@pytest.mark.parametrize("json_form", [False, True])
def test_show_secrets_are_masked(json_form: bool, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(7)  # noqa: S311 - repeatable test values
    made = {
        f"APP_{word}_{number}": "".join(chance.choices("abcXYZ0189!$&'\"\\#%;ü ", k=chance.randint(4, 40))).strip()
        + "zz"
        for number, word in enumerate(["SECRET", "PASSWORD", "TOKEN", "API_KEY", "PASS", "CREDENTIALS"] * 5)
    }
    quoted = {key: "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" for key, value in made.items()}
    quoted |= {key: "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" for key, value in SECRETS.items()}
    project.env(quoted)

    show("demo", root=project.root, json=json_form)

    out = capsys.readouterr().out
    text = out if not json_form else " ".join(_texts(json.loads(out)))
    assert [key for key, value in {**made, **SECRETS}.items() if value in text] == []
    assert "longpassword" not in out


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    return [str(value)]


def test_show_names_the_assigned_port(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.edit("deploy/services.yaml", "    port: FRONTEND_PORT\n    default_port: 7001\n", "")

    assert show("demo", root=project.root, json=True) is ExitCode.DONE

    derived = json.loads(capsys.readouterr().out)["hosts"]["web1"]["derived"]
    port = project.load().targets[0].application.services[1].service_port
    assert derived["frontend: service port"] == {"value": str(port), "source": "assigned; see `port`"}
    assert derived["backend: service port"] == {"value": "8080", "source": "derived"}
    assert derived["frontend: blue"]["value"] == f"memoryark-frontend-blue on port {port + 10_000}"
