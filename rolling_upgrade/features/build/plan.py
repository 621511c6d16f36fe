"""Plan a build: services, work trees, references and labels. The plan finds every problem before a build starts."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rolling_upgrade.engine import git, local_command
from rolling_upgrade.engine.model import Build, BuildType, Environment, Source
from rolling_upgrade.errors import ConfigError, ConfigIssue, PreflightError, usage_error
from rolling_upgrade.features.build import builder
from rolling_upgrade.features.build.builder import Engine

#: Labels of an image. Source: the OCI image specification, annotations.md, pre-defined annotation keys.
_OCI = "org.opencontainers.image"
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?")
_DEFAULT_FILES = ("Containerfile", "Dockerfile")
_HASH_DIGITS = 8
_SHOWN_FILES = 5
_GIT_SECONDS = 60.0
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")
#: The error of Git outside a repository. The operator sees every other error.
_NO_REPOSITORY = "not a git repository"


@dataclass(frozen=True)
class BuildPlan:
    """The images to build. `references` and `sources` are by service."""

    environment: Environment
    engine: Engine
    builds: tuple[Build, ...]
    references: Mapping[str, str]
    sources: Mapping[str, Source]
    tag: str
    build_type: BuildType
    platforms: tuple[str, ...]
    created: str

    @property
    def many(self) -> bool:
        """Whether each image is a manifest list of several platforms."""
        return len(self.platforms) > 1

    def labels(self, service: str) -> dict[str, str]:
        """Return the labels of an image, without empty values."""
        tree = self.sources[service]
        values = {
            "revision": f"{tree.revision}+changes" if tree.dirty else tree.revision,
            "version": tree.version if tree.version and tree.version in self.tag else self.tag,
            "created": self.created,
            "source": tree.origin,
            "ref.name": self.tag,
        }
        named = {f"{_OCI}.{name}": value for name, value in values.items() if value}
        return {**named, "rolling.build-type": self.build_type.value}

    def command(self, build: Build) -> tuple[str, ...]:
        """Return the command line that builds one service."""
        reference, labels = self.references[build.service], self.labels(build.service)
        return builder.build_command(self.engine, build, reference, labels, self.build_type, self.platforms)


def plan_build(
    environment: Environment,
    *,
    tag: str = "",
    build_type: str = "",
    platform: str = "",
    services: Sequence[str] = (),
    force: bool = False,
    dry_run: bool = False,
) -> BuildPlan:
    """Plan the build. Raises ConfigError or PreflightError before anything is built."""
    kind, platforms = _options(build_type, platform)
    builds = _builds(environment, services)
    engine = builder.find_engine(environment.pipeline.engine, environment.pipeline.pass_env)
    _check(builds, engine, platforms)
    if not dry_run:
        builder.check_engine(engine)
    sources = {build.service: read_source(build.context) for build in builds}
    if not force:
        _refuse_dirty(sources)
    now = datetime.now(UTC)
    tag = tag or tag_from_git(sources, production=is_production(environment), now=now)
    return BuildPlan(
        environment=environment,
        engine=engine,
        builds=tuple(_with_file(build, engine) for build in builds),
        references={build.service: f"{_repository(environment, build.service)}:{tag}" for build in builds},
        sources=sources,
        tag=tag,
        build_type=kind,
        platforms=platforms,
        created=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def is_production(environment: Environment) -> bool:
    """Whether the environment is production, by its name or its ENVIRONMENT."""
    return "production" in {environment.name, *(target.application.environment for target in environment.targets)}


def tag_from_git(sources: Mapping[str, Source], *, production: bool, now: datetime) -> str:
    """Make a tag from version and short hash, outside production also from the UTC time. Raises ConfigError."""
    revisions = {tree.revision for tree in sources.values()}
    if "" in revisions or len(revisions) > 1:
        listed = ", ".join(f"{service} {tree.revision[:12] or 'no commit'}" for service, tree in sources.items())
        raise ConfigError(
            f"Git gives no tag: the contexts are not at one commit ({listed}). Nothing was built.",
            next_step="pass one: --tag v2.0.1",
        )
    first = next(iter(sources.values()))
    version = re.sub(r"[^A-Za-z0-9_.-]", "-", first.version or "0.0.0")[:80]
    parts = [version, *([] if production else [f"{now:%Y%m%dT%H%M%SZ}"]), first.revision[:_HASH_DIGITS]]
    return "-".join([*parts, *(["dirty"] if any(tree.dirty for tree in sources.values()) else [])])


def _options(build_type: str, platform: str) -> tuple[BuildType, tuple[str, ...]]:
    issues = []
    kinds = {kind.value: kind for kind in BuildType}
    if build_type and build_type not in kinds:
        issues.append(("--build-type", repr(build_type), " or ".join(kinds)))
    platforms = tuple(word.strip() for word in platform.split(",")) if platform else ()
    issues += [
        ("--platform", repr(word), "os/arch, such as linux/amd64 or linux/arm64,linux/amd64")
        for word in platforms
        if not _PLATFORM.fullmatch(word)
    ]
    if issues:
        raise usage_error(*issues, nothing="built")
    return kinds.get(build_type, BuildType.RELEASE), platforms


def _builds(environment: Environment, services: Sequence[str]) -> tuple[Build, ...]:
    """Return the builds of the services, by default all. Raises ConfigError."""
    known = {build.service: build for build in environment.pipeline.builds}
    if not known:
        raise ConfigError(
            "No service in services.yaml has a `build:` section. Nothing was built.",
            next_step="add one, such as build: {context: ../shop/web}",
        )
    issues = [
        ("--service", repr(name), f"a service with a `build:` section: {', '.join(known)}")
        for name in services
        if name not in known
    ]
    if issues:
        raise usage_error(*issues, nothing="built")
    return tuple(build for name, build in known.items() if not services or name in services)


def _check(builds: Sequence[Build], engine: Engine, platforms: Sequence[str]) -> None:
    """Check that the contexts and files exist and that the engine can build them. Raises ConfigError."""
    issues = []
    for build in builds:
        key = f"services.{build.service}.build"
        files = [build.file] if build.file else [str(Path(build.context) / name) for name in _DEFAULT_FILES]
        if not Path(build.context).is_dir():
            problem = f"{build.context}: no such directory"
            issues.append(ConfigIssue("services.yaml", f"{key}.context", problem, "a directory"))
        elif not any(Path(file).is_file() for file in files):
            issues.append(ConfigIssue("services.yaml", f"{key}.file", f"no {' and '.join(files)}", "a Containerfile"))
        if build.squash and engine.is_docker:
            issues.append(ConfigIssue("services.yaml", f"{key}.squash", "true, with Docker", "Podman, or false"))
    if len(platforms) > 1 and engine.is_docker:
        expected = "one platform with Docker, which stores manifest lists only in a registry; or Podman"
        issues.append(ConfigIssue("command line", "--platform", repr(",".join(platforms)), expected))
    if issues:
        raise ConfigError("The images cannot be built; nothing was started.", issues)


def _with_file(build: Build, engine: Engine) -> Build:
    """Name the Containerfile for Docker, which looks only for a Dockerfile by default."""
    file = Path(build.context) / _DEFAULT_FILES[0]
    return replace(build, file=str(file)) if engine.is_docker and not build.file and file.is_file() else build


def differences(sources: Mapping[str, Source]) -> list[str]:
    """Return one line per service whose work tree differs from its commit."""
    return [
        f"{service}: {tree.root} differs from its commit: {_listed(tree.dirty)}"
        for service, tree in sources.items()
        if tree.dirty
    ]


def _refuse_dirty(sources: Mapping[str, Source]) -> None:
    lines = differences(sources)
    if lines:
        raise PreflightError(
            "the work tree is not clean; nothing was built.\n  " + "\n  ".join(lines),
            next_step="commit, stash or ignore the files, or build the work tree with --force",
        )


def _listed(rows: Sequence[str]) -> str:
    more = f" and {len(rows) - _SHOWN_FILES} more" if len(rows) > _SHOWN_FILES else ""
    return ", ".join(row[3:] for row in rows[:_SHOWN_FILES]) + more


def _repository(environment: Environment, service: str) -> str:
    """Return the repository of a service's image. Raises ConfigError when the hosts differ."""
    repositories = {target.application.service(service).image.repository for target in environment.targets}
    if len(repositories) > 1:
        raise ConfigError(
            f"{service}: its hosts name different images ({', '.join(sorted(repositories))}). Nothing was built."
        )
    return repositories.pop()


def read_source(directory: str) -> Source:
    """Return the state of the work tree; an empty Source without Git or a commit. Raises PreflightError."""
    top = _git(directory, "rev-parse", "--show-toplevel")
    if not top.ok:
        if top.status == 127 or _NO_REPOSITORY in top.output_tail:
            return Source()
        raise PreflightError(f"{directory}: git refused to read it: {top.output_tail}. Nothing was built.")
    revision = _git(directory, "rev-parse", "--verify", "HEAD")
    if not revision.ok:
        return Source()
    tag = _git(directory, "describe", "--tags", "--match", "v[0-9]*", "--abbrev=0")
    origin = _git(directory, "config", "--get", "remote.origin.url")
    branch = _git(directory, "rev-parse", "--abbrev-ref", "HEAD").output
    # Untracked files get into an image too; Git ignores the files that must not.
    dirty = _git(directory, "status", "--porcelain", "--untracked-files=normal")
    if not dirty.ok:
        raise PreflightError(
            f"{directory}: git status failed: {dirty.output_tail}. Nothing was built.",
            next_step=f"fix the cause until git -C {shlex.quote(directory)} status succeeds",
        )
    return Source(
        root=top.output,
        revision=revision.output,
        branch="" if branch == "HEAD" else branch,
        version=tag.output if tag.ok else "",
        origin=_CREDENTIALS.sub("", origin.output) if origin.ok else "",
        dirty=tuple(dirty.output.splitlines()),
    )


def _git(directory: str, *words: str) -> local_command.CommandResult:
    # Confined: Git runs the filters of its configuration when it compares files.
    argv, base = git.command(directory, *words), git.environment(os.environ)
    return local_command.capture(argv, timeout_seconds=_GIT_SECONDS, base=base, confined=True)
