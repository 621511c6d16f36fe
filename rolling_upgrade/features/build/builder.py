"""Build, scan and push images with the container engine of this workstation."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rolling_upgrade.engine import local_command, process_environment, untrusted
from rolling_upgrade.engine.local_command import CommandResult
from rolling_upgrade.engine.model import Image, Login
from rolling_upgrade.errors import PreflightError, StepFailed
from rolling_upgrade.features.build import shell
from rolling_upgrade.features.build.shell import Engine

ENGINES = ("podman", "docker")
BUILD_SECONDS = 7200.0
PUSH_SECONDS = 3600.0
SCAN_SECONDS = 1800.0
QUERY_SECONDS = 60.0

Log = Callable[[str], None]


@dataclass(frozen=True)
class BuildResult:
    """A built image: sizes in bytes (0: unknown, or no previous image), and the digest after a push."""

    service: str
    reference: str
    seconds: float
    id: str = ""
    bytes: int = 0
    previous_bytes: int = 0
    digest: str = ""


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
    ended = _query(engine, shell.version(engine))
    if not ended.ok:
        raise PreflightError(
            f"{' '.join(engine.command)} does not answer ({_failure(ended)}): nothing was built.\n{ended.output_tail.strip()}",
            next_step="start its service, or name another engine: `building: {engine: …}` in services.yaml",
        )


def size(engine: Engine, image: str) -> tuple[str, int]:
    """Return the id and the size in bytes of a local image; ('', 0) for a missing image or a manifest list."""
    ended = _query(engine, shell.size(engine, image))
    fields = ended.output.split()
    count = untrusted.integer(fields[1], default=None) if ended.ok and len(fields) == 2 else None
    return (fields[0], count) if count is not None else ("", 0)


def newest_size(engine: Engine, repository: str) -> int:
    """Return the size of the repository's newest local image in bytes; 0 for none."""
    ended = _query(engine, shell.newest(engine, repository))
    ids = ended.output.split() if ended.ok else []
    return size(engine, ids[0])[1] if ids else 0


def build(
    engine: Engine, service: str, reference: str, argv: Sequence[str], log: Log, *, platforms: Sequence[str]
) -> BuildResult:
    """Build one image and log each line of output. Raises StepFailed with the last lines."""
    previous_bytes = newest_size(engine, Image.parse(reference).repository)
    if len(platforms) > 1:
        _query(engine, shell.remove_list(engine, reference))
    with tempfile.TemporaryDirectory(prefix="rolling-build-") as directory:
        id_file = Path(directory) / "id"
        # Confined: the build steps are the application's own code, and so are Docker's plugins and helpers.
        ended = _run(engine, shell.with_id_file(argv, str(id_file)), log, seconds=BUILD_SECONDS, confined=True)
        is_built = len(platforms) > 1 or id_file.exists()
    if not ended.ok or not is_built:
        raise StepFailed(
            f"{service}: the image was not built ({_failure(ended)}); nothing was pushed.\n{ended.output_tail}",
            next_step="fix the cause shown above and run the same command again",
        )
    if len(platforms) > 1:
        _check_list(engine, service, reference, platforms)
        return BuildResult(service, reference, ended.seconds)
    id, bytes_ = size(engine, reference)
    return BuildResult(service, reference, ended.seconds, id, bytes_, previous_bytes)


def _check_list(engine: Engine, service: str, reference: str, platforms: Sequence[str]) -> None:
    """Raise StepFailed when a manifest list lacks one of the platforms."""
    printed: list[str] = []
    _run(engine, shell.inspect_list(engine, reference), printed.append, seconds=QUERY_SECONDS)
    expected = {"/".join(platform.split("/")[:2]) for platform in platforms}
    lacking = expected - shell.platforms_of("\n".join(printed))
    if lacking:
        raise StepFailed(
            f"{service}: {reference} was built, but without {', '.join(sorted(lacking))}; nothing was pushed.",
            next_step="build the platforms one by one, or with a newer Podman",
        )


def scan(engine: Engine, command: Sequence[str], built: BuildResult, log: Log) -> None:
    """Run the scan hook on an image, confined like code of the application. Raises StepFailed when it fails."""
    base = process_environment.for_application(os.environ, engine.pass_env)
    argv = shell.scan(command, built.reference)
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


@contextmanager
def logged_in(engine: Engine, login: Login | None) -> Iterator[tuple[str, bool]]:
    """Yield a temporary directory for the login file, and whether it holds a login. Raises PreflightError."""
    with tempfile.TemporaryDirectory(prefix="rolling-login-") as directory:
        if login is not None:
            argv = shell.login(engine, login, directory)
            ended = _run(engine, argv, lambda _: None, seconds=QUERY_SECONDS, stdin=login.password)
            if not ended.ok:
                raise PreflightError(
                    f"{login.registry} refused {login.username}; nothing was pushed.\n{ended.output_tail}",
                    next_step="check REGISTRY, REGISTRY_USERNAME and REGISTRY_PASSWORD",
                )
        yield directory, login is not None


def push(engine: Engine, built: BuildResult, directory: str, log: Log, *, many: bool, login: bool) -> BuildResult:
    """Push one image and return it with its digest. Raises StepFailed with the last lines of output."""
    digest_file = Path(directory) / "digest"
    digest_file.unlink(missing_ok=True)
    argv = shell.push(engine, built.reference, directory, many=many, logged_in=login)
    ended = _run(engine, argv, log, seconds=PUSH_SECONDS)
    digest = digest_file.read_text().strip() if digest_file.exists() else shell.pushed_digest(ended.output_tail)
    if not ended.ok or not digest:
        raise StepFailed(
            f"{built.service}: {built.reference} was not pushed ({_failure(ended)}).\n{ended.output_tail}",
            next_step="check the registry and the login, then run the same command again",
        )
    return replace(built, digest=digest)


def _query(engine: Engine, argv: Sequence[str]) -> CommandResult:
    """Run a short query of the engine."""
    return local_command.capture(argv, timeout_seconds=QUERY_SECONDS, base=_environment(engine))


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
    return process_environment.for_engine(os.environ, engine.pass_env)


def _failure(ended: CommandResult) -> str:
    if ended.timed_out:
        return f"stopped after {ended.seconds:.0f} s"
    return f"it left {ended.left_running} processes running" if ended.left_running else f"status {ended.status}"
