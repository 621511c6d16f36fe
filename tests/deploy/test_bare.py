"""From a host with nothing but root and sshd to one that serves: setup cut off, repeated, deployed to, hardened."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lab import laboratory
from lab.host import Host
from tests.deploy.conftest import Site, make_quick, wait_until

pytestmark = pytest.mark.xdist_group("bare")

EVERYTHING = {
    "firewall": "nftables",
    "certificate": "self-signed",
    "sysctl": {"net.core.somaxconn": "8192", "fs.file-max": "100000"},
    "security_updates": "true",
    "rotate_logs_days": "14",
    "watchdog": "true",
}
SECURE = {"PROTOCOL": "https", "SSL_CERT_PATH": "/etc/ssl/certs/ark.crt", "SSL_KEY_PATH": "/etc/ssl/private/ark.key"}


@pytest.fixture(scope="module", params=["trixie-bare", "bookworm-bare"])
def bare(request: pytest.FixtureRequest, worker_id: str) -> Iterator[Site]:
    """One host that nobody has prepared."""
    name = f"{request.param}-{worker_id}"
    laboratory.down(name)
    site = Site(laboratory.up(1, request.param, name))
    make_quick(site)
    folder = site.folder / "deploy" / "authorized_keys" / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(site.folder / "id_ed25519.pub", folder / "ann.pub")
    yield site
    laboratory.down(name)


@pytest.fixture
def host(bare: Site) -> Host:
    """The one host."""
    return bare.lab.hosts[0]


def change(site: Site, **setup: object) -> None:
    """Set the environment's `setup` in hosts.yaml."""
    path = site.folder / "hosts.yaml"
    content = yaml.safe_load(path.read_text())
    content["environments"][site.lab.name]["setup"] = setup
    path.write_text(yaml.safe_dump(content))


def prepared(site: Site) -> None:
    """Whatever an earlier test left: the host is as the settings say."""
    code, output = site.run("setup")
    assert code == 0, output


def test_bare_host_is_cut_off_in_the_middle_of_setup_and_ready_after_the_same_command(bare: Site, host: Host) -> None:
    bare.lab.reset_host(host.name)
    bare.edit_env(PROTOCOL="http")
    change(bare)
    assert host.sh("command -v podman nginx curl sudo || id deploy", check=False).returncode != 0
    process = bare.start("setup")
    unpacking = "ls /var/lib/dpkg/info/nginx*.list /var/lib/dpkg/info/podman*.list"
    wait_until(lambda: host.sh(unpacking, check=False).returncode == 0, "packages that are being installed", 300)
    host.power_cut()
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0, output
    code, output = bare.run("setup")
    assert code == 0, output
    code, output = bare.run("setup")
    assert (code, "Nothing to do" in output) == (0, True), output
    code, output = bare.run("setup.check")
    assert code == 0, output
    assert bare.deploy("v1")[0] == 0
    code, output = bare.deploy("v2")
    assert (code, bare.versions()) == (0, ["v2"]), output
    assert "overlay" in host.sh("podman info --format '{{.Store.GraphDriverName}}'", user="deploy").stdout
    host.reboot()
    wait_until(lambda: bare.run("status")[0] == 0, "the application after a reboot", 90)
    assert bare.versions() == ["v2"]
    code, output = bare.run("setup.check")
    assert code == 0, output


def test_bare_host_deploy_user_may_run_two_command_lines_as_root_and_no_other(bare: Site, host: Host) -> None:
    prepared(bare)
    helper = "/usr/local/lib/memoryark/site"
    rules = host.sh("sudo -n -l", user="deploy").stdout.rpartition("may run the following commands")[2]
    assert [line.split(")", 1)[1].strip() for line in rules.splitlines() if "(root)" in line] == [
        f"NOPASSWD: {helper} install, {helper} restore"
    ]
    refused = (
        *("id", "nginx -t", "nginx -s reload", "systemctl reload nginx", "sh -c id", f"sh {helper} install"),
        *(
            helper,
            f"{helper} install now",
            f"{helper} Install",
            f"{helper}/../site install",
            f"-u deploy {helper} install",
        ),
        *("visudo -c", "cat /etc/shadow", f"tee {helper}", "podman ps", "nft list ruleset"),
    )
    for line in refused:
        done = host.sh(f"sudo -n {line} </dev/null", user="deploy", check=False)
        assert (done.returncode, "password is required" in done.stderr or "not allowed" in done.stderr) == (1, True), (
            line
        )
    assert host.sh(f"test -w {helper} || test -w /etc/nginx/conf.d", user="deploy", check=False).returncode != 0
    assert host.sh("visudo -c").returncode == 0


def test_bare_host_takes_no_password_of_the_deploy_user(bare: Site, host: Host) -> None:
    prepared(bare)
    said = host.sh("sshd -T -C user=deploy,host=x,addr=192.0.2.1").stdout
    assert {"passwordauthentication no", "kbdinteractiveauthentication no", "exposeauthinfo yes"} <= {
        *said.splitlines()
    }


def test_bare_host_with_every_setting_is_closed_but_for_ssh_and_the_site(bare: Site, host: Host) -> None:
    change(bare, **EVERYTHING)
    bare.edit_env(AUTO_BACKUP_ENABLED="true", **SECURE)
    code, output = bare.run("setup")
    assert code == 0, output
    code, output = bare.run("setup")
    assert (code, "Nothing to do" in output) == (0, True), output
    code, output = bare.deploy("v1")
    assert code == 0, output
    address = host.address
    listener = (
        "nohup python3 -c 'import socket,time; s=socket.create_server((\"\", 9999)); time.sleep(600)' >/dev/null 2>&1 &"
    )
    host.sh(listener)
    wait_until(lambda: "9999" in host.sh("ss -Hltn").stdout, "a listener on every address")
    assert (reaches(address, 9999), reaches(address, 22), reaches(address, 443)) == (False, True, True)
    host.reboot()
    wait_until(lambda: bare.run("status")[0] == 0, "the application after a reboot", 90)
    host.sh(listener)
    wait_until(lambda: "9999" in host.sh("ss -Hltn").stdout, "a listener on every address")
    assert not reaches(address, 9999)
    assert bare.run("monitor.status")[0] == 0
    assert host.sh("cat /proc/sys/net/core/somaxconn").stdout.strip() == "8192"
    assert int(host.sh("cat /proc/sys/fs/file-max").stdout) > 100_000
    assert bare.run("setup.check")[0] == 0
    host.sh("systemctl stop rolling-firewall; rm /etc/apt/apt.conf.d/20auto-upgrades")
    host.sh("chmod 777 /usr/local/lib/memoryark/boot")
    code, output = bare.run("setup.check")
    assert (code, [word in output for word in ("nftables", "security updates", "at boot")]) == (1, [True] * 3), output
    assert reaches(address, 9999)
    prepared(bare)
    assert not reaches(address, 9999)


def test_bare_host_rotates_its_logs_whoever_wrote_them(bare: Site, host: Host) -> None:
    change(bare, rotate_logs_days=14)
    prepared(bare)
    host.sh("podman unshare sh -c 'seq 1000 > logs/app.log; chown 33:33 logs/app.log'", user="deploy")
    yesterday = "sed -i 's|app.log\" .*|app.log\" 2020-1-1-0:0:0|' /var/lib/memoryark/logs.state"
    run = "systemctl --user start memoryark-logs.service"
    host.sh(f"{run}; {yesterday}; {run}", user="deploy")
    assert host.sh("wc -c < logs/app.log; head -n 1 logs/app.log.1", user="deploy").stdout.split() == ["0", "1"]
    assert "memoryark-logs.timer" in host.sh("systemctl --user list-timers", user="deploy").stdout


def pair(host: Host, *, name: str = "app.lab.test", days: int = 90, matching: bool = True) -> None:
    """Put a certificate and a key on the host, as a person would; `days` is what it has left."""
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=365))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )
    form = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    secret = (key if matching else other).private_bytes(*form)
    for path, content in (("/etc/ssl/certs/ark.crt", made), ("/etc/ssl/private/ark.key", secret)):
        host.sh(f"mkdir -p {path.rpartition('/')[0]}; cat > {path} <<'PEM'\n{content.decode()}PEM")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (None, "the certificate and its key"),
        ({"matching": False}, "the key of the certificate"),
        ({"name": "other.test"}, "a certificate for app.lab.test"),
        ({"days": -1}, "a certificate in its time"),
    ],
    ids=["absent", "another key", "another name", "expired"],
)
def test_bare_host_with_a_certificate_that_cannot_be_is_refused(
    bare: Site, host: Host, broken: dict[str, Any] | None, said: str
) -> None:
    prepared(bare)
    bare.edit_env(**SECURE)
    change(bare)
    if broken is None:
        host.sh("rm -f /etc/ssl/certs/ark.crt")
    else:
        pair(host, **broken)
    code, output = bare.run("setup")
    assert (code, said in output, "nothing was touched" in output) == (3, True, True), output
    pair(host)
    assert bare.run("setup.check")[0] == 0


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


def issuer(host: Host) -> tuple[str, int]:
    """Who signed the certificate that visitors get, and its serial number."""
    served = x509.load_pem_x509_certificate(ssl.get_server_certificate((host.address, 443)).encode())
    return served.issuer.rfc4514_string(), served.serial_number


def test_bare_host_gets_a_certificate_of_an_authority_and_renews_it(bare: Site, host: Host) -> None:
    bare.edit_env(**SECURE)
    change(bare, certificate="acme", acme_email="ann@lab.test", acme_server="https://localhost:14000/dir")
    host.sh(PEBBLE, timeout=300)
    prepared(bare)
    assert bare.deploy("v1")[0] == 0
    prepared(bare)
    signed, serial = issuer(host)
    assert "Pebble" in signed
    code, output = bare.run("setup")
    assert (code, "Nothing to do" in output) == (0, True), output
    host.sh("certbot renew --quiet --force-renewal --no-random-sleep-on-renew", timeout=120)
    wait_until(lambda: issuer(host)[1] != serial, "the renewed certificate")
    assert "Pebble" in issuer(host)[0]
    assert host.sh("systemctl is-enabled certbot.timer").stdout.strip() == "enabled"
    assert bare.run("setup.check")[0] == 0


def test_bare_host_of_another_distribution_is_refused_with_what_to_prepare(bare: Site, host: Host) -> None:
    prepared(bare)
    host.sh("mv /usr/bin/apt-get /usr/bin/jq /root/")
    try:
        code, output = bare.run("setup")
    finally:
        host.sh("mv /root/apt-get /root/jq /usr/bin/")
    assert (code, "this is no Debian or Ubuntu: install what brings podman" in output) == (3, True), output
    assert "nothing was touched" in output


def test_bare_host_teardown_asks_by_name_and_leaves_the_data(bare: Site, host: Host) -> None:
    change(bare, **EVERYTHING)
    bare.edit_env(AUTO_BACKUP_ENABLED="true", **SECURE)
    prepared(bare)
    code, output = bare.run("teardown")
    assert (code, "--confirm memoryark" in output) == (2, True), output
    code, output = bare.run("teardown", "--confirm", "another")
    assert (code, "nothing was touched" in output) == (130, True), output
    code, output = bare.run("teardown", "--confirm", "memoryark")
    assert code == 0, output
    kept = ("/home/deploy/data/*", "/home/deploy/backups/*", "/proc/*", "*/containers/*")
    left = "find / -xdev -iname '*memoryark*' " + " ".join(f"-not -path '{path}'" for path in kept)
    assert host.sh(left).stdout == ""
    assert host.sh("nft list tables").stdout.count("rolling") == 0
    assert host.sh("test -d /home/deploy/data && podman ps -aq", user="deploy").stdout == ""
    code, output = bare.run("teardown", "--confirm", "memoryark")
    assert (code, "Nothing to do" in output) == (0, True), output
    prepared(bare)
    code, output = bare.deploy("v1")
    assert code == 0, output
    code, output = bare.run("teardown", "--confirm", "memoryark", "--data")
    assert (code, host.sh("test -e /home/deploy/data", check=False).returncode) == (0, 1), output


def reaches(address: str, port: int) -> bool:
    """Whether a connection opens from here."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True
