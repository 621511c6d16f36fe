"""Push images from the workstation: list the layers that a host has, and fetch the missing ones.

The host pulls a pushed image under its own name: for that one pull, a configuration maps its registry to the loopback
port behind which the workstation answers. The image then has the same name as a pulled one, and is pruned like it.

Source: containers-registries.conf(5), `prefix` and `location`; CONTAINERS_REGISTRIES_CONF names another file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Image
from rolling_upgrade.engine.shell import Script, direct, quote, script, shell_join

LOOPBACK = "127.0.0.1"
USER = "deploy"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: The architecture names of images by the output of `uname -m`.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}


@dataclass(frozen=True)
class Push:
    """One image to push to one host: its id, and the numbers of its layers and of its missing layers.

    `bytes` is the compressed size of the missing layers, without those that another push of the same step brings.
    """

    service: str
    image: Image
    id: str
    layers: int
    lacking: int
    bytes: int


def read_layers() -> Script:
    """Print the host's architecture, then the digest of every layer that its Podman has; changes nothing.

    This includes layers of interrupted pulls, which no Podman command lists. Source: containers/storage keeps one file
    of all layers beside their directories. If a host keeps them elsewhere, only the displayed size is wrong: Podman
    itself decides what to fetch.
    """
    store = shell_join(
        "podman", "info", "--format", "{{.Store.GraphRoot}}/{{.Store.GraphDriverName}}-layers/layers.json"
    )
    return direct(
        "uname -m",
        f"""grep -o '"diff-digest":"sha256:[0-9a-f]*"' "$({store})" 2>/dev/null | cut -d '"' -f 4 || :""",
    )


def parse(output: str) -> tuple[str, frozenset[str]]:
    """The architecture and the layer digests in the output of `read_layers`. Raises Malformed for too many."""
    machine, *digests = untrusted.lines(output) or [""]
    name = untrusted.line(machine, 40)
    return _ARCHITECTURES.get(name, name), frozenset(filter(_DIGEST.fullmatch, digests))


def prologue(port: int, password: str) -> Script:
    """Set the workstation's port and password, a secret, for the script of `fetch`."""
    return Script(f"images_at={LOOPBACK}:{port}\nimages_login={USER}:{quote(password)}", (password,))


def fetch(pushes: Iterable[Push], directory: str) -> Script:
    """Fetch the missing layers of each image, then verify each image's id. Runs after a `prologue`.

    `directory` takes two files of this pull with mode 0600: the registry configuration and the password.
    """
    folder = quote(directory)
    parts = [
        f"mkdir -p {folder}\ntrap 'rm -rf {folder}' EXIT",
        f"""printf '{{"auths":{{"%s":{{"auth":"%s"}}}}}}' "${{images_at:?}}" "$(printf %s "${{images_login:?}}" | base64 -w 0)" """
        f"> {folder}/auth.json",
        f": > {folder}/registries.conf",
    ]
    unique = {push.image.pinned: push for push in pushes}
    for repository in dict.fromkeys(full_name(push.image.repository) for push in unique.values()):
        entry = '[[registry]]\\nprefix = "%s"\\nlocation = "%s/image"\\ninsecure = true\\n'
        parts.append(f"printf '{entry}' {quote(repository)} \"$images_at\" >> {folder}/registries.conf")
    parts += [_fetch_one(push, folder) for push in unique.values()]
    return script(*parts)


def _fetch_one(push: Push, folder: str) -> str:
    name, image = push.image.pinned, f"{full_name(push.image.repository)}@{push.image.digest}"
    pull = shell_join("podman", "pull", "--quiet")
    other = f"{name}: the image on the host is not the workstation's {push.id}"
    return (
        f"{shell_join('podman', 'image', 'exists', name)} || CONTAINERS_REGISTRIES_CONF={folder}/registries.conf "
        f"{pull} --authfile {folder}/auth.json {quote(image)} >/dev/null\n"
        f"id=$({shell_join('podman', 'image', 'inspect', '--format', '{{.Id}}', name)})\n"
        f'[ "sha256:${{id#sha256:}}" = {push.id} ] || {{ echo {quote(other)}; exit 1; }}'
    )


def full_name(repository: str) -> str:
    """The repository with its registry; a short name belongs to Docker Hub, as in Docker and Skopeo."""
    first, slash, _ = repository.partition("/")
    if slash and (set(".:") & set(first) or first == "localhost"):
        return repository
    return f"docker.io/{repository}" if slash else f"docker.io/library/{repository}"
