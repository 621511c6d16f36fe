"""The command lines that build, look at and push images on the workstation: argv for Podman and for Docker. It runs none.

A password is in none of them: it goes to the standard input of `login`, whose file is one of this run alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from fabfile.model import Build, BuildType, Login

#: Labels of an image. Source: the OCI image specification, annotations.md, pre-defined annotation keys.
_OCI = "org.opencontainers.image"
_OWN_WORD = re.compile(r"\$\{?IMAGE\b")


@dataclass(frozen=True)
class Engine:
    """The program that builds; what Podman and Docker say differently is known here alone."""

    words: tuple[str, ...]

    @property
    def docker(self) -> bool:
        """Whether it is Docker."""
        return "docker" in {PurePath(word).name for word in self.words}

    def argv(self, *more: str) -> tuple[str, ...]:
        """A command line of it."""
        return (*self.words, *more)


def labels(
    *, revision: str, version: str, created: str, source: str, tag: str, build_type: BuildType
) -> dict[str, str]:
    """The labels that say what an image is; one without a value is left out."""
    values = {"revision": revision, "version": version, "created": created, "source": source, "ref.name": tag}
    named = {f"{_OCI}.{name}": value for name, value in values.items() if value}
    return {**named, "rolling.build-type": build_type.value}


def build(
    engine: Engine,
    wanted: Build,
    reference: str,
    marks: Mapping[str, str],
    build_type: BuildType,
    platforms: Sequence[str] = (),
) -> tuple[str, ...]:
    """Build the image under its reference; several platforms become one manifest list, which Podman alone keeps here.

    Source: podman-build(1), docker-buildx-build: `--build-arg`, `--label`, `--target`, `--no-cache`, `--platform`.
    """
    args = {"BUILD_TYPE": build_type.value, **dict(wanted.args)}
    target = wanted.debug_target if build_type is BuildType.DEBUG and wanted.debug_target else wanted.target
    return engine.argv(
        "build",
        *(["--platform", ",".join(platforms)] if platforms else []),
        *(["--manifest", reference] if len(platforms) > 1 else ["--tag", reference]),
        *(["--file", wanted.file] if wanted.file else []),
        *(["--target", target] if target else []),
        *(["--squash"] if wanted.squash else []),
        # Podman 4.3 takes one platform's layers from the cache for another's: a list of several would hold one.
        *([] if wanted.cache and len(platforms) < 2 else ["--no-cache"]),
        *(word for name, value in args.items() for word in ("--build-arg", f"{name}={value}")),
        *(word for name, value in marks.items() for word in ("--label", f"{name}={value}")),
        wanted.context,
    )


def telling_id(argv: Sequence[str], path: str) -> tuple[str, ...]:
    """The same build, which writes the image's id into a file: an engine that is told to end may exit with 0."""
    return (*argv[:-1], "--iidfile", path, argv[-1])


def version(engine: Engine) -> tuple[str, ...]:
    """Print the version of what does the work: of Docker that is its daemon, which may be away."""
    return engine.argv("version", *(["--format", "{{.Server.Version}}"] if engine.docker else []))


def newest(engine: Engine, repository: str) -> tuple[str, ...]:
    """Print the ids of the repository's images that are here, the newest first."""
    return engine.argv("images", "--no-trunc", "--format", "{{.ID}}", repository)


def size(engine: Engine, image: str) -> tuple[str, ...]:
    """Print the id and the bytes of an image that is here."""
    return engine.argv("image", "inspect", "--format", "{{.Id}} {{.Size}}", image)


def forget_list(engine: Engine, reference: str) -> tuple[str, ...]:
    """Take a manifest list away: a build adds to one that is there."""
    return engine.argv("manifest", "rm", reference)


def list_platforms(engine: Engine, reference: str) -> tuple[str, ...]:
    """Print a manifest list as JSON."""
    return engine.argv("manifest", "inspect", reference)


def platforms_of(said: str) -> set[str]:
    """The platforms that a manifest list holds, as os/arch; none where that cannot be read."""
    try:
        listed = json.loads(said)["manifests"]
        return {f"{one['platform']['os']}/{one['platform']['architecture']}" for one in listed}
    except (ValueError, LookupError, TypeError):
        return set()


def login(engine: Engine, wanted: Login, folder: str) -> tuple[str, ...]:
    """Log in at the registry, the password on standard input, into a file of the folder."""
    ask = ("login", "--username", wanted.username, "--password-stdin")
    if engine.docker:
        return engine.argv("--config", folder, *ask, wanted.registry)
    return engine.argv(*ask, "--authfile", f"{folder}/auth.json", wanted.registry)


def push(engine: Engine, reference: str, folder: str, *, many: bool, logged_in: bool) -> tuple[str, ...]:
    """Push the image; Podman writes its digest into `digest` of the folder, Docker says it in its last lines."""
    if engine.docker:
        return engine.argv(*(["--config", folder] if logged_in else []), "push", reference)
    auth = ["--authfile", f"{folder}/auth.json"] if logged_in else []
    kept = ["--digestfile", f"{folder}/digest"]
    if many:
        return engine.argv("manifest", "push", "--all", *auth, *kept, reference, f"docker://{reference}")
    return engine.argv("push", *auth, *kept, reference)


def pushed_digest(said: str) -> str:
    """The digest in what `docker push` said last; empty where there is none."""
    found = re.findall(r"digest: (sha256:[0-9a-f]{64})", said)
    return found[-1] if found else ""


def scan(command: Sequence[str], image: str) -> tuple[str, ...]:
    """The command that judges an image, its reference behind it; a text for sh that says $IMAGE itself gets no word."""
    if tuple(command[:2]) == ("sh", "-c") and len(command) == 3:
        text = command[2]
        return tuple(command) if _OWN_WORD.search(text) else ("sh", "-c", f'{text} "$@"', "sh", image)
    return (*command, image)
