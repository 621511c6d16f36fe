"""The chain for clients: joined from any order of the files, and refused with the reason when it is incomplete."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rolling_upgrade.engine.site.chain import Chain, ChainError, join
from tests.support.certificate import Issued

ROOT = Issued.root()
UPPER = ROOT.issue("Upper")
LOWER = UPPER.issue("Lower")
LEAF = LOWER.issue("shop.test", authority=False)
FOREIGN = Issued.root("Elsewhere").issue("Foreign")
SENT = LEAF.pem + LOWER.pem + UPPER.pem


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_text(LEAF.private)
    return path


def joined(key: Path, certificate: str, intermediates: str) -> Chain:
    return join(certificate, intermediates, key, time.time())


@pytest.mark.parametrize(
    ("certificate", "intermediates"),
    [
        (LEAF.pem, LOWER.pem + UPPER.pem),
        (LEAF.pem, UPPER.pem + LOWER.pem),
        (LEAF.pem, UPPER.pem + LOWER.pem + ROOT.pem),
        (SENT, LOWER.pem + UPPER.pem),
        (SENT, SENT),
        (UPPER.pem + LEAF.pem, LOWER.pem),
        (f"Bag Attributes\n{LEAF.pem}".replace("\n", "\r\n"), f"# Lower\n{LOWER.pem}\n\n{UPPER.pem}"),
    ],
    ids=["in order", "reversed", "with root", "contained", "twice", "leaf last", "with text and Windows line ends"],
)
def test_join_sends_the_certificate_and_its_issuers_in_order(key: Path, certificate: str, intermediates: str) -> None:
    assert joined(key, certificate, intermediates) == Chain(SENT)


def test_join_without_the_upper_intermediate_sends_what_there_is(key: Path) -> None:
    assert joined(key, LEAF.pem, LOWER.pem) == Chain(LEAF.pem + LOWER.pem)


def test_join_of_a_certificate_signed_by_a_root_sends_no_root(tmp_path: Path) -> None:
    leaf = ROOT.issue("direct.test", authority=False)
    path = tmp_path / "direct.pem"
    path.write_text(leaf.private)

    assert joined(path, leaf.pem, ROOT.pem) == Chain(leaf.pem)


def test_join_of_a_self_signed_certificate_is_the_certificate(tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    path.write_text(ROOT.private)

    assert joined(path, ROOT.pem, ROOT.pem) == Chain(ROOT.pem)


def test_join_names_unrelated_certificates_that_it_leaves_out(key: Path) -> None:
    assert joined(key, LEAF.pem, FOREIGN.pem + LOWER.pem + UPPER.pem) == Chain(SENT, ("CN=Foreign",))


def test_join_prefers_the_intermediate_that_is_valid_longer(key: Path) -> None:
    former = UPPER.issue("Lower", expired=True, key=LOWER)

    assert joined(key, LEAF.pem, former.pem + LOWER.pem + UPPER.pem).text == SENT


@pytest.mark.parametrize(
    ("certificate", "intermediates", "reason"),
    [
        (LEAF.pem, FOREIGN.pem, "no intermediate certificate signed CN=shop.test: its issuer is CN=Lower"),
        (LEAF.pem, UPPER.pem, "no intermediate certificate signed CN=shop.test: its issuer is CN=Lower"),
        (LEAF.pem, LEAF.pem, "no intermediate certificate signed CN=shop.test: its issuer is CN=Lower"),
        # The name is right, but not the signature.
        (LEAF.pem, FOREIGN.issue("Lower").pem, "no intermediate certificate signed CN=shop.test"),
        (LEAF.pem, UPPER.issue("Lower", expired=True, key=LOWER).pem, "the certificate of CN=Lower has expired"),
        (LEAF.pem, UPPER.issue("Lower", authority=False, key=LOWER).pem, "no intermediate certificate signed"),
        (LOWER.pem, UPPER.pem, "belongs to none of the certificates"),
        ("", "", "belongs to none of the certificates"),
        (LEAF.pem, UPPER.pem * 20, "more than 20 certificates"),
        (LEAF.pem.replace("MI", "AA", 1), LOWER.pem, "a certificate cannot be read"),
    ],
)
def test_join_refuses_files_without_a_chain(key: Path, certificate: str, intermediates: str, reason: str) -> None:
    with pytest.raises(ChainError) as caught:
        joined(key, certificate, intermediates)

    assert reason in str(caught.value)


def test_join_refuses_an_unreadable_key(tmp_path: Path) -> None:
    for content in ("", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        (tmp_path / "key").write_text(content)
        with pytest.raises(ChainError, match="the key cannot be read"):
            joined(tmp_path / "key", LEAF.pem, LOWER.pem)
