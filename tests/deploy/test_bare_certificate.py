"""Certificates of a bare host: unusable files are refused; a certificate of an authority is issued and renewed."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lab.host import Host
from tests.deploy.bare_host import SECURE, bare_host, edit_setup, host, run_setup
from tests.deploy.conftest import Site, wait_until

__all__ = ["host"]


@pytest.fixture(scope="module")
def bare(worker_id: str) -> Iterator[Site]:
    """One host with the packages of setup, on which setup never ran."""
    yield from bare_host("trixie", f"certificate-{worker_id}")


def install_certificate(host: Host, *, name: str = "app.lab.test", days: int = 90, matching: bool = True) -> None:
    """Put a certificate that expires in so many days, and a key, on the host."""
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=365))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )
    encoding = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    secret = (key if matching else other).private_bytes(*encoding)
    for path, content in (("/etc/ssl/certs/ark.crt", certificate), ("/etc/ssl/private/ark.key", secret)):
        host.sh(f"mkdir -p {path.rpartition('/')[0]}; cat > {path} <<'PEM'\n{content.decode()}PEM")


def test_certificate_without_its_requirements_is_refused(bare: Site, host: Host) -> None:
    install_certificate(host)
    bare.edit_env(**SECURE)
    edit_setup(bare)
    run_setup(bare)
    broken: tuple[tuple[dict[str, Any], str], ...] = (
        ({"matching": False}, "the key of the certificate"),
        ({"name": "other.test"}, "a certificate for app.lab.test"),
        ({"days": -1}, "a certificate that has not expired"),
        ({}, "the certificate and its key"),
    )
    for properties, message in broken:
        if properties:
            install_certificate(host, **properties)
        else:
            host.sh("rm -f /etc/ssl/certs/ark.crt")
        code, output = bare.run("setup")
        assert (code, message in output, "nothing was touched" in output) == (3, True, True), output
    install_certificate(host)
    run_setup(bare)


PEBBLE = """
DEBIAN_FRONTEND=noninteractive apt-get -qq update && apt-get -qq -y --no-install-recommends install pebble </dev/null
mkdir -p /root/pebble && cd /root/pebble
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost \\
  -keyout key.pem -out cert.pem 2>/dev/null
cp cert.pem /usr/local/share/ca-certificates/authority.crt && update-ca-certificates >/dev/null 2>&1
cat > config.json <<'JSON'
{"pebble": {"listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
 "certificate": "/root/pebble/cert.pem", "privateKey": "/root/pebble/key.pem", "httpPort": 80, "tlsPort": 443,
 "ocspResponderURL": "", "externalAccountBindingRequired": false}}
JSON
grep -q app.lab.test /etc/hosts || echo '127.0.0.1 app.lab.test' >> /etc/hosts
systemd-run --quiet --unit pebble --setenv PEBBLE_VA_NOSLEEP=1 --setenv PEBBLE_WFE_NONCEREJECT=0 \\
  pebble -config /root/pebble/config.json
"""


def test_certificate_over_an_unprivileged_port_is_refused(bare: Site, host: Host) -> None:
    run_setup(bare)
    bare.edit_env(**SECURE)
    edit_setup(bare, certificate="acme", acme_email="ann@lab.test", acme_server="https://localhost:14000/dir")
    lowest = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    before = host.sh(f"cat {lowest}; echo 402 >{lowest}").stdout.strip()
    try:
        code, output = bare.run("setup")
    finally:
        host.sh(f"echo {before} >{lowest}")
    assert (code, "users may open ports from" in output, "nothing was touched" in output) == (3, True, True), output


def issuer(host: Host) -> tuple[str, int]:
    """Return the issuer and the serial number of the certificate that Nginx serves."""
    served = x509.load_pem_x509_certificate(ssl.get_server_certificate((host.address, 443)).encode())
    return served.issuer.rfc4514_string(), served.serial_number


def test_certificate_of_an_authority_is_issued_and_renewed_until_teardown(bare: Site, host: Host) -> None:
    bare.edit_env(**SECURE)
    edit_setup(bare, certificate="acme", acme_email="ann@lab.test", acme_server="https://localhost:14000/dir")
    host.sh(PEBBLE, timeout=300)
    run_setup(bare)
    bare.deploy_ok("v1")
    signed, serial = issuer(host)
    assert "Pebble" in signed
    code, output = bare.run("setup")
    assert (code, "Nothing to do" in output) == (0, True), output
    host.sh("certbot renew --quiet --force-renewal --no-random-sleep-on-renew", timeout=120)
    wait_until(lambda: issuer(host)[1] != serial, "the renewed certificate")
    assert "Pebble" in issuer(host)[0]
    assert host.sh("systemctl is-enabled certbot.timer").stdout.strip() == "enabled"
    bare.run_ok("setup.check")
    code, output = bare.run("teardown", "--confirm", "memoryark")
    assert (code, host.sh("find /etc/letsencrypt -iname '*memoryark*'").stdout) == (0, ""), output
