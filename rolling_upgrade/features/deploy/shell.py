"""The scripts of a deploy's steps: drain the old colors, and pull signed images."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence

from rolling_upgrade.engine import nginx, podman, progress
from rolling_upgrade.engine.image_push import full_name
from rolling_upgrade.engine.model import Application, Color, Image, Service
from rolling_upgrade.engine.shell import UPTIME, Script, lines, quote, script, sha256, shell_join


def drain(app: Application, colors: Sequence[tuple[Service, Color]]) -> str:
    """Drain all colors at the same time, and stop each one as soon as it is drained.

    A color is drained when its port has had no established connection in two checks, or at its deadline; without a
    listener, at once. Check twice: Nginx connects for a buffered upload only when its body is complete. A stopped color
    refuses later connections; the active color answers them through the service port. A worker has no connections: it
    finishes its work between SIGTERM and SIGKILL.
    """
    if not colors:
        return ""
    parts = []
    for service, color in colors:
        body = [podman.stop(podman.container_name(app.name, service.name, color), seconds=service.drain.stop_seconds)]
        if not service.is_worker:
            deadline = round(service.drain.deadline_seconds)
            wait = shell_join("drain", service.name, color.value, service.port(color), deadline)
            body = [wait, nginx.end_standby(app, service.name), *body]
        parts.append("\n".join(("(", *body, ') &\ndraining="$draining $!"')))
    return "\n".join((_DRAIN, "draining='' failed=0", *parts, _WAIT_FOR_ALL))


#: Define `drain SERVICE COLOR PORT SECONDS`: wait until two checks in a row find no connection to the port. Report the
#: number of connections and the seconds that are left as progress.
_DRAIN = f"""\
count_lines() {{
  set -f
  IFS='
'
  # shellcheck disable=SC2086
  set -- $1
  unset IFS
  set +f
  count=$#
}}
drain() {{
  began=$({UPTIME}) quiet=0
  while [ -n "$(ss -Htln "( sport = :$3 )")" ]; do
    count_lines "$(ss -Htn state established "( sport = :$3 )")"
    if [ "$count" -eq 0 ]; then quiet=$((quiet + 1)); else quiet=0; fi
    if [ "$quiet" -ge 2 ]; then break; fi
    left=$(($4 - $({UPTIME}) + began))
    if [ "$left" -le 0 ]; then
      if [ "$quiet" -eq 0 ]; then echo "$1: $2 still had connections after $4 s"; fi
      break
    fi
    if [ "$count" -eq 1 ]; then noun=connection; else noun=connections; fi
    {progress.print_text("%s: %s %s, %s s left", '"$1"', '"$count"', '"$noun"', '"$left"')}
    sleep 1
  done
}}"""
_WAIT_FOR_ALL = """\
for process in $draining; do wait "$process" || failed=$?; done
if [ "$failed" -ne 0 ]; then exit "$failed"; fi"""


#: The directory in the user's home with Podman's settings for signatures that registries store beside images.
LOOKASIDE = ".config/containers/registries.d"


def pull_signed(images: Iterable[Image], key: str, *, verify_present: bool) -> Script:
    """Pull images by digest and verify their signatures with the public key (PEM).

    With `verify_present`, also verify the signatures of images that the host has already.
    """
    unique = tuple(dict.fromkeys(images))
    repositories = dict.fromkeys(full_name(image.repository) for image in unique)
    return script(
        "policy=$(mktemp)\ntrap 'rm -f \"$policy\"' EXIT",
        f'printf %s {quote(json.dumps(_policy(repositories, key)))} > "$policy"',
        f'signatures="$HOME/{LOOKASIDE}"\nmkdir -p "$signatures"',
        *(_enable_signatures(repository) for repository in repositories),
        podman.define_pull(unique),
        lines(_pull(image, verify_present=verify_present) for image in unique),
    )


def _policy(repositories: Iterable[str], key: str) -> dict[str, object]:
    """Accept only signed images of these repositories. Cosign signatures name no tag, hence matchRepository."""
    data = base64.b64encode(key.encode()).decode()
    signed = {"type": "sigstoreSigned", "keyData": data, "signedIdentity": {"type": "matchRepository"}}
    return {"default": [{"type": "reject"}], "transports": {"docker": {name: [signed] for name in repositories}}}


def _enable_signatures(repository: str) -> str:
    """Let Podman read signatures beside the images of a repository.

    Source: containers-registries.d(5): two files must not name one repository, so the file name is a hash of it.
    """
    name = f"rolling-{sha256(repository.encode())[:16]}.yaml"
    content = json.dumps({"docker": {repository: {"use-sigstore-attachments": True}}})
    return f'printf \'%s\\n\' {quote(content)} > "$signatures/{name}.new"\nmv -f "$signatures/{name}.new" "$signatures/{name}"'


def _pull(image: Image, *, verify_present: bool) -> str:
    """Pull one image with the policy. Source: podman-pull(1) does not list --signature-policy."""
    pull = podman.pull_one(image, f'--signature-policy "$policy" {quote(image.pinned)}')
    return pull if verify_present else f"{shell_join('podman', 'image', 'exists', image.pinned)} || {pull}"
