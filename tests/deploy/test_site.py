"""Attacks on the Nginx site by the deploy user, another application and local users; migration of earlier hosts."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import textwrap
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
