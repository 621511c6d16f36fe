"""Notifications of deploys on real hosts, with a real mail server and a receiver that validates as Slack does."""

from __future__ import annotations

from tests.deploy.conftest import Site
from tests.support.mailbox import mailbox
from tests.support.receiver import closed_port, receiving, slack


def test_deploys_are_announced_at_start_and_end_in_one_thread_each(site: Site) -> None:
    with mailbox() as box, receiving(judge=slack) as chat, receiving() as hook:
        site.edit_env(
            SLACK_WEBHOOK=chat.url(),
            WEBHOOK_URL=hook.url("/hook"),
            SMTP_HOST="127.0.0.1",
            SMTP_PORT=str(box.port),
            SMTP_SECURITY="none",
            SMTP_FROM="ark@example.org",
            SMTP_TO="ann@example.org",
            NOTIFY_LANGUAGE="zh-TW",
        )
        good = site.deploy("v2")
        bad = site.deploy("never-healthy")

    assert (good[0], bad[0]) == (0, 1), good[1] + bad[1]
    assert "not delivered" not in good[1] + bad[1]
    messages = [request.json for request in hook.requests]
    assert [message["event"] for message in messages] == [
        "deploy started",
        "deploy done",
        "deploy started",
        "deploy undone",
    ]
    assert messages[1]["changes"][0] == {"what": "backend", "before": "v1", "after": "v2", "hosts": []}
    assert messages[1]["next_command"] == f"inv rollback --env {site.lab.name}"
    assert "failed its health gate" in messages[3]["cause"]
    assert messages[3]["hosts"] == ["web1"]
    assert len(chat.requests) == len(box.mails) == 4
    assert "部署失敗" in chat.requests[3].json["text"]
    ids = [(mail.headers["Message-ID"], mail.headers.get("References")) for mail in box.mails]
    assert (ids[1][1], ids[3][1]) == (ids[0][0], ids[2][0])


def test_deploy_with_unreachable_channels_still_succeeds(site: Site) -> None:
    secret = "hUsHhUsH1234567890"
    site.edit_env(SLACK_WEBHOOK=f"http://127.0.0.1:{closed_port()}/services/{secret}")

    code, output = site.deploy("v2", "--hosts", "web1")

    assert (code, site.versions()) == (0, ["v2"]), output
    assert "warning: slack: message not delivered: connection refused" in output
    assert secret not in output
