"""Attacks on the Nginx site by the deploy user, another application and local users; migration of earlier hosts."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.host import Host
from lab.load import Load, LoadProfile, Server
from tests.deploy.conftest import DOMAIN, Site, http_request, succeeded, wait_until

HELPER = "/usr/local/lib/memoryark/site"
CONF = "/etc/nginx/conf.d/memoryark.conf"
EARLIER = Path(__file__).with_name("earlier_site.conf")
#: Prints the hash of every file of root except the site.
HASH_ROOT_FILES = (
    "find /etc /usr/local /var/spool/cron /run/rolling-site-* -xdev -type f ! -path /etc/nginx/conf.d/memoryark.conf"
    " 2>/dev/null | sort | xargs -d '\\n' sha256sum"
)


def installed_site(host: Host) -> dict[str, Any]:
    """Return the document from which the installed site was rendered."""
    row = host.sh(f"sed -n 's/^# rolling-data: //p' {CONF}").stdout
    return dict(json.loads(row))


def request(host: Host, **changes: object) -> bytes:
    """Return the request of a deploy for the installed site, with changes."""
    digest = host.sh(f"sed -n 's/^# rolling-site: //p' {CONF}").stdout.strip()
    return json.dumps({"hash": digest, "site": installed_site(host) | changes}).encode()


def upload(host: Host, path: str, data: bytes) -> None:
    """Write a world-readable file in chunks that fit a command line."""
    host.sh(f": > {path}")
    for start in range(0, len(data), 60_000):
        chunk = base64.b64encode(data[start : start + 60_000]).decode()
        host.sh(f"printf %s {chunk} | base64 -d >> {path}")


def call_helper(host: Host, data: bytes, command: str = "install") -> tuple[int, str]:
    """Call the site helper as the deploy user does. Return its exit code and its output."""
    upload(host, "/tmp/request", data)
    done = host.sh(f"sudo -n {HELPER} {command} < /tmp/request", user="deploy", check=False)
    return done.returncode, done.stdout + done.stderr


def hostile_requests(host: Host) -> list[bytes]:
    """Requests that would let Nginx read, write or reach resources of others."""
    sudoers = (
        "# rolling-site: 0123456789abcdef\n# rolling-port: 8080\n\0\n"
        "log_format format 'deploy ALL=(ALL) NOPASSWD: ALL';\naccess_log /etc/sudoers.d/x format;\nserver { }\n"
    )
    site = installed_site(host)
    first = site["services"][0]
    # Examples of each kind: tests/engine/site/test_schema.py has all of them.
    texts = ("/x { access_log /etc/sudoers.d/x; }", "/a;include /etc/shadow", "/_rolling/site")
    bad_routes = [request(host, services=[first | {"routes": [{"prefix": text, "stream": False}]}]) for text in texts]
    names = ("a\0b", "../x")
    bad_names = [request(host, services=[first | {"name": name}], full_chain="") for name in names]
    ports = (22, 402, 9999, "8080")
    bad_ports = [request(host, services=[first | {"blue": port}], full_chain="", health=[]) for port in ports]
    return [
        sudoers.encode(),
        Path(EARLIER).read_bytes(),
        b"",
        b"\0" * 1000,
        b"[" * 200_000,
        b"x" * 300_000,
        request(host)[:-1],
        request(host) + request(host),
        request(host, include="/etc/shadow"),
        request(host, max_upload_bytes="1;}"),
        request(host, max_upload_bytes=10**30),
        json.dumps({"site": site}).encode(),
        json.dumps({"hash": "0123456789abcdef", "site": site | {"max_upload_bytes": 1}}).encode(),
        *bad_routes,
        *bad_names,
        *bad_ports,
    ]


def test_hostile_requests_of_the_deploy_user_change_no_file_of_root(site: Site) -> None:
    host = site.lab.hosts[0]
    before, text = host.sh(HASH_ROOT_FILES).stdout, host.sh(f"cat {CONF}").stdout
    for data in hostile_requests(host):
        code, output = call_helper(host, data)
        assert (code, "Traceback" in output) == (3, False), (data[:200], output)
        assert len(output) < 10_000
    for data in (b"", b"\0", b"x" * 300_000, b"0123456789abcdef\n/etc/shadow"):
        assert call_helper(host, data, "restore")[0] == 3
    for command in ("rules", "check-rules", "refresh", "check", "install install", "-I", "--in-scope install"):
        assert "password is required" in call_helper(host, b"{}", command)[1]
    assert host.sh(HASH_ROOT_FILES).stdout == before
    assert (host.sh(f"cat {CONF}").stdout, site.version(host)) == (text, "v1")


def test_signals_to_the_callers_sudo_leave_a_valid_site(site: Site) -> None:
    """Each attempt is interrupted at another moment, by each signal that the caller may send, also SIGKILL of sudo."""
    host = site.lab.hosts[0]
    requests = [request_with_upload_limit(site, megabytes) for megabytes in (11, 12)]
    for number, name in enumerate(("TERM", "HUP", "INT", "QUIT", "KILL", "KILL")):
        upload(host, "/tmp/request", requests[number % 2])
        attempt = f"""
            setsid sudo -n {HELPER} install < /tmp/request >/dev/null 2>&1 &
            sleep 0.{number * 12:02d}
            pkill -{name} -u root -f '^sudo -n {HELPER}' 2>/dev/null || kill -{name} -- -$! 2>/dev/null || :
            wait
        """
        host.sh(textwrap.dedent(attempt), user="deploy", check=False)
        assert host.sh("nginx -t", check=False).returncode == 0
    assert site.version(host) == "v1"
    succeeded(call_helper(host, requests[0]))
    left = host.sh("ls -A /usr/local/lib/memoryark /etc/nginx/conf.d; ls -d /run/rolling-site-* 2>/dev/null || :")
    assert not {name for name in left.stdout.split() if name.startswith((".", "/run/"))}, left.stdout


def test_site_change_runs_outside_the_callers_cgroup(site: Site) -> None:
    """The caller owns the cgroup of its session and could freeze or kill every process in it."""
    host = site.lab.hosts[0]
    script = f"""
        mkfifo input; sudo -n {HELPER} install <input >/dev/null 2>&1 &
        exec 3>input; rm input
        until found=$(pgrep -u root -f '^/usr/bin/python3 -I {HELPER} --in-scope install'); do sleep 0.05; done
        sed -n 's/^[0-9]*:\\(name=systemd\\)*://p' "/proc/$found/cgroup" | head -n 1
        exec 3>&-
        wait
    """
    group = host.sh(textwrap.dedent(script), user="deploy").stdout.strip()
    assert group.startswith("/system.slice/run-"), group
    assert group.endswith(".scope"), group


def test_site_with_the_longest_names_is_valid(site: Site) -> None:
    from rolling_upgrade import config, rendering

    host = site.lab.hosts[0]
    app = config.load(site.lab.name, root=Path.cwd(), hosts=("web1",)).targets[0].application
    first, *others = app.services
    longest = replace(app, name="a" * 31, services=(replace(first, name="s" * 31), *others), full_chain=None)
    path, log = "/etc/nginx/conf.d/longest.conf", f"/var/log/{longest.name}-requests"
    upload(host, path, rendering.nginx_site(longest).encode())
    try:
        done = host.sh(f"mkdir {log}; nginx -t", check=False)
    finally:
        host.sh(f"rm -r {path} {log}")
    assert done.returncode == 0, done.stderr


def request_with_upload_limit(site: Site, megabytes: int) -> bytes:
    """Return the request of a deploy that changes the upload limit."""
    from rolling_upgrade import config, rendering
    from rolling_upgrade.engine.site import client as commands
    from rolling_upgrade.engine.site.schema import dump_request

    target = config.load(site.lab.name, root=Path.cwd(), hosts=("web1",)).targets[0]
    app = replace(target.application, max_upload_bytes=megabytes * 1024**2)
    return dump_request(commands.request(app, rendering.site_hash(rendering.nginx_site(app)))).encode()


def serve_as(host: Host, user: str, ports: list[int]) -> None:
    """Let a local user answer every request on loopback ports until its processes are killed."""
    program = f"""
        import socket, threading
        def serve(port):
            server = socket.create_server(("127.0.0.1", port))
            while True:
                peer = server.accept()[0]
                data = peer.recv(65536)
                open("/tmp/stolen", "ab").write(data)
                peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 7\\r\\nConnection: close\\r\\n\\r\\nmallory")
                peer.close()
        for port in {ports}:
            threading.Thread(target=serve, args=(port,)).start()
    """
    host.sh(f"id -u {user} >/dev/null 2>&1 || useradd {user}")
    start = f"setsid python3 -c {shlex.quote(textwrap.dedent(program))} >/dev/null 2>&1 </dev/null &"
    host.sh(f"rm -f /tmp/stolen; runuser -u {user} -- sh -c {shlex.quote(start)}")
    listening = lambda: all(f"127.0.0.1:{port} " in host.sh("ss -Hltn").stdout for port in ports)  # noqa: E731
    wait_until(listening, "the listeners of another user")


def ask(host: Host, path: str) -> tuple[int, bytes]:
    """Return the status and the body that a visitor with a session cookie gets."""
    return http_request(host, path, headers={"Cookie": "session=visitor-secret"})


def test_local_user_on_the_idle_ports_gets_no_requests_when_the_active_color_dies(site: Site) -> None:
    host = site.lab.hosts[0]
    running = site.running_containers(host)
    idle = {"blue": {"backend": 28080, "frontend": 27001}, "green": {"backend": 18080, "frontend": 17001}}
    ports = [idle[name.rsplit("-", 1)[1]][name.split("-")[1]] for name in running]
    serve_as(host, "mallory", ports)
    try:
        assert b"mallory" in host.sh(f"curl -s http://127.0.0.1:{ports[0]}/").stdout.encode()
        host.sh("rm -f /tmp/stolen")
        host.sh(f"podman kill {' '.join(running)}; podman stop -t 0 {' '.join(running)}", user="deploy", check=False)
        for path in ("/", "/api/version", "/api/health", "/health"):
            status, body = ask(host, path)
            assert (status, b"mallory" in body) == (502, False), path
        for port in (8080, 7001):
            assert "mallory" not in host.sh(f"curl -s http://127.0.0.1:{port}/").stdout
        assert host.sh("test -e /tmp/stolen", check=False).returncode != 0
    finally:
        host.sh("pkill -u mallory; rm -f /tmp/stolen", check=False)
        host.sh(f"podman start {' '.join(running)}", user="deploy")
        wait_until(lambda: ask(host, "/api/version")[0] == 200, "the application")


@pytest.fixture
def second(site: Site) -> Iterator[Site]:
    """Another application with another deploy user on the first host."""
    other = site.copy(f"{site.lab.name}-notes", user="notes")
    other.edit_env(
        APP_NAME="notes",
        DOMAIN_NAME="notes.lab.test",
        BACKEND_PORT="8090",
        FRONTEND_PORT="7011",
        DATABASE_PATH="/home/notes/data/notes.db",
        DATABASE_BACKUP_PATH="/home/notes/backups",
        UPLOADS_PATH="/home/notes/uploads",
    )
    yield other
    other.run("teardown", "--data", "--confirm", "notes")
    shutil.rmtree(other.directory)


SECURE = {"PROTOCOL": "https", "SSL_CERT_PATH": "/etc/ssl/certs/ark.crt", "SSL_KEY_PATH": "/etc/ssl/private/ark.key"}
API, WWW = "api.lab.test", "www.lab.test"


def curl(host: Host, *words: str, url: str = f"https://{DOMAIN}/") -> str:
    """Send a request as a visitor of the host and return what curl prints. The certificate must name the domain."""
    names = [f"{domain}:{port}:127.0.0.1" for domain in (DOMAIN, API, WWW) for port in (80, 443)]
    resolve = [word for name in names for word in ("--resolve", name)]
    trust = ["--cacert", SECURE["SSL_CERT_PATH"]]
    return host.sh(shlex.join(["curl", "-s", "--max-time", "20", *trust, *resolve, *words, url])).stdout


def status(host: Host, *words: str, url: str) -> str:
    """Return the version of HTTP, the status and the target of a redirect of an answer."""
    form = "%{http_version} %{http_code} %{redirect_url}"
    return curl(host, "-o", "/dev/null", "-w", form, *words, url=url).strip()


def declare_options(site: Site) -> None:
    """Declare a site that uses the options, with TLS."""
    site.edit_environment(setup={"certificate": "self-signed"})
    hashed = site.lab.hosts[0].sh("openssl passwd -6 secret").stdout.strip()
    site.edit_env(**SECURE, ANN_HASH=f"'{hashed}'")
    with site.edited_services() as content:
        content["site"] = {
            "domains": [API],
            "redirects": {WWW: "DOMAIN_NAME"},
            "trusted_proxies": ["127.0.0.2"],
            "hsts": {"max_age": "1h"},
            "gzip": "true",
        }
        backend, frontend = content["services"]
        backend["routes"] = [
            *backend["routes"],
            {"prefix": "/", "domains": [API], "response_headers": {"X-Own": 'it\'s "quoted"; {x}'}},
            {"prefix": "/inner/", "strip_prefix": "true", "basic_auth": {"ann": "ANN_HASH"}, "max_body": "1KB"},
        ]
        frontend["routes"] = [{"prefix": "/", "domains": ["DOMAIN_NAME"]}]
        frontend["assets"] = {"path": "/srv", "prefix": "/assets"}


def test_options_of_the_site_work_on_a_host(site: Site) -> None:
    host = site.lab.hosts[0]
    with site.unchanged_files():
        declare_options(site)
        code, output = site.deploy("v2")
        assert (code, f"does not grant memoryark the domain {API}" in output) == (3, True), output
        assert "run inv setup" in output.lower()
        site.run_ok("setup")
        plan = site.deploy_ok("v2", "--dry-run")
        assert "copy the assets of frontend out of the images" in plan
        site.deploy_ok("v2")
        assert host.sh("nginx -t 2>&1").stdout.count("warn") == 0
        check_options(host)
        site.run_ok("setup.check")
        site.run_ok("maintenance", "on")
        for url in (f"https://{DOMAIN}/", f"https://{API}/anything", f"https://{DOMAIN}/inner/x"):
            assert status(host, url=url) == "2 503", url
        assert status(host, url=f"https://{API}/api/health") == "2 200"
        site.run_ok("maintenance", "off")
        releases = host.sh("ls /var/lib/memoryark/assets/frontend/releases").stdout.split()
        assert len(releases) == 2
    site.run_ok("setup")
    site.deploy_ok("v1")
    assert host.sh("ls /usr/local/lib/memoryark").stdout.count("users-") <= 1


def check_options(host: Host) -> None:
    """Check the answers of the site as visitors get them."""
    version = json.loads(curl(host, url=f"https://{API}/api/version"))["version"]
    assert (status(host, url=f"https://{DOMAIN}/"), version) == ("2 200", "v2")
    for scheme in ("http", "https"):
        assert status(host, url=f"{scheme}://{WWW}/a/b?c=d").endswith(f" 301 https://{DOMAIN}/a/b?c=d")
    assert status(host, url=f"http://{API}/a?b").endswith(f" 301 https://{API}/a?b")
    headers = curl(host, "-D", "-", "-o", "/dev/null", url=f"https://{API}/none").lower()
    assert "strict-transport-security: max-age=3600" in headers
    assert 'x-own: it\'s "quoted"; {x}' in headers
    cookie = "Cookie: a=" + "b" * 16_384
    assert status(host, "-H", cookie, url=f"https://{DOMAIN}/") == "2 200"
    assert status(host, "--http1.1", "-H", cookie, url=f"https://{DOMAIN}/") == "1.1 200"
    inner = f"https://{DOMAIN}/inner/api/version"
    assert status(host, url=inner) == status(host, "-u", "ann:wrong", url=inner) == "2 401"
    assert status(host, "-u", "ann:secret", url=inner) == "2 200"
    assert status(host, "-u", "ann:secret", "-d", "x" * 2000, url=inner) == "2 413"
    assert status(host, url=f"https://{DOMAIN}/_rolling/site") == "2 404"
    # The frontend answers 404 for every file; each is in the image of this release and of the former one.
    assert "class Frontend" in curl(host, url=f"https://{DOMAIN}/assets/frontend.py")
    home = "/var/lib/memoryark/assets/frontend/files"
    host.sh(f"ln -s /etc/passwd {home}/passwd; ln -s /etc {home}/etc; mkfifo {home}/pipe", user="deploy")
    for name in ("passwd", "etc/passwd", "pipe", "none"):
        assert status(host, url=f"https://{DOMAIN}/assets/{name}") in {"2 403", "2 404"}, name
    users = host.sh("ls -l /usr/local/lib/memoryark/users-*").stdout
    assert re.match(r"-rw-r-----[.]? 1 root www-data ", users), users
    assert host.sh("cat /usr/local/lib/memoryark/users-*", user="deploy", check=False).returncode != 0


def arrivals(host: Host) -> Counter[str]:
    """Return how often each slow request arrived, by the logs of both colors."""
    names = "memoryark-backend-blue memoryark-backend-green"
    logs = host.sh(f"for name in {names}; do podman logs $name 2>&1; done", user="deploy").stdout
    return Counter(re.findall(r" slow (\S+ \S+) arrived", logs))


def test_slow_request_reaches_one_color_once_during_a_cutover(site: Site) -> None:
    """Before the service answers, Nginx gives up; without the rule it would send the request to the other color."""
    host = site.lab.hosts[0]
    with site.edited_services() as content:
        routes = content["services"][0]["routes"]
        routes.append({"prefix": "/api/slow", "timeout": "2s"})
    site.deploy_ok("v1")
    sent: dict[str, int] = {}
    over = threading.Event()

    def visit(method: str) -> None:
        number = 0
        while not over.is_set():
            number += 1
            path = f"/api/slow?seconds=4&number={number}"
            sent[f"{method} {path}"] = http_request(host, path, method)[0]

    visitors = [threading.Thread(target=visit, args=(method,)) for method in ("GET", "POST") for _ in range(1)]
    for visitor in visitors:
        visitor.start()
    try:
        wait_until(lambda: len(sent) >= 2, "slow requests")
        site.deploy_ok("v2")
        before = len(sent)
        wait_until(lambda: len(sent) > before + 1, "slow requests after the cutover")
    finally:
        over.set()
        for visitor in visitors:
            visitor.join()
    assert set(sent.values()) <= {502, 504}, sent
    assert arrivals(host) == Counter(dict.fromkeys(sent, 1))


@pytest.mark.extended
def test_request_longer_than_a_minute_is_answered_with_a_timeout_of_its_route(site: Site) -> None:
    host = site.lab.hosts[0]
    with site.edited_services() as content:
        content["services"][0]["routes"].append({"prefix": "/api/slow", "timeout": "80s"})
    site.deploy_ok("v1")

    answer = host.sh(f"curl -s -m 90 -H 'Host: {DOMAIN}' 'http://127.0.0.1/api/slow?seconds=65'", timeout=120).stdout

    assert json.loads(answer)["slept"] == 65.0


def test_second_application_cannot_claim_names_or_ports_of_the_first(site: Site, second: Site) -> None:
    host = site.lab.hosts[0]
    for values, claimed in (
        ({"BACKEND_PORT": "18080"}, "18080"),
        ({"DOMAIN_NAME": DOMAIN}, f"the domain {DOMAIN}"),
    ):
        before = second.env_file.read_text()
        second.edit_env(**values)
        code, output = second.run("setup")
        assert (code != 0, claimed in output, "memoryark" in output) == (True, True, True), output
        second.env_file.write_text(before)
        assert site.versions() == ["v1"]
    second.run_ok("setup")
    helper = HELPER.replace("memoryark", "notes")
    upload(host, "/tmp/request", request(host))
    taken = host.sh(f"runuser -u notes -- sudo -n {helper} install < /tmp/request", check=False)
    assert (taken.returncode, "do not belong to notes" in taken.stdout) == (3, True)
    assert "password is required" in host.sh(f"runuser -u notes -- sudo -n {HELPER} install", check=False).stderr
    site.run_ok("status")
    assert site.versions() == ["v1"]


def test_host_of_an_earlier_version_is_migrated_under_load(site: Site) -> None:
    """No request fails. Each uses a new connection, because every reload of Nginx closes idle ones."""
    host = site.lab.hosts[0]
    upload(host, CONF, EARLIER.read_bytes())
    host.sh(
        f"""
        printf '#!/bin/sh\\n# rolling-site\\nexit 2\\n' > {HELPER}
        rm -f /usr/local/lib/memoryark/rules.json /usr/local/lib/memoryark/site.previous
        echo 'listen 80' > /usr/local/lib/memoryark/rules
        nginx -t && systemctl reload nginx
        """
    )
    code, output = site.deploy("v2", "--hosts", host.name)
    assert (code, "run inv setup" in output.lower()) == (3, True), output
    load = Load((Server(host.name, host.address, 80),), DOMAIN, LoadProfile(keep_alive=False)).start()
    wait_until(lambda: load.progress.requests > 100, "the load")
    site.run_ok("setup", "--hosts", host.name)
    deployed = site.deploy("v2", "--hosts", host.name)
    result = load.stop()
    assert deployed[0] == 0, deployed[1]
    assert ([str(record) for record in result.failures], result.lost) == ([], ())
    assert len(result.records) > 500
    assert installed_site(host)["services"][0]["name"] == "backend"
    assert {"rules.json", "site.previous"} < {*host.sh("ls /usr/local/lib/memoryark").stdout.split()} - {"rules"}
    site.run_ok("setup.check", "--hosts", host.name)
