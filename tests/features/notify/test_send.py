"""One notice on all channels: routing by severity, and dead, slow and hostile channels."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine.model import Channels, Hook, Notice, Occasion, Security, Severity
from rolling_upgrade.features.notify.delivery import Delivery
from rolling_upgrade.features.notify.send import send
from tests.support.certificate import Authority
from tests.support.mailbox import PASSWORD, USER, Mailbox, mailbox
from tests.support.notices import notice
from tests.support.receiver import GOOD, Reply, closed_port, receiving, silent, tunnel

#: The secret part of the receivers' addresses.
TOKEN = "q7Zk1m9pX2vB8nW4sL6t"


def sent(channels: Channels, event: Notice | None = None, **changes: Any) -> tuple[Delivery, ...]:
    return send(event or notice(), channels, read=rendering.notice_template, **changes).wait()


def hook(port: int) -> Channels:
    return Channels(slack=Hook(f"http://127.0.0.1:{port}/services/T00000001/{TOKEN}"))


def test_send_without_a_channel_does_nothing() -> None:
    before = threading.active_count()

    assert sent(Channels()) == ()
    assert threading.active_count() == before


def test_send_reaches_all_channels_at_once() -> None:
    with mailbox() as box, receiving() as slack, receiving() as webhook:
        channels = Channels(Hook(slack.url()), box.channel(Security.NONE), Hook(webhook.url("/hook")))
        deliveries = sent(channels)

    assert [(delivery.channel, delivery.ok) for delivery in deliveries] == [
        ("slack", True),
        ("mail", True),
        ("webhook", True),
    ]
    assert (len(slack.requests), len(webhook.requests), len(box.envelopes)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("occasion", "lowest", "arrives"),
    [
        (Occasion.DEPLOY_DONE, Severity.INFO, True),
        (Occasion.DEPLOY_DONE, Severity.WARNING, False),
        (Occasion.DEPLOY_UNDONE, Severity.WARNING, True),
        (Occasion.DEPLOY_UNDONE, Severity.CRITICAL, False),
        (Occasion.RECOVERY_GIVEN_UP, Severity.CRITICAL, True),
        (Occasion.CHECK_RESOLVED, Severity.CRITICAL, True),
        (Occasion.TEST, Severity.CRITICAL, True),
        (Occasion.RECOVERY_GIVEN_UP, None, False),
        (Occasion.TEST, None, False),
    ],
)
def test_send_skips_channels_that_accept_only_higher_severities(
    occasion: Occasion, lowest: Severity | None, arrives: bool
) -> None:
    with receiving() as receiver:
        sent(Channels(webhook=Hook(receiver.url(), lowest)), notice(occasion))

    assert len(receiver.requests) == arrives


def test_send_over_trusted_tls_arrives(authority: Authority, tmp_path: Path) -> None:
    with receiving(tls=authority.server(tmp_path)) as receiver:
        (delivery,) = sent(Channels(slack=Hook(receiver.url())))

    assert delivery.ok


@pytest.mark.parametrize(("address", "trusted"), [("127.0.0.1", False), ("127.0.0.2", True)])
def test_send_to_a_bad_certificate_sends_nothing(
    address: str, trusted: bool, authority: Authority, tmp_path: Path
) -> None:
    with receiving(tls=authority.server(tmp_path, address=address, trusted=trusted)) as receiver:
        (delivery,) = sent(Channels(slack=Hook(receiver.url())))

    assert delivery.error.startswith("the certificate is not trusted: ")
    assert delivery.tries == 1
    assert receiver.requests == []


def test_send_through_a_proxy_is_encrypted_to_the_receiver(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    with receiving(tls=authority.server(tmp_path)) as receiver, tunnel(receiver.port) as tunnelled:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{tunnelled[0]}")
        (delivery,) = sent(Channels(slack=Hook(receiver.url())))

    assert delivery.ok
    assert tunnelled[1].startswith(f"CONNECT 127.0.0.1:{receiver.port} ")
    assert len(receiver.requests) == 1


def test_send_to_a_closed_port_is_tried_three_times() -> None:
    (delivery,) = sent(hook(closed_port()))

    assert (delivery.error, delivery.tries) == ("connection refused", 3)


@pytest.mark.parametrize("first", [(500, {}, "oops"), (503, {}, ""), (429, {"Retry-After": "1"}, "rate_limited")])
def test_send_retries_after_a_temporary_error(first: Reply) -> None:
    with receiving(first, GOOD) as receiver:
        (delivery,) = sent(Channels(slack=Hook(receiver.url())))

    assert (delivery.ok, delivery.tries) == (True, 2)
    assert receiver.requests[0].body == receiver.requests[1].body


def test_send_waits_for_retry_after() -> None:
    pauses: list[float] = []
    with receiving((429, {"Retry-After": "3"}, ""), GOOD) as receiver:
        (delivery,) = sent(Channels(slack=Hook(receiver.url())), sleep=pauses.append)

    assert (delivery.ok, pauses) == (True, [3.0])


def test_send_gives_up_where_retry_after_exceeds_the_limit() -> None:
    pauses: list[float] = []
    with receiving((429, {"Retry-After": "60"}, "rate_limited")) as receiver:
        (delivery,) = sent(Channels(slack=Hook(receiver.url())), sleep=pauses.append)

    assert (delivery.error, pauses) == ("HTTP 429; retry after 60 s rate_limited", [])


@pytest.mark.parametrize("after", ["", "Wed, 21 Oct 2026 07:28:00 GMT", "-5", "soon"])
def test_send_retry_after_without_a_number_is_the_usual_pause(after: str) -> None:
    pauses: list[float] = []
    with receiving((429, {"Retry-After": after}, ""), GOOD) as receiver:
        (delivery,) = sent(Channels(slack=Hook(receiver.url())), sleep=pauses.append)

    assert (delivery.ok, pauses) == (True, [0.5])


def test_send_does_not_retry_a_permanent_error() -> None:
    with receiving((404, {}, "no_service")) as receiver:
        (delivery,) = sent(Channels(slack=Hook(receiver.url())))

    assert (delivery.error, delivery.tries, len(receiver.requests)) == ("HTTP 404 no_service", 1, 1)


def test_send_redirect_is_not_followed() -> None:
    with receiving() as elsewhere, receiving((302, {"Location": elsewhere.url("/stolen")}, "")) as receiver:
        (delivery,) = sent(Channels(slack=Hook(receiver.url())))

    assert "not followed" in delivery.error
    assert elsewhere.requests == []


@pytest.mark.parametrize("drip", [False, True])
def test_send_does_not_retry_when_the_response_is_missing(drip: bool) -> None:
    started_at = time.monotonic()
    with silent(b"HTTP/1.1 2" if drip else b"", drip=drip) as port:
        (delivery,) = sent(hook(port), seconds=1)

    assert "it may" in delivery.error
    assert delivery.tries <= 1
    assert time.monotonic() - started_at < 2.5


def test_send_to_hanging_channels_ends_within_ten_seconds(authority: Authority, tmp_path: Path) -> None:
    with ExitStack() as stack:
        full, mute, greeting = (
            stack.enter_context(silent(backlog=False)),
            stack.enter_context(silent()),
            stack.enter_context(silent(b"220 hello\r\n")),
        )
        channels = Channels(
            Hook(f"https://127.0.0.1:{full}/{TOKEN}"),
            Mailbox(port=greeting).channel(Security.STARTTLS, user=USER, password=PASSWORD),
            Hook(f"https://127.0.0.1:{mute}/{TOKEN}"),
        )
        started_at = time.monotonic()
        deliveries = sent(channels)
        elapsed = time.monotonic() - started_at

    assert [delivery.ok for delivery in deliveries] == [False, False, False]
    assert elapsed < 10


def test_send_with_one_failing_channel_reaches_the_others() -> None:
    with mailbox() as box, receiving() as webhook:
        deliveries = sent(
            Channels(Hook(f"http://127.0.0.1:{closed_port()}/x"), box.channel(Security.NONE), Hook(webhook.url()))
        )

    assert [delivery.ok for delivery in deliveries] == [False, True, True]


def test_send_returns_before_the_delivery() -> None:
    with silent() as port:
        started_at = time.monotonic()
        sending = send(notice(), hook(port), read=rendering.notice_template, seconds=1)
        returned_after = time.monotonic() - started_at
        (delivery,) = sending.wait()

    assert returned_after < 0.5
    assert not delivery.ok


def test_send_missing_template_is_an_error_of_the_channel() -> None:
    def missing(name: str) -> str:
        raise FileNotFoundError(2, "No such file or directory", name)

    with receiving() as receiver:
        (delivery,) = send(notice(), Channels(slack=Hook(receiver.url())), read=missing, sleep=lambda _: None).wait()

    assert delivery.error == "No such file or directory"


def test_send_interrupted_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupts: Iterator[Any] = iter([KeyboardInterrupt()])
    plain = threading.Thread.join

    def join(self: threading.Thread, timeout: float | None = None) -> None:
        if interrupt := next(interrupts, None):
            raise interrupt
        plain(self, 0)

    with silent() as port:
        sending = send(notice(), hook(port), read=rendering.notice_template, seconds=5)
        monkeypatch.setattr(threading.Thread, "join", join)
        (delivery,) = sending.wait()
        monkeypatch.undo()

    assert delivery.error.startswith(("interrupted", "no response", "the server closed"))


@pytest.mark.parametrize(
    "body",
    [
        "no service at {url}",
        "no service at {path}",
        "bad token " + TOKEN,
        "x" * 290 + TOKEN,
        "bad%20token%20" + TOKEN,
    ],
)
def test_send_masks_the_url_that_a_service_echoes(body: str) -> None:
    with receiving() as receiver:
        url = receiver.url()
        receiver.replies = ((403, {}, body.format(url=url, path=url.partition("//")[2].partition("/")[2])),)
        (delivery,) = sent(Channels(slack=Hook(url)))

    assert delivery.error.startswith("HTTP 403")
    assert not any(part in delivery.error for part in (TOKEN, TOKEN[:8], "T00000001"))
    assert TOKEN not in repr(delivery)


def test_send_masks_the_login_that_a_mail_server_echoes() -> None:
    with mailbox() as box:
        box.answers = [f"554 {USER}:{PASSWORD} {'x' * 20}"]
        (delivery,) = sent(Channels(mail=box.channel(Security.NONE, user="", password="")), secrets=(PASSWORD,))

    assert delivery.error.startswith("the server answered 554")
    assert PASSWORD not in delivery.error


def test_send_secrets_in_the_notice_reach_no_channel() -> None:
    secret = "jwt-s3cret-value"
    event = notice(cause=f"log: {secret}", text=secret, who=secret, target=secret, next_command=f"x {secret}")
    with mailbox() as box, receiving() as slack, receiving() as webhook:
        sent(Channels(Hook(slack.url()), box.channel(Security.NONE), Hook(webhook.url())), event, secrets=(secret,))

    bodies = [*(request.body for request in (*slack.requests, *webhook.requests)), *box.raw]
    assert len(bodies) == 3
    assert not any(secret.encode() in body for body in bodies)
    assert not any(secret in part for mail in box.mails for part in (*mail.text_plain, *mail.text_html))


def test_send_masks_the_url_of_a_channel_in_the_notice() -> None:
    with receiving() as receiver:
        sent(Channels(webhook=Hook(receiver.url())), notice(cause=f"POST {receiver.url()} failed"))

    assert TOKEN.encode() not in receiver.requests[0].body


@pytest.mark.parametrize(
    ("severity", "phases"),
    [
        (Severity.WARNING, {"undone", "partly"}),
        (Severity.CRITICAL, {"failed", "failing", "again", "resolved", "given-up"}),
    ],
)
def test_severity_follows_from_the_occasion(severity: Severity, phases: set[str]) -> None:
    found = {occasion for occasion in Occasion if occasion.severity is severity}

    assert {occasion for occasion in Occasion if occasion.phase in phases} == found - {Occasion.RECOVERY_DONE}
    assert Occasion.RECOVERY_DONE.severity is Severity.WARNING
