"""Build, scan and push images with Podman or Docker on this workstation.

A password travels only on the standard input of `login`, which writes it to a file that the run deletes.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from rolling_upgrade.engine import local_command, untrusted
from rolling_upgrade.engine.local_command import CommandResult
from rolling_upgrade.engine.model import Build, BuildType, Image, Login
from rolling_upgrade.errors import PreflightError, StepFailed

ENGINES = ("podman", "docker")
BUILD_SECONDS = 7200.0
PUSH_SECONDS = 3600.0
SCAN_SECONDS = 1800.0
QUERY_SECONDS = 60.0
_IMAGE_VARIABLE = re.compile(r"\$\{?IMAGE\b")

Log = Callable[[str], None]


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


@dataclass(frozen=True)
class BuildResult:
    """A built image: sizes in bytes (0: unknown, or no previous image), and the digest after a push."""

    service: str
    reference: str = field(metadata={"key": "image"})
    id: str = ""
    digest: str = ""
    bytes: int = 0
    previous_bytes: int = field(default=0, metadata={"key": "bytes_before"})
    seconds: float = 0.0


def find_engine(command: Sequence[str], pass_env: Sequence[str] = ()) -> Engine:
    """Return the configured engine, or the first installed one. Raises PreflightError."""
    if not command:
        command = next(((name,) for name in ENGINES if shutil.which(name)), ())
    if not command or not shutil.which(command[0]):
        neither = f"neither {' nor '.join(ENGINES)} is installed"
        missing = f"{command[0]} is not on this workstation" if command else neither
        raise PreflightError(
            f"{missing}: nothing was built.",
            next_step="install podman, or name another engine: `building: {engine: …}` in services.yaml",
        )
    return Engine(tuple(command), tuple(pass_env))


def check_engine(engine: Engine) -> None:
    """Raise PreflightError, with the error output, when the engine does not answer."""
    # Docker's client answers alone; its daemon may be stopped.
    ended = _query(engine, "version", *(["--format", "{{.Server.Version}}"] if engine.is_docker else []))
    if not ended.ok:
        raise PreflightError(
            f"{' '.join(engine.command)} does not answer ({_failure(ended)}): nothing was built.\n{ended.output_tail.strip()}",
            next_step="start its service, or name another engine: `building: {engine: …}` in services.yaml",
        )


def size(engine: Engine, image: str) -> tuple[str, int]:
    """Return the id and the size in bytes of a local image; ('', 0) for a missing image or a manifest list."""
    ended = _query(engine, "image", "inspect", "--format", "{{.Id}} {{.Size}}", image)
    fields = ended.output.split()
    count = untrusted.integer(fields[1], default=None) if ended.ok and len(fields) == 2 else None
    return (fields[0], count) if count is not None else ("", 0)


def newest_size(engine: Engine, repository: str) -> int:
    """Return the size of the repository's newest local image in bytes; 0 for none."""
    ended = _query(engine, "images", "--no-trunc", "--format", "{{.ID}}", repository)
    ids = ended.output.split() if ended.ok else []
    return size(engine, ids[0])[1] if ids else 0


def build_command(
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


def build(
    engine: Engine, service: str, reference: str, argv: Sequence[str], log: Log, *, platforms: Sequence[str]
) -> BuildResult:
    """Build one image and log each line of output. Raises StepFailed with the last lines."""
    previous_bytes = newest_size(engine, Image.parse(reference).repository)
    if len(platforms) > 1:
        # A build would add to an earlier list.
        _query(engine, "manifest", "rm", reference)
    with tempfile.TemporaryDirectory(prefix="rolling-build-") as directory:
        id_file = Path(directory) / "id"
        # The file tells a built image from an interrupted build, which may exit with 0.
        argv = (*argv[:-1], "--iidfile", str(id_file), argv[-1])
        # Confined: the build steps are the application's own code, and so are Docker's plugins and helpers.
        ended = _run(engine, argv, log, seconds=BUILD_SECONDS, confined=True)
        is_built = len(platforms) > 1 or id_file.exists()
    if not ended.ok or not is_built:
        raise StepFailed(
            f"{service}: the image was not built ({_failure(ended)}); nothing was pushed.\n{ended.output_tail}",
            next_step="fix the cause shown above and run the same command again",
        )
    if len(platforms) > 1:
        _check_list(engine, service, reference, platforms)
        return BuildResult(service, reference, seconds=round(ended.seconds, 1))
    id, bytes_ = size(engine, reference)
    return BuildResult(
        service, reference, id, bytes=bytes_, previous_bytes=previous_bytes, seconds=round(ended.seconds, 1)
    )


def _check_list(engine: Engine, service: str, reference: str, platforms: Sequence[str]) -> None:
    """Raise StepFailed when a manifest list lacks one of the platforms."""
    expected = {"/".join(platform.split("/")[:2]) for platform in platforms}
    lacking = expected - platforms_of(_query(engine, "manifest", "inspect", reference).output)
    if lacking:
        raise StepFailed(
            f"{service}: {reference} was built, but without {', '.join(sorted(lacking))}; nothing was pushed.",
            next_step="build the platforms one by one, or with a newer Podman",
        )


def platforms_of(text: str) -> set[str]:
    """Return the platforms of a manifest list, as os/arch; none for invalid JSON."""
    try:
        listed = untrusted.json_object(text)["manifests"]
        return {f"{entry['platform']['os']}/{entry['platform']['architecture']}" for entry in listed}
    except (ValueError, LookupError, TypeError):
        return set()


def scan(engine: Engine, command: Sequence[str], built: BuildResult, log: Log) -> None:
    """Run the scan hook on an image, confined like code of the application. Raises StepFailed when it fails."""
    base = local_command.application_environment(os.environ, engine.pass_env)
    argv = scan_command(command, built.reference)
    try:
        ended = local_command.run(
            argv, log, base=base, env={"IMAGE": built.reference}, timeout_seconds=SCAN_SECONDS, confined=True
        )
    except OSError as error:
        ended = CommandResult(127, 0.0, str(error))
    if not ended.ok:
        raise StepFailed(
            f"{built.service}: the scan refused {built.reference} ({_failure(ended)}); nothing was pushed.\n"
            f"{ended.output_tail}",
            next_step="fix its findings, or change `scan` in services.yaml",
        )


def scan_command(command: Sequence[str], image: str) -> tuple[str, ...]:
    """Return the scan command with the reference as its last argument, unless its shell text uses $IMAGE."""
    if tuple(command[:2]) == ("sh", "-c") and len(command) == 3:
        text = command[2]
        return tuple(command) if _IMAGE_VARIABLE.search(text) else ("sh", "-c", f'{text} "$@"', "sh", image)
    return (*command, image)


@contextmanager
def logged_in(engine: Engine, login: Login | None) -> Iterator[tuple[str, bool]]:
    """Yield a temporary directory for the login file, and whether it holds a login. Raises PreflightError."""
    with tempfile.TemporaryDirectory(prefix="rolling-login-") as directory:
        if login is not None:
            argv = login_command(engine, login, directory)
            ended = _run(engine, argv, lambda _: None, seconds=QUERY_SECONDS, stdin=login.password)
            if not ended.ok:
                raise PreflightError(
                    f"{login.registry} refused {login.username}; nothing was pushed.\n{ended.output_tail}",
                    next_step="check REGISTRY, REGISTRY_USERNAME and REGISTRY_PASSWORD",
                )
        yield directory, login is not None


def login_command(engine: Engine, login: Login, directory: str) -> tuple[str, ...]:
    """Log in to the registry, with the password on standard input, and store the login in the directory."""
    arguments = ("login", "--username", login.username, "--password-stdin")
    if engine.is_docker:
        return engine.argv("--config", directory, *arguments, login.registry)
    return engine.argv(*arguments, "--authfile", f"{directory}/auth.json", login.registry)


def push(engine: Engine, built: BuildResult, directory: str, log: Log, *, many: bool, login: bool) -> BuildResult:
    """Push one image and return it with its digest. Raises StepFailed with the last lines of output."""
    digest_file = Path(directory) / "digest"
    digest_file.unlink(missing_ok=True)
    argv = push_command(engine, built.reference, directory, many=many, logged_in=login)
    ended = _run(engine, argv, log, seconds=PUSH_SECONDS)
    digest = digest_file.read_text().strip() if digest_file.exists() else pushed_digest(ended.output_tail)
    if not ended.ok or not digest:
        raise StepFailed(
            f"{built.service}: {built.reference} was not pushed ({_failure(ended)}).\n{ended.output_tail}",
            next_step="check the registry and the login, then run the same command again",
        )
    return replace(built, digest=digest)


def push_command(engine: Engine, reference: str, directory: str, *, many: bool, logged_in: bool) -> tuple[str, ...]:
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


def _query(engine: Engine, *arguments: str) -> CommandResult:
    """Run a short query of the engine."""
    return local_command.capture(engine.argv(*arguments), timeout_seconds=QUERY_SECONDS, base=_environment(engine))


def _run(
    engine: Engine, argv: Sequence[str], log: Log, *, seconds: float, stdin: str = "", confined: bool = False
) -> CommandResult:
    """Run the engine. A confined one may still trace: as root it opens the namespaces of its containers."""
    base = _environment(engine)
    try:
        return local_command.run(
            argv, log, base=base, stdin=stdin, timeout_seconds=seconds, confined=confined, may_trace=True
        )
    except OSError as error:
        return CommandResult(127, 0.0, str(error))


def _environment(engine: Engine) -> dict[str, str]:
    return local_command.engine_environment(os.environ, engine.pass_env)


def _failure(ended: CommandResult) -> str:
    if ended.timed_out:
        return f"stopped after {ended.seconds:.0f} s"
    return f"it left {ended.left_running} processes running" if ended.left_running else f"status {ended.status}"
