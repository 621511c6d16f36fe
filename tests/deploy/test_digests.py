"""The image that was shown is the one that runs: a tag that is moved while a person reads the plan changes nothing."""

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

pytestmark = pytest.mark.xdist_group("digests")

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_PATH = f"/v2/{REPOSITORY}/backend/manifests"


@contextmanager
def asked(site: Site, *words: str) -> Iterator[tuple[subprocess.Popen[str], int, list[str]]]:
    """A task at a person's terminal, up to its question: the process, the terminal, and what it said so far."""
    site.edit_rollout(confirm=True)
    keyboard, far = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "invoke", words[0], "--env", site.lab.name, *words[1:]],
        cwd=PROJECT,
        stdin=far,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        start_new_session=True,
    )
    os.close(far)
    assert process.stdout is not None
    said = ""
    try:
        while not said.endswith("[y/N] "):
            piece = process.stdout.read(1)
            assert piece, said
            said += piece
        yield process, keyboard, [said]
    finally:
        os.close(keyboard)
        process.kill()
        process.communicate()


def yes(process: subprocess.Popen[str], keyboard: int) -> tuple[int, str]:
    """The answer, and how it ended."""
    os.write(keyboard, b"yes\n")
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
def tag(site: Site) -> Iterator[str]:
    """The digest of the backend's v2, which no host has yet; the registry as it was, afterwards."""
    registry = site.lab.registry
    body, digest = manifest(registry, "v2"), registry.digest("backend", "v2")
    for host in site.lab.hosts:
        host.sh(f"podman rmi --force registry:5000/{REPOSITORY}/backend@{digest}", user="deploy", check=False)
    yield digest
    put(registry, "v2", body)
    assert registry.digest("backend", "v2") == digest


def running(site: Site) -> set[str]:
    """The digests of the backends that run, as Podman itself has them."""
    ask = "podman container inspect --format '{{.ImageDigest}}' $(podman ps -q --filter label=rolling.service=backend)"
    return {line for host in site.lab.hosts for line in host.sh(ask, user="deploy").stdout.split()}


def test_tag_moved_after_the_plan_does_not_change_the_deployed_digest(site: Site, tag: str) -> None:
    registry = site.lab.registry
    with asked(site, "deploy", "--tag", "v2") as (process, keyboard, said):
        assert f"v2 ({tag.removeprefix('sha256:')[:12]})" in said[0]
        put(registry, "v2", manifest(registry, "v3"))
        assert registry.digest("backend", "v2") != tag
        code, output = yes(process, keyboard)

    assert (code, site.versions(), running(site)) == (0, ["v2", "v2"], {tag}), said[0] + output


def test_image_replaced_and_deleted_after_the_plan_is_refused(site: Site, tag: str) -> None:
    registry, before = site.lab.registry, running(site)
    containers = [site.running(host) for host in site.lab.hosts]
    with asked(site, "deploy", "--tag", "v2") as (process, keyboard, said):
        put(registry, "v2", manifest(registry, "v3"))
        response, _ = registry.request("DELETE", f"{_PATH}/{tag}")
        assert response.status == 202
        code, output = yes(process, keyboard)

    assert (code, tag in output) == (1, True), said[0] + output
    assert (site.versions(), running(site)) == (["v1", "v1"], before)
    assert [site.running(host) for host in site.lab.hosts] == containers


def test_rollback_uses_the_recorded_digest_even_after_its_tag_moved(site: Site, tag: str) -> None:
    registry = site.lab.registry
    host = site.lab.hosts[0]
    assert site.deploy("v2", "--hosts", host.name)[0] == 0
    assert site.deploy("v3", "--hosts", host.name)[0] == 0
    put(registry, "v2", manifest(registry, "v3"))

    code, output = site.run("rollback", "--force", "--hosts", host.name)

    assert (code, site.version(host), tag in running(site)) == (0, "v2", True), output


@pytest.fixture
def liar(site: Site) -> Iterator[tuple[str, str]]:
    """The first host's deploy user finds other images under the registry's name: v2's digests, true and false."""
    registry, host = site.lab.registry, site.lab.hosts[0]
    for service, other in (("backend", "v3"), ("frontend", "v2")):
        copy = "skopeo copy --quiet --src-tls-verify=false --dest-tls-verify=false"
        source = f"docker://registry:5000/{REPOSITORY}/{service}:{other}"
        host.sh(f"{copy} {source} docker://registry:5000/elsewhere/{service}:v2", user="deploy")
    lie = (
        f'[[registry]]\nprefix = "registry:5000/{REPOSITORY}"\nlocation = "registry:5000/elsewhere"\ninsecure = true\n'
    )
    folder = "/home/deploy/.config/containers"
    host.sh(f"mkdir -p {folder} && printf %s {shlex.quote(lie)} >{folder}/registries.conf", user="deploy")
    yield registry.digest("backend", "v2"), registry.digest("backend", "v3")
    host.sh(f"rm {folder}/registries.conf", user="deploy")


def test_hosts_that_disagree_about_a_digest_are_reported_without_changes(site: Site, liar: tuple[str, str]) -> None:
    true, false = liar
    before = [fingerprint(host) for host in site.lab.hosts]

    code, output = site.deploy("v2")

    assert code == 3, output
    assert f"web1 says {false}, web2 says {true}" in output
    assert [fingerprint(host) for host in site.lab.hosts] == before
    images = {f"{name.upper()}_IMAGE": f"registry:5000/{REPOSITORY}/{name}:v2" for name in ("backend", "frontend")}
    site.edit_env(**images)
    code, output = site.run("doctor")
    assert (code, f"web1 says {false}, web2 says {true}" in output) == (3, True), output


def test_plan_names_the_source_of_the_digests(site: Site, liar: tuple[str, str]) -> None:
    """With one host there is nobody to contradict it: all that is left is to say so."""
    code, output = site.deploy("v2", "--hosts", "web1", "--dry-run")
    assert (code, "digests: web1 alone says so; no other host can ask a registry" in output) == (0, True), output
    site.lab.hosts[0].sh("rm /home/deploy/.config/containers/registries.conf; :", user="deploy")
    code, output = site.deploy("v2", "--dry-run")
    assert (code, "digests: web1 and web2 agree" in output) == (0, True), output
    site.lab.hosts[0].sh("touch /home/deploy/.config/containers/registries.conf", user="deploy")


def test_digest_comparison_detects_two_hosts_with_different_images(site: Site) -> None:
    assert len(running(site)) == 1
    assert site.deploy("v3", "--hosts", "web1")[0] == 0
    assert len(running(site)) == 2
    assert fingerprint(site.lab.hosts[0]) != fingerprint(site.lab.hosts[1])
