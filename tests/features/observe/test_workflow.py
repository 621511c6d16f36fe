"""`inv observe.*` without a host: what is written and where, and wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from fabfile.errors import ConfigError, ExitCode
from fabfile.workflows.observe import Request, install, uninstall, write
from tests.config.project import Project

NAMES = {"prometheus.yml", "alerting.yml", "alertmanager.yml", "blackbox.yml", "dashboard.json"}
HOOK = "https://hooks.test/services/T1/B2/q7Zk1m9pX2vB8nW4"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.env({"SLACK_WEBHOOK": HOOK})
    return project


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_observe_render_writes_every_file_and_keeps_the_secrets_private(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(Request("demo", project.root)) is ExitCode.DONE

    folder = project.root / "observe" / "demo"
    assert modes(folder) == dict.fromkeys(NAMES, 0o644) | {"alertmanager.yml": 0o600}
    assert HOOK in (folder / "alertmanager.yml").read_text()
    assert [name for name in NAMES - {"alertmanager.yml"} if HOOK in (folder / name).read_text()] == []
    assert yaml.safe_load((folder / "prometheus.yml").read_text())["rule_files"] == ["alerting.yml"]
    assert "memoryark" in json.loads((folder / "dashboard.json").read_text())["title"]
    told = capsys.readouterr().out
    assert all(str(folder / name) in told for name in NAMES)
    assert HOOK not in told


def test_observe_render_twice_writes_the_same(project: Project, tmp_path: Path) -> None:
    texts = []
    for _ in range(2):
        write(Request("demo", project.root, str(tmp_path / "files")))
        texts.append({path.name: path.read_bytes() for path in (tmp_path / "files").iterdir()})

    assert texts[0] == texts[1]


def test_observe_render_into_a_file_is_refused(project: Project, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")

    with pytest.raises(ConfigError, match="nothing was written"):
        write(Request("demo", project.root, str(tmp_path / "taken")))
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("work", [install, uninstall])
def test_observe_without_a_monitoring_host_says_where_to_name_one(work: object, project: Project) -> None:
    assert callable(work)
    with pytest.raises(ConfigError, match="no monitoring host") as caught:
        work(Request("demo", project.root))

    (mistake,) = caught.value.mistakes
    assert mistake.path == "environments.demo.monitoring.address"


def test_observe_install_of_a_mail_server_that_cannot_be_is_refused_before_anything_is_contacted(
    project: Project,
) -> None:
    project.edit("hosts.yaml", "    hosts:\n", "    monitoring: {address: 192.0.2.9}\n    hosts:\n")
    mail = {"SMTP_HOST": "mail.test", "SMTP_FROM": "a@b.c", "SMTP_TO": "d@e.f"}
    project.env({**mail, "SMTP_SECURITY": "tls", "SMTP_PORT": "2465"})

    with pytest.raises(ConfigError, match="port 465 alone"):
        install(Request("demo", project.root))
