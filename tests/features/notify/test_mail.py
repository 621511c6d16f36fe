"""Mail through a real server: protection, login, threads, headers; read back by mail-parser."""

from __future__ import annotations

import email
import re
from email import policy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolling_upgrade import rendering
from rolling_upgrade.engine.model import Channels, Mail, Notice, Occasion, Security
from rolling_upgrade.features.notify.delivery import Delivery
from rolling_upgrade.features.notify.mail import build_email
from rolling_upgrade.features.notify.send import send
from rolling_upgrade.features.notify.text import compose
from tests.support.certificate import Authority
from tests.support.mailbox import PASSWORD, USER, Mailbox, mailbox
from tests.support.notices import RELEASE, notice
from tests.support.receiver import silent

MAIL = Mail("mail.example.org", "MemoryArk <ark@mail.example.org>", ("Ann <ann@example.org>", "bob@example.org"))


def sent(event: Notice, channel: Mail, *, language: str = "en", seconds: float = 5) -> Delivery:
    (delivery,) = send(
        event, Channels(mail=channel, language=language), read=rendering.notice_template, seconds=seconds
    ).wait()
    return delivery


def composed(event: Notice, channel: Mail = MAIL) -> Any:
    message = compose(event, "en", rendering.notice_template)
    raw = build_email(event, message, channel, rendering.notice_template).as_bytes()
    return email.message_from_bytes(raw, policy=policy.default)


@pytest.mark.parametrize("language", ["en", "zh-TW"])
@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
def test_mail_with_tls_and_login_arrives_in_text_and_html(
    security: Security, language: str, authority: Authority, tmp_path: Path
) -> None:
    event = notice()
    with mailbox(authority.server(tmp_path), security=security, login=True) as box:
        delivery = sent(event, box.channel(security, user=USER, password=PASSWORD), language=language)

    message = compose(event, language, rendering.notice_template)
    (mail,) = box.mails
    assert delivery == Delivery("mail", "", 1, delivery.seconds)
    assert box.protected == [True]
    assert box.envelopes[0].mail_from == "ark@mail.example.org"
    assert box.envelopes[0].rcpt_tos == ["ann@example.org", "bob@example.org"]
    assert mail.subject == message.subject
    assert mail.from_ == [("MemoryArk", "ark@mail.example.org")]
    assert mail.to == [("Ann", "ann@example.org"), ("", "bob@example.org")]
    assert mail.text_plain[0].replace("\r\n", "\n").strip() == message.plain.strip()
    assert "&lt;html&gt;&amp;" in mail.text_html[0]
    assert f'lang="{language}"' in mail.text_html[0]
    assert mail.date.isoformat() == "2026-11-23T03:12:45+00:00"
    assert box.raw[0].isascii()


def test_mail_has_the_headers_of_generated_mail_and_of_its_list(authority: Authority) -> None:
    found = composed(notice())

    assert found["Auto-Submitted"] == "auto-generated"
    assert found["List-Id"] == "<production.memoryark.mail.example.org>"
    assert [part.get_content_type() for part in found.walk()] == [
        "multipart/alternative",
        "text/plain",
        "text/html",
    ]


def test_mail_of_one_deploy_is_one_thread() -> None:
    first, last = composed(notice(Occasion.DEPLOY_STARTED)), composed(notice(Occasion.DEPLOY_DONE))

    root = f"<{RELEASE}@mail.example.org>"
    assert first["Message-ID"] == root
    assert first["References"] is None
    assert last["Message-ID"] not in {root, None}
    assert last["References"] == last["In-Reply-To"] == root


def test_mail_of_one_event_has_the_same_id_at_any_time() -> None:
    assert composed(notice(at=1.0))["Message-ID"] == composed(notice(at=2.0))["Message-ID"]


def test_mail_of_a_repeated_alert_has_its_own_id() -> None:
    ids = {composed(notice(Occasion.CHECK_AGAIN, at=at))["Message-ID"] for at in (1.0, 2.0)}

    assert len(ids) == 2


def test_mail_of_different_threads_has_different_ids() -> None:
    threads = ("a b", "a-b", "web1 disk 1", "web1 disk. 1", "主機 1", "主機 2", "x" * 200, "x" * 201)

    assert len({composed(notice(Occasion.CHECK_FAILING, thread=thread))["Message-ID"] for thread in threads}) == len(
        threads
    )


def test_mail_long_ids_are_not_encoded_in_folded_headers() -> None:
    domain = ".".join(["mail" * 10] * 4) + ".example.org"
    raw = build_email(
        notice(),
        compose(notice(), "en", rendering.notice_template),
        Mail("h", f"ark@{domain}", ("ann@example.org",)),
        rendering.notice_template,
    ).as_bytes()

    assert f"<{RELEASE}@{domain}>" in re.sub(rb"\r\n\s+", b"", raw).decode()
    assert b"References: =?" not in raw
    assert b"\nReferences:" in raw


@given(st.text(), st.text(), st.text())
def test_mail_text_cannot_inject_headers_or_overlong_lines(target: str, who: str, thread: str) -> None:
    evil = f"{target}\r\nBcc: eve@example.org\r\n\r\n<script>{who}"
    found = composed(notice(Occasion.MESSAGE, target=evil, who=evil, thread=thread, application="memoryark"))

    assert found["Bcc"] is None
    assert sorted(found.keys()) == sorted(composed(notice(Occasion.MESSAGE)).keys())
    assert all(len(line) <= 998 for line in found.as_bytes().splitlines())
    assert "<script>" not in found.get_body(("html",)).get_content()


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
@pytest.mark.parametrize(
    ("address", "trusted", "why"),
    [("127.0.0.1", False, "self-signed certificate"), ("127.0.0.2", True, "certificate is not valid for '127.0.0.1'")],
)
def test_mail_is_not_sent_over_an_untrusted_certificate(
    security: Security, address: str, trusted: bool, why: str, authority: Authority, tmp_path: Path
) -> None:
    tls = authority.server(tmp_path, address=address, trusted=trusted)
    with mailbox(tls, security=security, login=True) as box:
        delivery = sent(notice(), box.channel(security, user=USER, password=PASSWORD))

    assert delivery.error.startswith("the certificate is not trusted: ")
    assert why in delivery.error
    assert delivery.tries == 1
    assert box.envelopes == []


def test_mail_server_without_starttls_gets_no_password() -> None:
    with mailbox(login=True) as box:
        delivery = sent(notice(), box.channel(Security.STARTTLS, user=USER, password=PASSWORD))

    assert delivery.error.endswith("nothing was sent")
    assert box.envelopes == []


def test_mail_wrong_password_is_reported_without_the_password(authority: Authority, tmp_path: Path) -> None:
    with mailbox(authority.server(tmp_path), security=Security.STARTTLS, login=True) as box:
        delivery = sent(notice(), box.channel(Security.STARTTLS, user=USER, password="wrong-passw0rd"))

    assert delivery.error.startswith("login refused: 535")
    assert delivery.tries == 1
    assert "passw0rd" not in delivery.error


def test_mail_unprotected_relay_without_login_arrives() -> None:
    with mailbox() as box:
        assert sent(notice(), box.channel(Security.NONE)).ok

    assert box.protected == [False]


def test_mail_is_retried_after_a_temporary_error() -> None:
    with mailbox() as box:
        box.answers = ["451 4.3.0 greylisted, come back"]
        delivery = sent(notice(), box.channel(Security.NONE))

    assert (delivery.ok, delivery.tries, len(box.envelopes)) == (True, 2, 1)


def test_mail_is_not_retried_after_a_permanent_error() -> None:
    with mailbox() as box:
        box.answers = ["554 5.7.1 spam"] * 3
        delivery = sent(notice(), box.channel(Security.NONE))

    assert (delivery.error, delivery.tries) == ("the server answered 554 5.7.1 spam", 1)


def test_mail_reports_one_refused_recipient() -> None:
    with mailbox() as box:
        box.refused = {"bob@example.org": "550 5.1.1 no such user"}
        delivery = sent(notice(), box.channel(Security.NONE))

    assert (
        delivery.error
        == "some recipients were refused, the others have the mail: bob@example.org: 550 5.1.1 no such user"
    )
    assert box.envelopes[0].rcpt_tos == ["ann@example.org"]


def test_mail_reports_that_every_recipient_was_refused() -> None:
    with mailbox() as box:
        box.refused = dict.fromkeys(("ann@example.org", "bob@example.org"), "550 5.1.1 no such user")
        delivery = sent(notice(), box.channel(Security.NONE))

    assert delivery.error == "every recipient was refused: 550 5.1.1 no such user"


@pytest.mark.parametrize("greeting", [b"", b"220 hello\r\n"])
@pytest.mark.parametrize("drip", [False, True])
def test_mail_server_that_hangs_fails_within_the_time_limit(greeting: bytes, drip: bool) -> None:
    with silent(greeting, drip=drip) as port:
        delivery = sent(notice(), Mailbox(port=port).channel(Security.NONE), seconds=1)

    assert not delivery.ok
    assert delivery.seconds < 2


def test_mail_server_without_tls_is_reported() -> None:
    with mailbox() as box:
        delivery = sent(notice(), box.channel(Security.TLS))

    assert delivery.error.startswith("TLS failed: ")


def test_mail_keeps_non_ascii_display_names() -> None:
    channel = Mail("h", '"方舟, 檔案" <ark@mail.example.org>', ("Ann von Ä <ann@example.org>",))
    found = composed(notice(), channel)

    assert found["From"].addresses[0].display_name == "方舟, 檔案"
    assert found["To"].addresses[0].display_name == "Ann von Ä"
