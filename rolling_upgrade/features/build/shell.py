"""The Podman and Docker command lines that build, inspect and push images on the workstation.

A password travels only on the standard input of `login`, which writes it to a file that the run deletes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Build, BuildType, Login

#: Labels of an image. Source: the OCI image specification, annotations.md, pre-defined annotation keys.
_OCI = "org.opencontainers.image"
_IMAGE_VARIABLE = re.compile(r"\$\{?IMAGE\b")


@dataclass(frozen=True)
class Engine:
    """Podman or Docker on this workstation.

    `pass_env` names the variables of this shell that the engine and the scan hook receive.
    """

    command: tuple[str, ...]
    pass_env: tuple[str, ...] = ()

    @property
    def is_docker(self) -> bool:
        """Whether the engine is Docker."""
        return "docker" in {PurePath(word).name for word in self.command}

    def argv(self, *arguments: str) -> tuple[str, ...]:
        """Return a command line of the engine."""
        return (*self.command, *arguments)


def labels(
    *, revision: str, version: str, created: str, source: str, tag: str, build_type: BuildType
) -> dict[str, str]:
    """Return the labels of an image, without empty values."""
    values = {"revision": revision, "version": version, "created": created, "source": source, "ref.name": tag}
    named = {f"{_OCI}.{name}": value for name, value in values.items() if value}
    return {**named, "rolling.build-type": build_type.value}


def build(
    engine: Engine,
    spec: Build,
    reference: str,
    labels: Mapping[str, str],
    build_type: BuildType,
    platforms: Sequence[str] = (),
) -> tuple[str, ...]:
    """Build the image under its reference; several platforms become one manifest list, which only Podman stores locally.

    Source: podman-build(1), docker-buildx-build: `--build-arg`, `--label`, `--target`, `--no-cache`, `--platform`.
    """
    args = {"BUILD_TYPE": build_type.value, **dict(spec.args)}
    target = spec.debug_target if build_type is BuildType.DEBUG and spec.debug_target else spec.target
    return engine.argv(
        "build",
        *(["--platform", ",".join(platforms)] if platforms else []),
        *(["--manifest", reference] if len(platforms) > 1 else ["--tag", reference]),
        *(["--file", spec.file] if spec.file else []),
        *(["--target", target] if target else []),
        *(["--squash"] if spec.squash else []),
        # Podman 4.3 reuses cached layers across platforms: a list would contain one platform several times.
        *([] if spec.cache and len(platforms) < 2 else ["--no-cache"]),
        *(word for name, value in args.items() for word in ("--build-arg", f"{name}={value}")),
        *(word for name, value in labels.items() for word in ("--label", f"{name}={value}")),
        spec.context,
    )


def with_id_file(argv: Sequence[str], path: str) -> tuple[str, ...]:
    """Add the option that writes the image id to a file: an interrupted engine may exit with 0."""
    return (*argv[:-1], "--iidfile", path, argv[-1])


def version(engine: Engine) -> tuple[str, ...]:
    """Print the version of Podman, or of Docker's daemon, which may be stopped."""
    return engine.argv("version", *(["--format", "{{.Server.Version}}"] if engine.is_docker else []))


def newest(engine: Engine, repository: str) -> tuple[str, ...]:
    """Print the ids of the repository's local images, the newest first."""
    return engine.argv("images", "--no-trunc", "--format", "{{.ID}}", repository)


def size(engine: Engine, image: str) -> tuple[str, ...]:
    """Print the id of a local image and its size in bytes."""
    return engine.argv("image", "inspect", "--format", "{{.Id}} {{.Size}}", image)


def remove_list(engine: Engine, reference: str) -> tuple[str, ...]:
    """Delete a manifest list: a build would add to it."""
    return engine.argv("manifest", "rm", reference)


def inspect_list(engine: Engine, reference: str) -> tuple[str, ...]:
    """Print a manifest list as JSON."""
    return engine.argv("manifest", "inspect", reference)


def platforms_of(text: str) -> set[str]:
    """Return the platforms of a manifest list, as os/arch; none for invalid JSON."""
    try:
        listed = untrusted.json_object(text)["manifests"]
        return {f"{entry['platform']['os']}/{entry['platform']['architecture']}" for entry in listed}
    except (ValueError, LookupError, TypeError):
        return set()


def login(engine: Engine, login: Login, directory: str) -> tuple[str, ...]:
    """Log in to the registry, with the password on standard input, and store the login in the directory."""
    arguments = ("login", "--username", login.username, "--password-stdin")
    if engine.is_docker:
        return engine.argv("--config", directory, *arguments, login.registry)
    return engine.argv(*arguments, "--authfile", f"{directory}/auth.json", login.registry)


def push(engine: Engine, reference: str, directory: str, *, many: bool, logged_in: bool) -> tuple[str, ...]:
    """Push the image. Podman writes the digest to `digest` in the directory, Docker prints it in its last lines."""
    if engine.is_docker:
        return engine.argv(*(["--config", directory] if logged_in else []), "push", reference)
    auth = ["--authfile", f"{directory}/auth.json"] if logged_in else []
    digest_file = ["--digestfile", f"{directory}/digest"]
    if many:
        return engine.argv("manifest", "push", "--all", *auth, *digest_file, reference, f"docker://{reference}")
    return engine.argv("push", *auth, *digest_file, reference)


def pushed_digest(output: str) -> str:
    """Return the last digest in the output of `docker push`; '' for none."""
    digests = re.findall(r"digest: (sha256:[0-9a-f]{64})", output)
    return digests[-1] if digests else ""


def scan(command: Sequence[str], image: str) -> tuple[str, ...]:
    """Return the scan command with the reference as its last argument, unless its shell text uses $IMAGE."""
    if tuple(command[:2]) == ("sh", "-c") and len(command) == 3:
        text = command[2]
        return tuple(command) if _IMAGE_VARIABLE.search(text) else ("sh", "-c", f'{text} "$@"', "sh", image)
    return (*command, image)
