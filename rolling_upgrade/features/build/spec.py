"""What `inv build` is to build: services, references, labels; and every reason not to, found beforehand."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fabfile import config
from fabfile.commands import building
from fabfile.commands.building import Engine
from fabfile.errors import ConfigError, Mistake, PreflightError
from fabfile.model import Build, BuildType, Environment, Login, Source
from fabfile.remote import engine, source

#: Stands for a tag that is still to be made, where only the repositories of the images count.
_NO_TAG = "unbuilt"
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?")
_DEFAULT_FILES = ("Containerfile", "Dockerfile")
_HASH_DIGITS = 8
_SHOWN_FILES = 5


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    environment: str | None
    root: Path
    tag: str = ""
    build_type: str = ""
    push: bool = False
    platform: str = ""
    force: bool = False
    services: tuple[str, ...] = ()
    dry_run: bool = False
    json: bool = False


@dataclass(frozen=True)
class Order:
    """What is built: `references` and `sources` by service, `login` for a push."""

    environment: Environment
    engine: Engine
    builds: tuple[Build, ...]
    references: Mapping[str, str]
    sources: Mapping[str, Source]
    tag: str
    build_type: BuildType
    platforms: tuple[str, ...]
    created: str
    login: Login | None

    @property
    def many(self) -> bool:
        """Whether each image is a list of several platforms'."""
        return len(self.platforms) > 1

    def command(self, build: Build) -> tuple[str, ...]:
        """The command line that builds one service."""
        found = self.sources[build.service]
        marks = building.labels(
            revision=f"{found.revision}+changes" if found.dirty else found.revision,
            version=found.version if found.version and found.version in self.tag else self.tag,
            created=self.created,
            source=found.origin,
            tag=self.tag,
            build_type=self.build_type,
        )
        reference = self.references[build.service]
        return building.build(self.engine, build, reference, marks, self.build_type, self.platforms)


def order(request: Request) -> Order:
    """What this request builds. Raises ConfigError or PreflightError; nothing was built."""
    build_type, platforms = _words(request)
    environment = chosen(request.environment, request.root, request.tag)
    builds = _builds(environment, request.services)
    found = engine.find(environment.pipeline.engine)
    _check(builds, found, platforms)
    if not request.dry_run:
        engine.check(found)
    sources = {build.service: source.look(build.context) for build in builds}
    if not request.force:
        _refuse_dirty(sources)
    now = datetime.now(UTC)
    tag = request.tag or made_tag(sources, production=is_production(environment), now=now)
    return Order(
        environment=environment,
        engine=found,
        builds=tuple(_with_file(build, found) for build in builds),
        references={build.service: f"{_repository(environment, build.service)}:{tag}" for build in builds},
        sources=sources,
        tag=tag,
        build_type=build_type,
        platforms=platforms,
        created=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        login=environment.targets[0].application.login,
    )


def is_production(environment: Environment) -> bool:
    """Whether an environment is production, by its name or by its ENVIRONMENT."""
    return "production" in {environment.name, *(target.application.environment for target in environment.targets)}


def chosen(name: str | None, root: Path, tag: str) -> Environment:
    """The environment that is meant; without a name that of DEPLOY_ENV, else any whose env file is here.

    Where several are, they have to agree on everything that counts for a build. Raises ConfigError.
    """
    name = name or os.environ.get("DEPLOY_ENV") or None
    names = (name,) if name else config.filled_in(root)
    if not names:
        return config.load(None, root=root)
    found = [config.load(one, root=root, tag=tag or _NO_TAG) for one in names]
    if len({_what_counts(one) for one in found}) > 1:
        raise ConfigError(
            f"No environment was named, and {', '.join(names)} differ in their images, builds or registry login. "
            "Nothing was built.",
            next_step="name one with --env, or with DEPLOY_ENV in this shell",
        )
    return min(found, key=is_production)


def _what_counts(environment: Environment) -> tuple[object, ...]:
    images = tuple(
        (service.name, service.image.repository)
        for target in environment.targets
        for service in target.application.services
    )
    return environment.pipeline, frozenset(images), environment.targets[0].application.login


def made_tag(sources: Mapping[str, Source], *, production: bool, now: datetime) -> str:
    """A tag from Git: version and short hash; outside of production the UTC time between them. Raises ConfigError."""
    revisions = {found.revision for found in sources.values()}
    if "" in revisions or len(revisions) > 1:
        listed = ", ".join(f"{service} {found.revision[:12] or 'no commit'}" for service, found in sources.items())
        raise ConfigError(
            f"A tag cannot be made from Git: the contexts are not of one commit ({listed}). Nothing was built.",
            next_step="name it: --tag v2.0.1",
        )
    found = next(iter(sources.values()))
    version = re.sub(r"[^A-Za-z0-9_.-]", "-", found.version or "0.0.0")[:80]
    parts = [version, *([] if production else [f"{now:%Y%m%dT%H%M%SZ}"]), found.revision[:_HASH_DIGITS]]
    return "-".join([*parts, *(["dirty"] if any(one.dirty for one in sources.values()) else [])])


def _words(request: Request) -> tuple[BuildType, tuple[str, ...]]:
    mistakes = []
    kinds = {kind.value: kind for kind in BuildType}
    if request.build_type and request.build_type not in kinds:
        mistakes.append(Mistake("command line", "--build-type", repr(request.build_type), " or ".join(kinds)))
    platforms = tuple(word.strip() for word in request.platform.split(",")) if request.platform else ()
    mistakes += [
        Mistake("command line", "--platform", repr(word), "os/arch, such as linux/amd64 or linux/arm64,linux/amd64")
        for word in platforms
        if not _PLATFORM.fullmatch(word)
    ]
    if mistakes:
        raise ConfigError("The command line has a mistake; nothing was built.", mistakes)
    return kinds.get(request.build_type, BuildType.RELEASE), platforms


def _builds(environment: Environment, services: Sequence[str]) -> tuple[Build, ...]:
    """The builds that are asked for: all, or those of these services. Raises ConfigError."""
    known = {build.service: build for build in environment.pipeline.builds}
    if not known:
        raise ConfigError(
            "No service in services.yaml has a `build:` section. Nothing was built.",
            next_step="say how it is built: build: {context: ../memoryark/backend}",
        )
    mistakes = [
        Mistake("command line", "--service", repr(name), f"a service with a `build:` section: {', '.join(known)}")
        for name in services
        if name not in known
    ]
    if mistakes:
        raise ConfigError("The command line has a mistake; nothing was built.", mistakes)
    return tuple(build for name, build in known.items() if not services or name in services)


def _check(builds: Sequence[Build], found: Engine, platforms: Sequence[str]) -> None:
    """What is built is there, and the engine can. Raises ConfigError."""
    mistakes = []
    for build in builds:
        place, files = f"services.{build.service}.build", [build.file] if build.file else []
        defaults = [str(Path(build.context) / name) for name in _DEFAULT_FILES]
        if not Path(build.context).is_dir():
            mistakes.append(
                Mistake("services.yaml", f"{place}.context", f"{build.context}: no such folder", "a folder")
            )
        elif not any(Path(file).is_file() for file in files or defaults):
            missing = " and ".join(files or defaults)
            mistakes.append(Mistake("services.yaml", f"{place}.file", f"no {missing}", "a Containerfile"))
        if build.squash and found.docker:
            mistakes.append(Mistake("services.yaml", f"{place}.squash", "true, with Docker", "Podman, or false"))
    if len(platforms) > 1 and found.docker:
        expected = "one platform: Docker keeps a list of several in a registry alone; Podman here"
        mistakes.append(Mistake("command line", "--platform", repr(",".join(platforms)), expected))
    if mistakes:
        raise ConfigError("The images cannot be built; nothing was begun.", mistakes)


def _with_file(build: Build, found: Engine) -> Build:
    """The build as both engines understand it: Docker by itself looks for a Dockerfile alone."""
    file = Path(build.context) / _DEFAULT_FILES[0]
    return replace(build, file=str(file)) if found.docker and not build.file and file.is_file() else build


def differences(sources: Mapping[str, Source]) -> list[str]:
    """Which services' work trees differ from their commits, and in what."""
    return [
        f"{service}: {found.root} differs from its commit: {_listed(found.dirty)}"
        for service, found in sources.items()
        if found.dirty
    ]


def _refuse_dirty(sources: Mapping[str, Source]) -> None:
    lines = differences(sources)
    if lines:
        raise PreflightError(
            "the work tree is not clean; nothing was built.\n  " + "\n  ".join(lines),
            next_step="commit, stash or ignore the files, or build them as they are with --force",
        )


def _listed(rows: Sequence[str]) -> str:
    more = f" and {len(rows) - _SHOWN_FILES} more" if len(rows) > _SHOWN_FILES else ""
    return ", ".join(row[3:] for row in rows[:_SHOWN_FILES]) + more


def _repository(environment: Environment, service: str) -> str:
    """Where a service's image goes. Raises ConfigError where the hosts differ."""
    found = {target.application.service(service).image.repository for target in environment.targets}
    if len(found) > 1:
        raise ConfigError(
            f"{service}: its hosts name different images ({', '.join(sorted(found))}). Nothing was built."
        )
    return found.pop()
