"""A certificate whose intermediates are in a separate file: clients that know only the root accept the site."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from lab.host import Host
from tests.deploy.conftest import DOMAIN, Site, wait_until
from tests.support.certificate import Issued

CERTIFICATE, KEY, CHAIN = "/etc/ssl/shop/site.pem", "/etc/ssl/shop/site.key", "/etc/ssl/shop/chain.pem"
SETTINGS = {"PROTOCOL": "https", "SSL_CERT_PATH": CERTIFICATE, "SSL_KEY_PATH": KEY, "SSL_CHAIN_PATH": CHAIN}
UNIT = "memoryark-certificate"


def put(host: Host, **texts: str) -> None:
    """Replace files of the certificate on the host, one after the other, as a renewal does."""
    for name, text in texts.items():
        path = {"certificate": CERTIFICATE, "key": KEY, "chain": CHAIN}[name]
        host.sh(f"mkdir -p /etc/ssl/shop; cat > {path}.new <<'PEM'\n{text}PEM\nmv {path}.new {path}")


def serial(host: Host, root: Path) -> int:
    """Return the serial number of the certificate that a client with this root accepts; 0 if it refuses the site."""
    context = ssl.create_default_context(cafile=str(root))
    try:
        with (
            socket.create_connection((host.address, 443), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=DOMAIN) as secure,
        ):
            return int(str((secure.getpeercert() or {})["serialNumber"]), 16)
    except (OSError, ssl.SSLError):
        return 0


def test_intermediates_reach_clients_and_follow_a_renewal(site: Site, tmp_path: Path) -> None:
    host, root = site.lab.hosts[0], Issued.root()
    upper = root.issue("Upper")
    lower = upper.issue("Lower")
    leaf, renewed = (lower.issue(DOMAIN, authority=False) for _ in range(2))
    (tmp_path / "root.pem").write_text(root.pem)
    put(host, certificate=leaf.pem, key=leaf.private, chain=Issued.root("Elsewhere").pem)

    site.edit_env(**SETTINGS)
    code, output = site.run("setup")
    assert (code, "nothing was touched" in output) == (3, True), output
    assert f"an intermediate certificate that signed the certificate ({CHAIN})" in output

    # Wrong order, and with the root.
    put(host, chain=root.pem + upper.pem + lower.pem)
    with site.setup_with(host):
        assert serial(host, tmp_path / "root.pem") == leaf.certificate.serial_number
        connect = f"-connect 127.0.0.1:443 -servername {DOMAIN}"
        shown = host.sh(f"openssl s_client {connect} -showcerts </dev/null 2>/dev/null | grep -c 'BEGIN CERT'")
        assert shown.stdout.strip() == "3"

        put(host, certificate=renewed.pem, key=renewed.private)
        wait_until(
            lambda: serial(host, tmp_path / "root.pem") == renewed.certificate.serial_number, "the renewed certificate"
        )
        code, output = site.run("setup")
        assert (code, "Nothing to do" in output) == (0, True), output
        assert "Nginx serves another certificate" not in site.run("doctor")[1]
        site.edit_env(PROTOCOL="http")
        site.run_ok("setup", "--hosts", host.name)
        assert not host.sh(f"ls /etc/systemd/system | grep {UNIT}", check=False).stdout
