"""Messages to Slack keep Slack's limits for any notice; a fake receiver applies Slack's rules."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolling_upgrade import rendering
from rolling_upgrade.engine.model import Channels, Hook, Notice, Occasion, Severity, VersionChange
from rolling_upgrade.features.notify.send import send
from rolling_upgrade.features.notify.slack import fit
from rolling_upgrade.features.notify.slack import slack_payload as payload
from rolling_upgrade.features.notify.text import compose
from tests.support.notices import notice
from tests.support.receiver import Received, receiving, slack

NASTY = st.text(alphabet=st.sampled_from("&<>`*_~|\\\"'\n\t $!@#é部署🚨\u202ex"), max_size=400)


def rejection(event: Notice, language: str = "en") -> str:
    """Return the error with which Slack would reject the message; '' for none."""
    body = payload(event, compose(event, language, rendering.notice_template))
    return slack(Received("/", {"Content-Type": "application/json"}, json.dumps(body).encode()))


@pytest.mark.parametrize("language", ["en", "zh-TW"])
@pytest.mark.parametrize("occasion", list(Occasion))
def test_slack_payload_of_every_occasion_is_accepted(occasion: Occasion, language: str) -> None:
    assert rejection(notice(occasion), language) == ""


@given(
    st.lists(NASTY, max_size=60),
    st.lists(st.tuples(NASTY, NASTY, NASTY), max_size=30),
    NASTY,
    st.integers(1, 400),
    st.sampled_from(list(Occasion)),
)
def test_slack_payload_of_any_notice_keeps_the_limits(
    hosts: list[str], changes: list[tuple[str, str, str]], nasty: str, times: int, occasion: Occasion
) -> None:
    long = nasty * times
    event = notice(
        occasion,
        hosts=tuple(hosts),
        changes=tuple(VersionChange(*change, hosts=tuple(hosts)) for change in changes),
        cause=long,
        text=long,
        who=long,
        target=long,
        check=long,
        next_command=long,
    )

    assert rejection(event) == ""


@given(NASTY, st.integers(1, 200))
def test_fit_never_exceeds_and_never_cuts_an_entity(text: str, longest: int) -> None:
    found = fit(text, longest)

    assert len(found) <= longest
    assert "<" not in found
    assert found.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").count("&") == 0


def test_slack_payload_escapes_mentions_and_links() -> None:
    event = notice(Occasion.MESSAGE, text="<!channel> & <http://evil.example|click>")
    body = payload(event, compose(event, "en", rendering.notice_template))

    assert body["blocks"][1]["text"]["text"] == "&lt;!channel&gt; &amp; &lt;http://evil.example|click&gt;"


def test_slack_payload_replaces_backticks_in_verbatim_fields() -> None:
    event = notice(cause="``` *bold* ```")
    (block,) = [block for block in _sections(event) if "*Cause*" in block]

    assert block == "*Cause*\n```''' *bold* '''```"


def _sections(event: Notice) -> list[str]:
    blocks: list[dict[str, Any]] = payload(event, compose(event, "en", rendering.notice_template))["blocks"]
    return [block["text"]["text"] for block in blocks if block["type"] == "section" and "text" in block]


@pytest.mark.parametrize(
    ("occasion", "level", "mark"),
    [
        (Occasion.DEPLOY_STARTED, None, "ℹ️"),
        (Occasion.DEPLOY_DONE, None, "✅"),
        (Occasion.DEPLOY_UNDONE, None, "⚠️"),
        (Occasion.DEPLOY_FAILED, None, "🚨"),
        (Occasion.CHECK_RESOLVED, None, "✅"),
        (Occasion.MESSAGE, Severity.WARNING, "⚠️"),
    ],
)
def test_slack_payload_header_shows_the_severity(occasion: Occasion, level: Severity | None, mark: str) -> None:
    event = notice(occasion, level=level)
    body = payload(event, compose(event, "en", rendering.notice_template))

    assert body["blocks"][0]["text"]["text"].startswith(f"{mark} [memoryark production] ")
    assert body["text"].startswith(f"{mark} [memoryark production] ")


def test_send_to_slack_is_accepted() -> None:
    with receiving(judge=slack) as receiver:
        (delivery,) = send(notice(), Channels(slack=Hook(receiver.url())), read=rendering.notice_template).wait()

    assert delivery.ok
    (request,) = receiver.requests
    assert request.path == "/services/T00000001/B00000001/q7Zk1m9pX2vB8nW4sL6t"
    assert request.headers["Content-Type"] == "application/json; charset=utf-8"
