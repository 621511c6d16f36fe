"""Podman commands: names, labels, the candidate's `run`, pull, stop, image retention. It runs nothing.

Containers are rootless, under the deploy user. What a container is, its labels say; nothing else remembers it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from fabfile.commands.gone import size_of
from fabfile.commands.shell import Script, quote, script, sha256, words, write_file
from fabfile.model import Application, Color, Image, Service

LABEL = "rolling"
_RESOLVED = '{{.Digest}} {{index .Labels "org.opencontainers.image.revision"}}'

#: Podman's restart policies as this project hands them over. `always` becomes `unless-stopped`: both restart after
#: every crash, but at boot podman-restart.service starts each `always` container, the stopped old color too.
#: Source: podman-restart.service(1), `podman start --all --filter restart-policy=always`.
_RESTART_POLICY = {"always": "unless-stopped"}


def container_name(app: str, service: str, color: Color) -> str:
    """The one name that a service's color has on a host."""
    return f"{app}-{service}-{color.value}"


def network_name(app: str) -> str:
    """The application's own bridge network."""
    return f"{app}-network"


def env_fingerprints(service: Service) -> tuple[tuple[str, str], ...]:
    """A short hash per environment key, enough to say which keys changed and not what they hold."""
    if service.recorded:
        return service.recorded.env
    env = sorted(service.env)
    return tuple((key, sha256(f"{key}={value}".encode())[:8]) for key, value in env)


def spec_hash(app: str, service: Service) -> str:
    """The identity of everything but the image that makes a container: two equal hashes need no new container."""
    if service.recorded:
        return service.recorded.spec
    spec = {
        "network": network_name(app),
        "alias": service.alias,
        "port": [service.container_port, service.stable_port],
        "mounts": [[mount.source, mount.target, mount.read_only] for mount in service.mounts],
        "env": sorted(service.env),
        "memory": service.memory_bytes,
        "cpus": service.cpus,
        "restart": service.restart_policy,
        "stop": service.drain.stop_seconds,
    }
    return sha256(json.dumps(spec, sort_keys=True).encode())[:16]


def config_directory(app: Application, service: Service) -> str:
    """Where the host keeps what the service's container was given, one directory per distinct configuration."""
    return f"{app.home}/config/{service.name}-{spec_hash(app.name, service)}"


def labels(app: Application, service: Service, color: Color, release: str) -> dict[str, str]:
    """What a container says about itself."""
    return {
        "app": app.name,
        "environment": app.environment,
        "service": service.name,
        "color": color.value,
        "release": release,
        "image": service.image.reference,
        "digest": service.image.digest,
        "spec": spec_hash(app.name, service),
        "port": str(service.stable_port),
        "env": ",".join(f"{key}:{value}" for key, value in env_fingerprints(service)),
    }


def run(app: Application, service: Service, color: Color, release: str) -> Script:
    """Start the service's candidate in an idle color, replacing a stopped or left-over container of that name.

    The environment travels in a 0600 file, never in argv. The service's alias is not given here: see `give_alias`.
    """
    name = container_name(app.name, service.name, color)
    directory = config_directory(app, service)
    env_file = f"{directory}/env"
    arguments = ["podman", "run", "--detach", "--quiet", "--name", name, "--pull=never"]
    arguments += ["--network", network_name(app.name), "--network-alias", f"{service.name}-{color.value}"]
    arguments += ["--publish", f"127.0.0.1:{service.port(color)}:{service.container_port}"]
    arguments += ["--restart", _RESTART_POLICY.get(service.restart_policy, service.restart_policy)]
    arguments += ["--stop-timeout", str(round(service.drain.stop_seconds)), "--env-file", env_file]
    for mount in service.mounts:
        arguments += ["--volume", f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"]
    if service.memory_bytes:
        arguments += ["--memory", f"{service.memory_bytes}b"]
    if service.cpus:
        arguments += ["--cpus", f"{service.cpus:g}"]
    for key, value in labels(app, service, color, release).items():
        arguments += ["--label", f"{LABEL}.{key}={value}"]
    return script(
        ensure_network(app.name),
        _environment(service, directory, env_file),
        remove(name, service.drain.stop_seconds),
        words(*arguments, service.image.pinned) + " >/dev/null",
    )


def _environment(service: Service, directory: str, env_file: str) -> Script:
    """The container's environment in its file; that of an earlier release is there already, or nowhere."""
    if service.recorded:
        missing = f"{service.name}: the environment of the earlier release is gone: {env_file}"
        return Script(f"[ -f {quote(env_file)} ] || {{ echo {quote(missing)}; exit 1; }}")
    content = "".join(f"{key}={value}\n" for key, value in service.env)
    return script(words("mkdir", "-p", directory), write_file(env_file, content, secret=True))


def revive(app: Application, service: Service, color: Color) -> str:
    """Start the kept container of an idle color as a candidate: without the service's alias, which it had.

    Source: measured with Podman 4.3 and 5.4: a stopped container may leave its network and join it again.
    """
    name, network = container_name(app.name, service.name, color), network_name(app.name)
    alias = ["--alias", f"{service.name}-{color.value}"]
    return "\n".join(
        (
            words("podman", "network", "disconnect", "--force", network, name) + " 2>/dev/null || :",
            words("podman", "network", "connect", *alias, network, name),
            start(name),
        )
    )


def give_alias(app: Application, service: Service, color: Color) -> str:
    """Let other containers find this color under the service's alias: only for what has passed its gate.

    Source: measured with Podman 4.3 and 5.4: a running container may leave its network and join it again with other
    aliases, and its published port goes on; joining twice is refused.
    """
    if not service.alias:
        return ""
    name, network = container_name(app.name, service.name, color), network_name(app.name)
    aliases = ["--alias", service.alias, "--alias", f"{service.name}-{color.value}"]
    return "\n".join(
        (
            words("podman", "network", "disconnect", network, name),
            words("podman", "network", "connect", *aliases, network, name),
        )
    )


def ensure_network(app: str) -> str:
    """Create the application's network where it is missing."""
    network = quote(network_name(app))
    return f"podman network exists {network} || podman network create {network} >/dev/null"


def remove(name: str, stop_seconds: float) -> str:
    """Stop and remove a container if there is one. Source: podman 4.3 `rm -f a b` removes none if one is missing."""
    stop = words("podman", "stop", "--ignore", "--time", round(stop_seconds), name)
    return f"{stop} >/dev/null 2>&1 || :\n{words('podman', 'rm', '--force', '--ignore', name)} >/dev/null"


def stop(name: str, stop_seconds: float) -> str:
    """Stop a container and keep it: SIGTERM, then SIGKILL after `stop_seconds`. A missing one is no error."""
    return words("podman", "stop", "--ignore", "--time", round(stop_seconds), name) + " >/dev/null"


def start(name: str) -> str:
    """Start a kept container; nothing happens to one that runs."""
    return words("podman", "start", name) + " >/dev/null"


def restart(name: str, stop_seconds: float) -> str:
    """End a container, whatever state it is in, and start it again."""
    return f"{stop(name, stop_seconds)} || {words('podman', 'kill', '--signal', 'KILL', name)} >/dev/null || :\n{start(name)}"


def last_logs(name: str, lines: int = 20) -> str:
    """Print a container's last log lines; never fails."""
    return words("podman", "logs", "--tail", lines, name) + " 2>&1 || :"


def pull(images: Iterable[Image]) -> str:
    """Bring images to the host by digest; one that is there costs no transfer and needs no registry. Prints nothing."""
    pairs = ((words("podman", "image", "exists", one.pinned), one.pinned) for one in dict.fromkeys(images))
    return "\n".join(f"{there} || {words('podman', 'pull', '--quiet', pinned)} >/dev/null" for there, pinned in pairs)


def resolve(images: Iterable[Image]) -> str:
    """Print `reference digest revision` for each image, asked of its registry without pulling; a line `!` and why if not.

    Source: skopeo-inspect(1): `.Digest` is the digest of what the tag names, an index for a multi-platform image.
    Source: the OCI image specification names the label of the source revision.
    """
    # A label is whoever built the image's to write: its first line alone, of what a revision is made of.
    clean = "grep -m 1 '^sha256:' | tr -cd 'A-Za-z0-9 <>._:+/-'"
    parts = []
    for image in dict.fromkeys(images):
        ask = words("timeout", "20", "skopeo", "inspect", "--no-tags", "--format", _RESOLVED)
        reference = quote(f"docker://{image.reference}")
        parts.append(
            f"if answer=$({ask} {reference} 2>&1); then\n"
            f"printf '%s %s\\n' {quote(image.reference)} \"$(printf '%s\\n' \"$answer\" | {clean})\"\n"
            f'else printf \'! %s %s\\n\' {quote(image.reference)} "$(printf %s "$answer" | tail -n 1)"; fi'
        )
    return "\n".join(parts)


def reachable(images: Iterable[Image]) -> str:
    """Print a line `!` and why for each image that its registry does not have under its digest; pull none."""
    parts = []
    for image in dict.fromkeys(images):
        ask = words("timeout", "20", "skopeo", "inspect", "--no-tags", "--raw", f"docker://{image.pinned}")
        said = f'printf \'! %s %s\\n\' {quote(image.pinned)} "$(printf %s "$answer" | tail -n 1)"'
        parts.append(f"answer=$({ask} 2>&1 >/dev/null) || {said}")
    return "\n".join(parts)


def prune_images(repositories: Iterable[str], keep_digests: Iterable[str], own_history: str) -> str:
    """Select images that no container uses, no kept release names, and no other application's history names.

    An image may have several names and digests, pulled once and pushed once: one that is kept keeps them all, and it is
    removed name by name. Source: podman-rmi(1) removes no image of several names by its id.
    """
    kept = "|".join(f"*{digest}*" for digest in sorted(set(keep_digests) - {""})) or "none"
    listed = "{{.ID}} {{.Digest}} {{.Names}}"
    size = words("podman", "image", "inspect", "--format", "{{.Size}}")
    parts = ["used=$(podman ps --all --no-trunc --format '{{.ImageID}}' 2>/dev/null) || used=''"]
    for repository in dict.fromkeys(repositories):
        images = words("podman", "images", "--no-trunc", "--format", listed, "--filter", f"reference={repository}")
        parts.append(
            f"{images} | tr -d '[]' | sort -u | while read -r id digest names; do\n"
            f'  case "$digest $names" in {kept}) continue ;; esac\n'
            '  case "$used" in *"${id#sha256:}"*) continue ;; esac\n'
            "  for name in $digest $names; do\n"
            "    case $name in *sha256:*) ;; *) continue ;; esac\n"
            f'    if grep -lsF "${{name##*@}}" /var/lib/*/releases.jsonl | grep -qvxF {quote(own_history)}; then continue 2; fi\n'
            "  done\n"
            f'  bytes=$({size} "$id" 2>/dev/null </dev/null) || bytes=0\n'
            "  # shellcheck disable=SC2086\n"
            f'  gone image {quote(repository)}"@$digest" "$bytes" '
            """sh -c 'for name do podman rmi "$name"; done' sh ${names:-"$id"}\n"""
            "done"
        )
    return "\n".join(parts)


def prune_configs(home: str, keep: Iterable[str]) -> str:
    """Select what no kept release and no container was given: configurations, secrets included, and definitions."""
    kept = "|".join(quote(name) for name in sorted(set(keep))) or "''"
    return (
        f"for found in {quote(home)}/config/*; do\n"
        '  if [ ! -e "$found" ]; then continue; fi\n'
        f'  case "$(basename "$found" .json)" in {kept}) ;;\n'
        f'    *) gone configuration "$found" {size_of("found")} rm -rf "$found" ;;\n'
        "  esac\n"
        "done"
    )
