"""Reports of runs on real hosts as text, JSON and HTML, and their notifications.

A real mail server and a receiver that validates as Slack does get the messages.
"""

from __future__ import annotations

import json

import pytest

from tests.deploy.conftest import Site
from tests.support.mailbox import mailbox
from tests.support.receiver import closed_port, receiving, slack


def test_successful_and_undone_runs_are_announced_and_reported(site: Site) -> None:
    announce_a_successful_and_an_undone_run(site)
    page = site.directory / "report.html"

    code, output = site.run("report", "--html", str(page))
    assert (code, "undone" in output) == (0, True)
    html = page.read_text()
    page.unlink()
    assert "failed its health gate" in html
    assert html.count("backend.start") >= 2

    report = json.loads(site.run("report", "--json")[1])
    assert (report["action"], report["outcome"], len(report["hosts"])) == ("deploy", "undone", 1)
    statuses = {stage["step"]: stage["status"] for stage in report["hosts"][0]["stages"]}
    assert (statuses["backend.start"], statuses["undo"]) == (1, 0)
    good = report["runs"][-2]["id"]

    output = site.run_ok("report", "--release", good)
    assert f"deploy {good} on {site.lab.name}: good" in output
    assert "frontend.cutover" in output
    host = json.loads(site.run("report", "--release", good, "--json", "--hosts", "web1")[1])["hosts"][0]
    start_times = [stage["began"] for stage in host["stages"]]
    assert start_times == sorted(start_times)
    assert host["changes"][0]["before"]["image"].endswith(":v1")


def announce_a_successful_and_an_undone_run(site: Site) -> None:
    """Deploy v2 and then an unhealthy release, and check their messages: one thread each on every channel."""
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


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--release", "20200101T000000Z-000000"), 3, "no host's history has a run"),
        (("--release", "../../lock", "--last"), 2, "--last"),
        (("--html", "/nowhere/x.html"), 2, "a file in an existing directory"),
        (("--load", "hosts.yaml"), 2, "a file of requests"),
    ],
)
def test_report_of_an_invalid_run_gives_the_reason(site: Site, words: tuple[str, ...], code: int, message: str) -> None:
    exit_code, output = site.run("report", *words)

    assert (exit_code, message in output) == (code, True), output


@pytest.mark.extended
@pytest.mark.hosts(2)
def test_report_with_an_unreachable_host_shows_the_other(site: Site) -> None:
    unreachable = site.lab.hosts[1]
    unreachable.cut_network()
    try:
        code, output = site.run("report")
    finally:
        unreachable.restore_network()

    assert (code, "web2  UNREACHABLE" in output, "web1  good" in output) == (1, True, True), output


@pytest.mark.extended
def test_deploy_with_unreachable_channels_still_succeeds(site: Site) -> None:
    secret = "hUsHhUsH1234567890"
    site.edit_env(SLACK_WEBHOOK=f"http://127.0.0.1:{closed_port()}/services/{secret}")

    code, output = site.deploy("v2", "--hosts", "web1")

    assert (code, site.versions()) == (0, ["v2"]), output
    assert "warning: slack: message not delivered: connection refused" in output
    assert secret not in output
