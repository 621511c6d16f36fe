"""Images from the workstation: what a host has of them, and how its Podman fetches the rest. It runs nothing.

A pushed image is pulled under its own name: a configuration of this one pull says that its registry is the port on the
host's loopback behind which the workstation answers. So it is named, found, kept and pruned like any other image.
Source: containers-registries.conf(5), `prefix` and `location`; CONTAINERS_REGISTRIES_CONF names another file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fabfile.commands.journal import direct
from fabfile.commands.shell import Script, quote, script, words
from fabfile.model import Image

LOOPBACK = "127.0.0.1"
USER = "deploy"
#: What `uname -m` says, as images name it.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}


@dataclass(frozen=True)
class Push:
    """One image on its way from the workstation to one host: its id, its layers, and those that the host lacks.

    `bytes` is what those take on the way, compressed. What another push of the same step brings is not counted again.
    """

    service: str
    image: Image
    id: str
    layers: int
    lacking: int
    bytes: int


def look() -> Script:
    """Print the host's architecture, then the digest of every layer that its Podman has; changes nothing.

    Layers of a pull that was cut are among them, which no Podman command lists. Source: containers/storage keeps one
    file of all layers beside their directories; a host that keeps them elsewhere seems to have none, and only what is
    shown of the transfer is wrong then: Podman itself decides what to fetch.
    """
    store = words("podman", "info", "--format", "{{.Store.GraphRoot}}/{{.Store.GraphDriverName}}-layers/layers.json")
    return direct(
        "uname -m",
        f"""grep -o '"diff-digest":"sha256:[0-9a-f]*"' "$({store})" 2>/dev/null | cut -d '"' -f 4 || :""",
    )


def parse(output: str) -> tuple[str, frozenset[str]]:
    """Architecture and layer digests out of what `look` printed."""
    machine, *digests = output.split() or [""]
    return _ARCHITECTURES.get(machine, machine), frozenset(digests)


def prologue(port: int, password: str) -> Script:
    """Tell the script of `fetch` where the workstation answers; secret."""
    return Script(f"images_at={LOOPBACK}:{port}\nimages_login={USER}:{quote(password)}", (password,))


def fetch(pushes: Iterable[Push], directory: str) -> Script:
    """Fetch what the host lacks of each image, then prove each image's id. Runs after a `prologue`.

    `directory` takes the two files of this one pull: where the images are, and the password, 0600.
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
    pull = words("podman", "pull", "--quiet")
    other = f"{name}: the image on the host is not the workstation's {push.id}"
    return (
        f"{words('podman', 'image', 'exists', name)} || CONTAINERS_REGISTRIES_CONF={folder}/registries.conf "
        f"{pull} --authfile {folder}/auth.json {quote(image)} >/dev/null\n"
        f"id=$({words('podman', 'image', 'inspect', '--format', '{{.Id}}', name)})\n"
        f'[ "sha256:${{id#sha256:}}" = {push.id} ] || {{ echo {quote(other)}; exit 1; }}'
    )


def full_name(repository: str) -> str:
    """The repository with its registry: a short name is Docker Hub's, as Docker and Skopeo have it."""
    first, slash, _ = repository.partition("/")
    if slash and (set(".:") & set(first) or first == "localhost"):
        return repository
    return f"docker.io/{repository}" if slash else f"docker.io/library/{repository}"
