"""`inv observe.*` without a host: the files, their modes, and wrong input."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.observe.workflow import install, render, uninstall
from tests.support.project import Project

NAMES = {"prometheus.yml", "alerting.yml", "alertmanager.yml", "blackbox.yml", "dashboard.json"}
HOOK = "https://hooks.test/services/T1/B2/q7Zk1m9pX2vB8nW4"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.env({"SLACK_WEBHOOK": HOOK})
    return project


def modes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}


def test_observe_render_writes_every_file_and_keeps_the_secrets_private(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render("demo", root=project.root) is ExitCode.DONE

    directory = project.root / "observe" / "demo"
    assert modes(directory) == dict.fromkeys(NAMES, 0o644) | {"alertmanager.yml": 0o600, "blackbox.yml": 0o600}
    assert HOOK in (directory / "alertmanager.yml").read_text()
    assert [name for name in NAMES - {"alertmanager.yml"} if HOOK in (directory / name).read_text()] == []
    assert yaml.safe_load((directory / "prometheus.yml").read_text())["rule_files"] == ["alerting.yml"]
    assert "memoryark" in json.loads((directory / "dashboard.json").read_text())["title"]
    output = capsys.readouterr().out
    assert all(str(directory / name) in output for name in NAMES)
    assert HOOK not in output


def test_observe_render_keeps_its_files_out_of_git(project: Project) -> None:
    subprocess.run(["git", "init", "-q", str(project.root)], check=True)
    render("demo", root=project.root)

    command = ["git", "-C", str(project.root), "status", "--porcelain", "--untracked-files=all", "observe"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_observe_render_leaves_a_gitignore_alone(project: Project, tmp_path: Path) -> None:
    own = project.root / "observe" / ".gitignore"
    own.parent.mkdir()
    own.write_text("/demo/alertmanager.yml\n")
    render("demo", root=project.root)
    render("demo", root=project.root, output=str(tmp_path / "files" / "demo"))

    assert own.read_text() == "/demo/alertmanager.yml\n"
    assert not (tmp_path / "files" / ".gitignore").exists()


def test_observe_render_twice_writes_the_same(project: Project, tmp_path: Path) -> None:
    texts = []
    for _ in range(2):
        render("demo", root=project.root, output=str(tmp_path / "files"))
        texts.append({path.name: path.read_bytes() for path in (tmp_path / "files").iterdir()})

    assert texts[0] == texts[1]


def test_observe_render_into_a_file_is_refused(project: Project, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")

    with pytest.raises(ConfigError, match="nothing was written"):
        render("demo", root=project.root, output=str(tmp_path / "taken"))
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("work", [install, uninstall])
def test_observe_without_a_monitoring_host_names_its_setting(work: object, project: Project) -> None:
    assert callable(work)
    with pytest.raises(ConfigError, match="no monitoring host") as caught:
        work("demo", root=project.root)

    (issue,) = caught.value.issues
    assert issue.path == "environments.demo.monitoring.address"


def test_observe_install_rejects_a_mail_server_that_alertmanager_cannot_use(
    project: Project,
) -> None:
    project.edit("hosts.yaml", "    hosts:\n", "    monitoring: {address: 192.0.2.9}\n    hosts:\n")
    mail = {"SMTP_HOST": "mail.test", "SMTP_FROM": "a@b.c", "SMTP_TO": "d@e.f"}
    project.env({**mail, "SMTP_SECURITY": "tls", "SMTP_PORT": "2465"})

    with pytest.raises(ConfigError, match="port 465 only"):
        install("demo", root=project.root)
