"""Images that the workstation pushes to hosts, and images that hosts pull from a registry with a login."""

from __future__ import annotations

import base64
import json
import random
import socket
import socketserver
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import pytest

from lab.host import Host
from lab.images import write_layout
from tests.deploy.conftest import PROJECT, Site, fingerprint, wait_until
from tests.deploy.login_registry import PASSWORD, PORT, start_login_registry, stop_login_registry

MEGABYTE = 1_000_000
LOGIN_REGISTRY = f"registry:{PORT}"
TRUST = "/etc/containers/registries.conf.d/login.conf"
AUTH = "/home/deploy/.config/containers/auth.json"
ASK = f"curl -s -o /dev/null -w '%{{http_code}}' http://{LOGIN_REGISTRY}/v2/"
ASK_AS_DEPLOY = f"skopeo inspect --no-tags docker://{LOGIN_REGISTRY}/memoryark/backend:v1"


def noise(size: int, seed: int) -> bytes:
    """Return incompressible bytes."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - no secret


class Relay(socketserver.ThreadingTCPServer):
    """A relay to a host's sshd that forwards `limit` bytes towards it and then stalls until it is cut.

    Connections after the cut are not limited.
    """

    def __init__(self, host: Host, limit: int) -> None:
        super().__init__(("127.0.0.1", 0), RelayedConnection)
        self.host, self.left, self.cut = host, limit, Event()
        self._serving = Thread(target=self.serve_forever)

    def __enter__(self) -> Relay:
        self._serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut.set()
        self.shutdown()
        self._serving.join()
        self.server_close()

    def route(self, site: Site) -> None:
        """Make the site reach the host through the relay."""
        port = self.server_address[1]
        known = site.directory / "known_hosts"
        keys = [line.split(" ", 1)[1] for line in known.read_text().splitlines() if line.startswith(self.host.address)]
        known.write_text(known.read_text() + "".join(f"[127.0.0.1]:{port} {key}\n" for key in keys))
        site.edit_hosts(**{self.host.name: {"address": "127.0.0.1", "port": port}})


class RelayedConnection(socketserver.BaseRequestHandler):
    """One connection through the relay."""

    server: Relay

    def handle(self) -> None:
        with socket.create_connection((self.server.host.address, 22)) as target:
            back = Thread(target=forward, args=(target, self.request))
            back.start()
            forward(self.request, target, self._may_pass)
            for end in (self.request, target):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join()

    def _may_pass(self, data: bytes) -> bool:
        if self.server.cut.is_set():
            return True
        self.server.left -= len(data)
        return self.server.left > 0 or not self.server.cut.wait(90)


def forward(source: socket.socket, target: socket.socket, may_pass: Callable[[bytes], bool] = bool) -> None:
    """Forward bytes until one end is closed or `may_pass` returns False."""
    with suppress(OSError):
        while (data := source.recv(65536)) and may_pass(data):
            target.sendall(data)


@dataclass(frozen=True)
class Built:
    """Images of both services as a CI build writes them: the options of a deploy, and the backend's id."""

    options: tuple[str, ...]
    id: str
    backend: Path


def build(site: Site, directory: Path, tag: str, extra: dict[str, bytes]) -> Built:
    """Write the backend with a layer for each extra file, and the unchanged frontend."""
    machine = site.lab.machine
    id = write_layout(directory / "backend", machine, "backend", tag, extra)
    write_layout(directory / "frontend", machine, "frontend", tag, {})
    images = [f"--image={name}={directory / name}" for name in ("backend", "frontend")]
    return Built(("--transfer", "push", *images), id, directory / "backend")


def sent_bytes(output: str) -> dict[str, int]:
    """Return the number of bytes sent to each host, from the JSON output of a run."""
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {
        event["host"]: event.get("sent", 0)
        for event in events
        if event["type"] == "event" and event["step"] == "push" and event["phase"] == "note"
    }


def ids(host: Host) -> set[str]:
    """Return the ids of the running containers' images."""
    listed = host.sh("podman ps --quiet | xargs podman container inspect --format '{{.Image}}'", user="deploy")
    return {f"sha256:{line}" for line in listed.stdout.split()}


def test_push_without_a_registry_sends_missing_layers_and_keeps_the_id(site: Site, tmp_path: Path) -> None:
    built = build(site, tmp_path, "v2", {"extra": noise(3 * MEGABYTE, 1)})
    site.lab.registry.stop()
    try:
        output = site.deploy_ok("v2", *built.options, "--json")
        assert site.versions() == ["v2"]
        # Layers that the host pulled from the registry, under other digests, are not sent again.
        sent = sent_bytes(output)
        assert sorted(sent) == ["web1"]
        assert all(3 * MEGABYTE <= size < 3.1 * MEGABYTE for size in sent.values()), sent
        assert all(built.id in ids(host) for host in site.lab.hosts)

        code, output = site.deploy("v2", *built.options, "--json", "--force", "--hosts", "web1")
        assert (code, sent_bytes(output)) == (0, {"web1": 0}), output
    finally:
        site.lab.registry.start()
    for host in site.lab.hosts:
        assert "images" not in host.sh("ls /var/lib/memoryark/journal/*").stdout.split()


def test_push_after_a_dropped_connection_sends_only_the_rest(site: Site, tmp_path: Path) -> None:
    first, second = noise(2 * MEGABYTE, 2), noise(8 * MEGABYTE, 3)
    built = build(site, tmp_path, "v2", {"first": first, "second": second})
    host = site.lab.host("web1")
    configuration = built.backend / "blobs" / "sha256" / built.id.removeprefix("sha256:")
    layer = json.loads(configuration.read_text())["rootfs"]["diff_ids"][-2]
    words = ("deploy", "--tag", "v2", *built.options, "--hosts", "web1", "--json")
    layers = "/home/deploy/.local/share/containers/storage/overlay-layers/layers.json"

    with Relay(host, 5 * MEGABYTE) as relay:
        relay.route(site)
        process = site.start(*words)
        try:
            wait_until(lambda: relay.left <= 0, "a stalled relay")
            wait_until(lambda: host.sh(f"grep -q {layer} {layers}", check=False).returncode == 0, "the first layer")
        finally:
            relay.cut.set()
            output, _ = process.communicate(timeout=90)
        assert (process.returncode, site.version(host)) == (1, "v1"), output
        code, output = site.run(*words)

    assert code == 0, output
    assert 8 * MEGABYTE <= sent_bytes(output)["web1"] < 9 * MEGABYTE
    assert site.version(host) == "v2"


@pytest.mark.extended
@pytest.mark.hosts(2)
def test_push_invalid_input_is_refused_without_changes(site: Site, tmp_path: Path) -> None:
    built = build(site, tmp_path, "v2", {"extra": noise(MEGABYTE, 4)})
    before = [fingerprint(host) for host in site.lab.hosts]
    largest = max((built.backend / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)

    for words, expected, message in (
        (built.options, 3, "is damaged"),
        (("--transfer", "push"), 3, "is not on this workstation"),
        (("--transfer", "push", "--image=worker=/tmp"), 2, "a service of: backend, frontend"),
        (("--transfer", "push", "--image=backend=/nowhere"), 2, "no such file"),
        (("--transfer", "push", "--image=backend"), 2, "SERVICE=PATH"),
        (("--image=backend=/tmp",), 2, "--transfer push beside it"),
        (("--transfer", "carry"), 2, "pull or push"),
    ):
        code, output = site.deploy("v2", *words)
        assert (code, message in output) == (expected, True), output

    assert [fingerprint(host) for host in site.lab.hosts] == before


@pytest.mark.hosts(2)
def test_push_host_that_forbids_forwarding_is_refused_without_changes(site: Site, tmp_path: Path) -> None:
    built = build(site, tmp_path, "v2", {})
    host = site.lab.host("web2")
    rule = "/etc/ssh/sshd_config.d/00-no-forwarding.conf"
    host.sh(f"echo 'AllowTcpForwarding local' >{rule}; systemctl reload ssh")
    try:
        before = fingerprint(host)
        code, output = site.deploy("v2", *built.options)
        assert (code, "refuses to forward a port" in output) == (3, True), output
        assert fingerprint(host) == before
    finally:
        host.sh(f"rm {rule}; systemctl reload ssh")


@pytest.fixture
def login_site(site: Site) -> Iterator[Site]:
    """The site with its images in a second registry that requires a login."""
    registry = site.lab.registry.host
    start_login_registry(registry)
    for host in site.lab.hosts:
        host.sh(f"printf '[[registry]]\\nlocation = \"{LOGIN_REGISTRY}\"\\ninsecure = true\\n' >{TRUST}")
    wait_until(lambda: "401" in site.lab.hosts[0].sh(ASK, check=False).stdout, "the registry")
    images = {f"{name.upper()}_IMAGE": f"{LOGIN_REGISTRY}/memoryark/{name}:v1" for name in ("backend", "frontend")}
    site.edit_env(**images)
    yield site
    stop_login_registry(registry)
    for host in site.lab.hosts:
        host.sh(f"rm -f {TRUST} {AUTH}; rmdir --ignore-fail-on-non-empty {AUTH.rpartition('/')[0]} 2>/dev/null || :")


def typed(site: Site, line: str, *words: str) -> tuple[int, str]:
    """Run a task with a line on its standard input. Return its exit code and its output."""
    command = [sys.executable, "-m", "invoke", words[0], "--env", site.lab.name, *words[1:]]
    done = subprocess.run(
        command, cwd=PROJECT, input=line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.extended
@pytest.mark.hosts(2)
def test_login_wrong_password_is_refused_without_changes(login_site: Site) -> None:
    before = [fingerprint(host) for host in login_site.lab.hosts]
    login_site.edit_env(REGISTRY=LOGIN_REGISTRY, REGISTRY_USERNAME="robot", REGISTRY_PASSWORD=f"not-{PASSWORD}")

    code, output = login_site.deploy("v2")
    assert (code, "a registry login was refused; nothing was touched" in output) == (3, True), output
    assert PASSWORD not in output

    code, output = typed(login_site, "not-it\n", "registry.login", "--registry", LOGIN_REGISTRY, "--username", "robot")
    assert (code, "web1: " in output, "web2: " in output) == (3, True, True), output
    assert [fingerprint(host) for host in login_site.lab.hosts] == before


def test_login_of_the_env_file_is_used_by_the_deploy_and_its_password_stays_in_one_file(login_site: Site) -> None:
    login_site.edit_env(REGISTRY=LOGIN_REGISTRY, REGISTRY_USERNAME="robot", REGISTRY_PASSWORD=PASSWORD)

    code, output = login_site.deploy("v2")

    assert code == 0, output
    assert login_site.versions() == ["v2"]
    assert PASSWORD not in output
    encoded = base64.b64encode(f"robot:{PASSWORD}".encode()).decode()
    for host in login_site.lab.hosts:
        assert host.sh(f"stat -c '%U %a' {AUTH}").stdout.strip() == "deploy 600"
        leaks = host.sh(f"grep -rlsF -e {PASSWORD} -e {encoded} /home/deploy /var/lib/memoryark /tmp /etc || :")
        assert leaks.stdout.split() == [AUTH]
        assert host.sh(f"journalctl --no-pager | grep -cF -e {PASSWORD} -e {encoded} || :").stdout.strip() == "0"


@pytest.mark.hosts(2)
def test_login_with_a_typed_password_and_logout(login_site: Site) -> None:
    words = ("--registry", LOGIN_REGISTRY, "--username", "robot")

    code, output = typed(login_site, "not-it\n", "registry.login", *words)
    assert (code, "web1: " in output, "web2: " in output, "not-it" in output) == (3, True, True, False), output
    assert [host.sh(f"test -e {AUTH}", check=False).returncode for host in login_site.lab.hosts] == [1, 1]

    code, output = typed(login_site, f"{PASSWORD}\n", "registry.login", *words)
    assert (code, PASSWORD in output) == (0, False), output
    assert [host.sh(ASK_AS_DEPLOY, user="deploy").returncode for host in login_site.lab.hosts] == [0, 0]

    code, output = typed(login_site, "", "registry.logout", "--registry", LOGIN_REGISTRY)
    assert code == 0, output
    code, output = login_site.deploy("v3")
    assert (code, "unauthorized" in output or "authentication required" in output) == (3, True), output
    assert typed(login_site, "", "registry.login", *words)[0] == 2
