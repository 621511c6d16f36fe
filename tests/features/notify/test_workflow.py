"""`inv notify` and `inv notify.test` against real receivers: messages, output and exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Security
from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.notify.workflow import notify, send_test
from tests.support.mailbox import Mailbox, mailbox
from tests.support.project import Project
from tests.support.receiver import closed_port, receiving, slack

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("ROLLING_OPERATOR", "ann")
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project")


def mail(box: Mailbox) -> dict[str, str]:
    return {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(box.port),
        "SMTP_SECURITY": Security.NONE.value,
        "SMTP_FROM": "ark@example.org",
        "SMTP_TO": "ann@example.org",
    }


def test_notify_sends_a_message_to_every_channel(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with mailbox() as box, receiving(judge=slack) as chat, receiving() as hook:
        project.env({**mail(box), "SLACK_WEBHOOK": chat.url(), "WEBHOOK_URL": hook.url("/hook")})

        code = notify("demo", root=project.root, message="Maintenance at <ten>.", severity="warning")

    assert code is ExitCode.DONE
    assert capsys.readouterr().out.count(" sent (") == 3
    assert "Maintenance at &lt;ten&gt;." in chat.requests[0].json["text"]
    assert hook.requests[0].json["severity"] == "warning"
    assert box.mails[0].subject == "[memoryark demo] Message from ann"


def test_notify_in_the_other_language(project: Project) -> None:
    with receiving(judge=slack) as chat:
        project.env({"SLACK_WEBHOOK": chat.url(), "NOTIFY_LANGUAGE": "zh-TW"})

        assert notify("demo", root=project.root, message="十點維護") is ExitCode.DONE

    assert "ann 的訊息" in chat.requests[0].json["text"]


def test_notify_reports_a_channel_that_accepts_only_higher_severities(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiving() as hook:
        project.env({"WEBHOOK_URL": hook.url(), "NOTIFY_WEBHOOK": "critical"})

        assert notify("demo", root=project.root, message="hello") is ExitCode.FAILED

    assert "webhook  skipped: it accepts critical and above (NOTIFY_WEBHOOK)" in capsys.readouterr().out
    assert hook.requests == []


@pytest.mark.parametrize(
    ("message", "severity", "option"),
    [
        ("", "info", "--message"),
        ("  ", "info", "--message"),
        ("x" * 2001, "info", "--message"),
        ("x", "loud", "--severity"),
    ],
)
def test_notify_rejects_invalid_options(message: str, severity: str, option: str, project: Project) -> None:
    with pytest.raises(ConfigError) as refused:
        notify("demo", root=project.root, message=message, severity=severity)

    assert [issue.path for issue in refused.value.issues] == [option]


def test_send_test_reports_each_channel(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with mailbox() as box, receiving((403, {}, "invalid_token")) as chat:
        project.env(
            {
                **mail(box),
                "NOTIFY_MAIL": "critical",
                "SLACK_WEBHOOK": chat.url(),
                "WEBHOOK_URL": f"http://127.0.0.1:{closed_port()}/x",
                "NOTIFY_WEBHOOK": "off",
            }
        )

        assert send_test("demo", root=project.root) is ExitCode.FAILED

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("slack    NOT SENT: HTTP 403 invalid_token (")
    assert lines[1].startswith("mail     sent (")
    assert lines[2] == "webhook  off (NOTIFY_WEBHOOK)"
    assert lines[3] == "Next: correct the env file, then rolling-upgrade notify.test --env demo"


@pytest.mark.parametrize("changes", [{}, {"WEBHOOK_URL": "http://127.0.0.1:9/x", "NOTIFY_WEBHOOK": "off"}])
def test_send_test_without_a_channel_is_an_error(changes: dict[str, str], project: Project) -> None:
    project.env(changes)

    with pytest.raises(ConfigError, match="no channel is configured, or all are off") as refused:
        send_test("demo", root=project.root)

    assert refused.value.exit_code is ExitCode.USAGE


def test_notify_task_prints_no_secret_when_channels_fail(project: Project) -> None:
    """The whole process: standard output, standard error, and a secret path and password on ports that are closed."""
    directory = PROJECT / ".lab" / f"notify-{os.getpid()}"
    words = {
        "SLACK_WEBHOOK": f"http://127.0.0.1:{closed_port()}/services/T00000009/hUsHhUsH1234",
        "WEBHOOK_URL": f"http://u:pass-w0rd-9@127.0.0.1:{closed_port()}/hook",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(closed_port()),
        "SMTP_FROM": "ark@example.org",
        "SMTP_TO": "ann@example.org",
        "SMTP_USER": "ark",
        "SMTP_PASSWORD": "open-sesame-7",
    }
    project.env(words)
    project.edit("hosts.yaml", "demo:\n", "demo:\n    env_file: demo.env\n    services_file: services.yaml\n")
    directory.mkdir(parents=True)
    name = directory.name
    for source, target in (
        ("hosts.yaml", "hosts.yaml"),
        ("deploy/demo.env", "demo.env"),
        ("deploy/services.yaml", "services.yaml"),
    ):
        (directory / target).write_text((project.root / source).read_text().replace("  demo:", f"  {name}:"))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "invoke", "notify.test", "--env", name],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()

    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert output.count("NOT SENT: connection refused") == 3
    assert not any(secret in output for secret in ("hUsHhUsH1234", "T00000009", "pass-w0rd-9", "open-sesame-7"))
