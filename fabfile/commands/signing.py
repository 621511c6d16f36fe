"""Pulling what is signed: an image counts only with a cosign signature of one key. Pure text; it runs nothing.

Podman itself checks: no client is needed on the host. Source: containers-policy.json(5), sigstoreSigned; measured: Debian
13's Podman has it, Debian 12's is built without and refuses every image. What is signed is the digest that is pulled; of
a multi-platform image, that of the host's own platform too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

from fabfile.commands.shell import Script, lines, quote, script, sha256, words
from fabfile.commands.transfer import full_name
from fabfile.model import Image

#: Below the user's home: where Podman is told that a repository keeps signatures beside its images.
LOOKASIDE = ".config/containers/registries.d"


def pull_signed(images: Iterable[Image], key: str, *, again: bool) -> Script:
    """Bring images to the host by digest, each with a signature of the public key (PEM), or fail.

    With `again`, an image that is there is asked for its signature too; without, it was when it came.
    """
    unique = tuple(dict.fromkeys(images))
    repositories = dict.fromkeys(full_name(image.repository) for image in unique)
    return script(
        "policy=$(mktemp)\ntrap 'rm -f \"$policy\"' EXIT",
        f'printf %s {quote(json.dumps(_policy(repositories, key)))} > "$policy"',
        f'signatures="$HOME/{LOOKASIDE}"\nmkdir -p "$signatures"',
        *(_keeps_signatures(repository) for repository in repositories),
        lines(_pull(image, again=again) for image in unique),
    )


def _policy(repositories: Iterable[str], key: str) -> dict[str, object]:
    """Nothing but these repositories, signed. Cosign's signatures name no tag, hence matchRepository."""
    data = base64.b64encode(key.encode()).decode()
    signed = {"type": "sigstoreSigned", "keyData": data, "signedIdentity": {"type": "matchRepository"}}
    return {"default": [{"type": "reject"}], "transports": {"docker": {name: [signed] for name in repositories}}}


def _keeps_signatures(repository: str) -> str:
    """Source: containers-registries.d(5): two files must not name one repository, so its file has one name for all."""
    name = f"rolling-{sha256(repository.encode())[:16]}.yaml"
    content = json.dumps({"docker": {repository: {"use-sigstore-attachments": True}}})
    return f'printf \'%s\\n\' {quote(content)} > "$signatures/{name}.new"\nmv -f "$signatures/{name}.new" "$signatures/{name}"'


def _pull(image: Image, *, again: bool) -> str:
    """Source: podman-pull(1) hides --signature-policy as seldom used; it holds for this one pull."""
    pull = words("podman", "pull", "--quiet") + f' --signature-policy "$policy" {quote(image.pinned)}'
    return pull if again else f"{words('podman', 'image', 'exists', image.pinned)} || {pull}"
