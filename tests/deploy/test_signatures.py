"""Signed images: Skopeo signs in a real registry, and Podman on the hosts verifies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lab.images import REPOSITORY
from tests.deploy.conftest import Site

SIGN = f"""
set -eu
directory=/root/.config/containers/registries.d
mkdir -p /root/keys $directory && cd /root/keys
printf 'docker:\\n  registry:5000:\\n    use-sigstore-attachments: true\\n' > $directory/all.yaml
echo secret > words
for name in ours theirs; do skopeo generate-sigstore-key --output-prefix $name --passphrase-file words; done
sign() {{ skopeo copy --retry-times 3 --sign-by-sigstore-private-key $1.private --sign-passphrase-file words \\
  docker://registry:5000/{REPOSITORY}/$2 docker://registry:5000/{REPOSITORY}/$2; }}
for service in backend frontend; do sign ours $service:v1; sign ours $service:v2; sign theirs $service:v3; done
"""
KEY = "release.pub"


@pytest.fixture
def signed(site: Site) -> Iterator[Site]:
    """The site with v1 and v2 signed by the required key, v3 signed by another key, and slow-start unsigned."""
    host = site.lab.hosts[0]
    host.sh(SIGN, timeout=120)
    (site.directory / KEY).write_text(host.sh("cat /root/keys/ours.pub").stdout)
    site.edit_rollout(signed_by=KEY)
    yield site
    for host in site.lab.hosts:
        host.sh("rm -rf /root/keys /root/.config/containers /home/deploy/.config/containers/registries.d")


def test_image_without_the_required_signature_is_neither_pulled_nor_started(signed: Site) -> None:
    alone = ("--hosts", "web1")
    code, output = signed.deploy("v2", *alone)
    assert (code, signed.versions()) == (0, ["v2"]), output

    before = [signed.containers(host) for host in signed.lab.hosts]
    for tag, message in (("slow-start", "no signature exists"), ("v3", "signature verification failed")):
        code, output = signed.deploy(tag, *alone)
        assert (code, message in output, signed.versions()) == (1, True, ["v2"]), output
    assert [signed.containers(host) for host in signed.lab.hosts] == before

    # An image that is already on the host needs a signature too.
    for service in ("backend", "frontend"):
        digest = signed.lab.registry.digest(service, "slow-start")
        signed.lab.hosts[0].sh(f"podman pull --quiet registry:5000/{REPOSITORY}/{service}@{digest}", user="deploy")
    code, output = signed.deploy("slow-start", *alone)
    assert (code, "no signature exists" in output, signed.versions()) == (1, True, ["v2"]), output

    signed.lab.registry.stop()
    try:
        code, output = signed.run("rollback", "--force", *alone)
    finally:
        signed.lab.registry.start()
    assert (code, signed.versions()) == (0, ["v1"]), output


def test_push_and_signatures_exclude_each_other(site: Site) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    (site.directory / KEY).write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    site.edit_rollout(signed_by=KEY)

    code, output = site.deploy("v2", "--transfer", "push")

    assert (code, "only a registry has signatures" in output) == (2, True), output


@pytest.mark.parametrize("content", [None, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "private"])
def test_signature_key_file_without_a_key_exits_with_2(site: Site, content: str | None) -> None:
    site.edit_rollout(signed_by=KEY)
    if content is not None:
        (site.directory / KEY).write_text(content)

    code, output = site.deploy("v2")

    assert (code, "cosign generate-key-pair" in output, site.versions()) == (2, True, ["v1"]), output
