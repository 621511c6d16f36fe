"""Checks of an application that answers only its own domain, over https: they ask what a visitor asks."""

from __future__ import annotations

from tests.deploy.conftest import DOMAIN, Site


def test_strict_application_passes_its_gate_as_a_visitor_behind_the_proxy(site: Site) -> None:
    """The lab's site is plain: without `scheme`, the application redirects a check as it would redirect a visitor."""
    site.edit_env(HEALTH_CHECK_START_PERIOD="0s", HEALTH_CHECK_RETRIES="1")
    with site.edited_services() as content:
        backend, frontend = content["services"]
        backend["env"] += [{"ALLOWED_HOST": {"value": DOMAIN}}, {"SSL_REDIRECT": {"value": "true"}}]

    code, output = site.deploy("v2")

    assert (code, site.versions()) == (1, ["v1"]), output
    redirect = f"(last: HTTP 301 from /api/health, a redirect to https://{DOMAIN}/api/health)"
    sent = f"asked again: GET http://127.0.0.1:28080/api/health with Host: {DOMAIN}, X-Forwarded-Proto: http"
    assert [text for text in (redirect, sent, "HTTP 301, body: empty") if text not in output] == [], output

    with site.edited_services() as content:
        backend, frontend = content["services"]
        backend["health"] = {"path": "/api/health", "scheme": "https"}
        frontend["health"] = {"path": "/health", "scheme": "https"}
    site.deploy_ok("v2")
    health = site.run_ok("health", "--once", "--verbose")
    status = site.run_ok("status")
    assert "FAILED" not in health + status, health + status
