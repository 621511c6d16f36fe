"""The JSON for a webhook, and the login in its URL."""

from __future__ import annotations

from rolling_upgrade import rendering
from rolling_upgrade.engine.model import Channels, Hook
from rolling_upgrade.features.notify.send import send
from tests.support.notices import RELEASE, notice
from tests.support.receiver import receiving


def test_send_webhook_gets_every_fact() -> None:
    with receiving() as receiver:
        send(notice(), Channels(webhook=Hook(receiver.url("/hook"))), read=rendering.notice_template).wait()

    found = receiver.requests[0].json
    assert found | {"message": "", "cause": ""} == {
        "form": 1,
        "id": f"{RELEASE} deploy undone",
        "thread": RELEASE,
        "event": "deploy undone",
        "severity": "warning",
        "application": "memoryark",
        "environment": "production",
        "at": "2026-11-23T03:12:45+00:00",
        "hosts": ["web1", "web2"],
        "who": "ann",
        "target": "v2",
        "check": "backend",
        "changes": [
            {"what": "backend", "before": "v1", "after": "v2", "hosts": []},
            {"what": "frontend", "before": "", "after": "v2", "hosts": ["web2"]},
        ],
        "results": {"web1": "upgraded", "web2": "undone"},
        "seconds": 192.4,
        "cause": "",
        "next_command": "inv status --env production",
        "text": "The tea is ready.",
        "language": "en",
        "subject": "[memoryark production] Deploy of v2 failed; all changes were undone",
        "message": "",
    }


def test_send_webhook_login_in_the_url_becomes_basic_authentication() -> None:
    with receiving() as receiver:
        url = receiver.url("/hook").replace("http://", "http://ark:pass%26word@")
        (delivery,) = send(notice(), Channels(webhook=Hook(url)), read=rendering.notice_template).wait()

    assert delivery.ok
    assert receiver.requests[0].headers["Authorization"] == "Basic YXJrOnBhc3Mmd29yZA=="
