"""Tags that move between the plan and the deploy, and hosts that report other digests."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.images import REPOSITORY, Registry
from tests.deploy.conftest import PROJECT, TASK_SECONDS, Site, fingerprint

pytestmark = pytest.mark.hosts(2)

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_PATH = f"/v2/{REPOSITORY}/backend/manifests"


@contextmanager
def at_question(site: Site, *words: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Run a task on a terminal up to its question. Yield the process, the terminal and the output so far."""
    site.edit_rollout(confirm=True)
    terminal, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "invoke", words[0], "--env", site.lab.name, *words[1:]],
        cwd=PROJECT,
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        start_new_session=True,
    )
    os.close(follower)
    assert process.stdout is not None
    output = ""
    try:
        while not output.endswith("[y/N] "):
            char = process.stdout.read(1)
            assert char, output
            output += char
        yield process, terminal, output
    finally:
        os.close(terminal)
        process.kill()
        process.communicate()


def confirm(process: subprocess.Popen[str], terminal: int) -> tuple[int, str]:
    """Answer the question with yes. Return the exit code and the rest of the output."""
    os.write(terminal, b"yes\n")
    output, _ = process.communicate(timeout=TASK_SECONDS)
    return process.returncode, output


def manifest(registry: Registry, name: str) -> bytes:
    response, body = registry.request("GET", f"{_PATH}/{name}", {"Accept": _MANIFEST})
    assert response.status == 200
    return body


def put(registry: Registry, tag: str, body: bytes) -> None:
    response, _ = registry.request("PUT", f"{_PATH}/{tag}", {"Content-Type": _MANIFEST}, body)
    assert response.status == 201


@pytest.fixture
def v2_digest(site: Site) -> Iterator[str]:
    """The digest of the backend's v2, which no host has. The registry's tag is restored afterwards."""
    registry = site.lab.registry
    body, digest = manifest(registry, "v2"), registry.digest("backend", "v2")
    for host in site.lab.hosts:
        host.sh(f"podman rmi --force registry:5000/{REPOSITORY}/backend@{digest}", user="deploy", check=False)
    yield digest
    put(registry, "v2", body)
    assert registry.digest("backend", "v2") == digest


def running_digests(site: Site) -> set[str]:
    """Return the digests of the running backends from Podman."""
    ask = "podman container inspect --format '{{.ImageDigest}}' $(podman ps -q --filter label=rolling.service=backend)"
    return {line for host in site.lab.hosts for line in host.sh(ask, user="deploy").stdout.split()}


@pytest.mark.hosts(1)
def test_tag_moved_after_the_plan_does_not_change_the_deployed_digest(site: Site, v2_digest: str) -> None:
    registry = site.lab.registry
    assert running_digests(site) != {v2_digest}
    with at_question(site, "deploy", "--tag", "v2") as (process, terminal, plan):
        assert f"v2 ({v2_digest.removeprefix('sha256:')[:12]})" in plan
        put(registry, "v2", manifest(registry, "v3"))
        assert registry.digest("backend", "v2") != v2_digest
        code, output = confirm(process, terminal)

    assert (code, site.versions(), running_digests(site)) == (0, ["v2"], {v2_digest}), plan + output


@pytest.mark.extended
def test_image_replaced_and_deleted_after_the_plan_is_refused(site: Site, v2_digest: str) -> None:
    registry, before = site.lab.registry, running_digests(site)
    containers = [site.containers(host) for host in site.lab.hosts]
    with at_question(site, "deploy", "--tag", "v2") as (process, terminal, plan):
        put(registry, "v2", manifest(registry, "v3"))
        response, _ = registry.request("DELETE", f"{_PATH}/{v2_digest}")
        assert response.status == 202
        code, output = confirm(process, terminal)

    assert (code, v2_digest in output) == (1, True), plan + output
    assert (site.versions(), running_digests(site)) == (["v1", "v1"], before)
    assert [site.containers(host) for host in site.lab.hosts] == containers


@pytest.mark.extended
def test_rollback_uses_the_recorded_digest_even_after_its_tag_moved(site: Site, v2_digest: str) -> None:
    registry = site.lab.registry
    host = site.lab.hosts[0]
    site.deploy_ok("v2", "--hosts", host.name)
    site.deploy_ok("v3", "--hosts", host.name)
    put(registry, "v2", manifest(registry, "v3"))

    code, output = site.run("rollback", "--force", "--hosts", host.name)

    assert (code, site.version(host), v2_digest in running_digests(site)) == (0, "v2", True), output


@pytest.fixture
def false_registry(site: Site) -> Iterator[tuple[str, str]]:
    """The first host resolves v2 to another digest than the registry. Yields the true and the false digest."""
    registry, host = site.lab.registry, site.lab.hosts[0]
    for service, other in (("backend", "v3"), ("frontend", "v2")):
        copy = "skopeo copy --quiet --src-tls-verify=false --dest-tls-verify=false"
        source = f"docker://registry:5000/{REPOSITORY}/{service}:{other}"
        host.sh(f"{copy} {source} docker://registry:5000/elsewhere/{service}:v2", user="deploy")
    configuration = (
        f'[[registry]]\nprefix = "registry:5000/{REPOSITORY}"\nlocation = "registry:5000/elsewhere"\ninsecure = true\n'
    )
    directory = "/home/deploy/.config/containers"
    host.sh(
        f"mkdir -p {directory} && printf %s {shlex.quote(configuration)} >{directory}/registries.conf", user="deploy"
    )
    yield registry.digest("backend", "v2"), registry.digest("backend", "v3")
    host.sh(f"rm {directory}/registries.conf; rmdir --ignore-fail-on-non-empty {directory}", user="deploy")


def test_hosts_that_disagree_about_a_digest_are_reported_without_changes(
    site: Site, false_registry: tuple[str, str]
) -> None:
    true, false = false_registry
    before = [fingerprint(host) for host in site.lab.hosts]

    code, output = site.deploy("v2")

    assert code == 3, output
    assert f"web1 says {false}, web2 says {true}" in output
    assert [fingerprint(host) for host in site.lab.hosts] == before
    images = {f"{name.upper()}_IMAGE": f"registry:5000/{REPOSITORY}/{name}:v2" for name in ("backend", "frontend")}
    site.edit_env(**images)
    code, output = site.run("doctor")
    assert (code, f"web1 says {false}, web2 says {true}" in output) == (3, True), output


@pytest.mark.extended
def test_plan_names_the_source_of_the_digests(site: Site, false_registry: tuple[str, str]) -> None:
    """A single host cannot be compared with another one, so the plan says that it is the only source."""
    code, output = site.deploy("v2", "--hosts", "web1", "--dry-run")
    assert (code, "digests: resolved by web1 alone; no other host can query a registry" in output) == (0, True), output
    site.lab.hosts[0].sh("rm /home/deploy/.config/containers/registries.conf; :", user="deploy")
    code, output = site.deploy("v2", "--dry-run")
    assert (code, "digests: web1 and web2 agree" in output) == (0, True), output
    site.lab.hosts[0].sh("touch /home/deploy/.config/containers/registries.conf", user="deploy")
