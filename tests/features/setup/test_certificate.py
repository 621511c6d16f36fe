"""The certificate of a site with several domains: every way to get one covers all of them."""

from __future__ import annotations

from dataclasses import replace

from rolling_upgrade.engine.model import Certificate, Preparation, SiteOptions, Tls
from rolling_upgrade.features.setup import certificate
from tests.support.sample import application

APP = replace(
    application(),
    tls=Tls("/etc/ssl/certs/shop.crt", "/etc/ssl/private/shop.key"),
    site=SiteOptions(domains=("api.shop.test", "www.shop.test"), redirects=(("www.shop.test", "shop.test"),)),
)
DOMAINS = ("shop.test", "api.shop.test", "www.shop.test")


def test_self_signed_certificate_names_every_domain() -> None:
    found = certificate.before_site(APP, Preparation(certificate=Certificate.SELF_SIGNED))[-1]

    assert found.apply is not None
    assert "subjectAltName=DNS:shop.test,DNS:api.shop.test,DNS:www.shop.test" in found.apply.text
    for domain in DOMAINS:
        assert f"-checkhost {domain} " in found.check


def test_certificate_authority_is_asked_for_every_domain() -> None:
    found = certificate.after_site(APP, Preparation(certificate=Certificate.ACME, acme_email="ann@shop.test"))[-1]

    assert found.apply is not None
    options = " ".join(f"--domain {domain}" for domain in DOMAINS)
    assert f"{options} --expand" in found.apply.text
    for domain in DOMAINS:
        assert f"-checkhost {domain} " in found.check


def test_own_certificate_must_name_every_domain() -> None:
    named = {found.id: found for found in certificate.before_site(APP, Preparation())}["certificate name"]

    assert "shop.test, api.shop.test, www.shop.test" in named.title
    assert all(f"-checkhost {domain} " in named.check for domain in DOMAINS)
