"""Build, scan and push images with the container engine of this workstation."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rolling_upgrade.engine import local_command, process_environment, untrusted
from rolling_upgrade.engine.local_command import Ended
from rolling_upgrade.engine.model import Built, Image, Login
from rolling_upgrade.errors import PreflightError, StepFailed
from rolling_upgrade.features.build import shell
from rolling_upgrade.features.build.shell import Engine

ENGINES = ("podman", "docker")
BUILD_SECONDS = 7200.0
PUSH_SECONDS = 3600.0
SCAN_SECONDS = 1800.0
_LOOK_SECONDS = 60.0

Say = Callable[[str], None]


def find(words: Sequence[str], pass_env: Sequence[str] = ()) -> Engine:
    """Return the configured engine, or the first installed one. Raises PreflightError."""
    if not words:
        words = next(((name,) for name in ENGINES if shutil.which(name)), ())
    if not words or not shutil.which(words[0]):
        missing = f"{words[0]} is not on this workstation" if words else f"neither {' nor '.join(ENGINES)} is installed"
        raise PreflightError(
            f"{missing}: nothing was built.",
            next_step="install podman, or name another engine: `building: {engine: …}` in services.yaml",
        )
    return Engine(tuple(words), tuple(pass_env))


def check(engine: Engine) -> None:
    """Raise PreflightError, with the error output, for an engine that does not answer."""
    ended = _answer(engine, shell.version(engine))
    if not ended.ok:
        raise PreflightError(
            f"{' '.join(engine.words)} gives no answer ({_how(ended)}): nothing was built.\n{ended.output_tail.strip()}",
            next_step="start its service, or name another engine: `building: {engine: …}` in services.yaml",
        )


def size(engine: Engine, image: str) -> tuple[str, int]:
    """Return the id and size, bytes, of a local image; ('', 0) for a missing image or a manifest list."""
    ended = _answer(engine, shell.size(engine, image))
    words = ended.output.split()
    count = untrusted.integer(words[1], default=None) if ended.ok and len(words) == 2 else None
    return (words[0], count) if count is not None else ("", 0)


def newest_size(engine: Engine, repository: str) -> int:
    """Return the size, bytes, of the repository's newest local image; 0 for none."""
    ended = _answer(engine, shell.newest(engine, repository))
    ids = ended.output.split() if ended.ok else []
    return size(engine, ids[0])[1] if ids else 0


def build(
    engine: Engine, service: str, reference: str, argv: Sequence[str], say: Say, *, platforms: Sequence[str]
) -> Built:
    """Build one image and pass on each line. Raises StepFailed with the last lines."""
    before = newest_size(engine, Image.parse(reference).repository)
    if len(platforms) > 1:
        _answer(engine, shell.forget_list(engine, reference))
    with tempfile.TemporaryDirectory(prefix="rolling-build-") as folder:
        kept = Path(folder) / "id"
        # Confined: the build steps are the application's own code, and so are Docker's plugins and helpers.
        ended = _run(engine, shell.telling_id(argv, str(kept)), say, seconds=BUILD_SECONDS, confined=True)
        made = len(platforms) > 1 or kept.exists()
    if not ended.ok or not made:
        raise StepFailed(
            f"{service}: the image was not built ({_how(ended)}); nothing was pushed.\n{ended.output_tail}",
            next_step="fix the cause shown above and run the same command again",
        )
    if len(platforms) > 1:
        _check_list(engine, service, reference, platforms)
        return Built(service, reference, ended.seconds)
    found, bytes_ = size(engine, reference)
    return Built(service, reference, ended.seconds, found, bytes_, before)


def _check_list(engine: Engine, service: str, reference: str, platforms: Sequence[str]) -> None:
    """Raise StepFailed for a manifest list without one of the platforms."""
    printed: list[str] = []
    _run(engine, shell.list_platforms(engine, reference), printed.append, seconds=_LOOK_SECONDS)
    expected = {"/".join(platform.split("/")[:2]) for platform in platforms}
    lacking = expected - shell.platforms_of("\n".join(printed))
    if lacking:
        raise StepFailed(
            f"{service}: {reference} was built, but without {', '.join(sorted(lacking))}; nothing was pushed.",
            next_step="build the platforms one by one, or with a newer Podman",
        )


def scan(engine: Engine, command: Sequence[str], built: Built, say: Say) -> None:
    """Run the scan hook on an image, confined like the application's own code. Raises StepFailed when it fails."""
    base = process_environment.for_application(os.environ, engine.pass_env)
    argv = shell.scan(command, built.reference)
    try:
        ended = local_command.run(
            argv, say, base=base, env={"IMAGE": built.reference}, timeout_seconds=SCAN_SECONDS, confined=True
        )
    except OSError as error:
        ended = Ended(127, 0.0, str(error))
    if not ended.ok:
        raise StepFailed(
            f"{built.service}: the scan refused {built.reference} ({_how(ended)}); nothing was pushed.\n"
            f"{ended.output_tail}",
            next_step="fix its findings, or change `scan` in services.yaml",
        )


@contextmanager
def logged_in(engine: Engine, login: Login | None) -> Iterator[tuple[str, bool]]:
    """Yield a temporary folder for the login file, and whether it holds a login. Raises PreflightError."""
    with tempfile.TemporaryDirectory(prefix="rolling-login-") as folder:
        if login is not None:
            argv = shell.login(engine, login, folder)
            ended = _run(engine, argv, lambda _: None, seconds=_LOOK_SECONDS, stdin=login.password)
            if not ended.ok:
                raise PreflightError(
                    f"{login.registry} refused {login.username}; nothing was pushed.\n{ended.output_tail}",
                    next_step="check REGISTRY, REGISTRY_USERNAME and REGISTRY_PASSWORD",
                )
        yield folder, login is not None


def push(engine: Engine, built: Built, folder: str, say: Say, *, many: bool, login: bool) -> Built:
    """Push one image and return it with its digest. Raises StepFailed with the last lines."""
    kept = Path(folder) / "digest"
    kept.unlink(missing_ok=True)
    argv = shell.push(engine, built.reference, folder, many=many, logged_in=login)
    ended = _run(engine, argv, say, seconds=PUSH_SECONDS)
    digest = kept.read_text().strip() if kept.exists() else shell.pushed_digest(ended.output_tail)
    if not ended.ok or not digest:
        raise StepFailed(
            f"{built.service}: {built.reference} was not pushed ({_how(ended)}).\n{ended.output_tail}",
            next_step="check the registry and the login, then run the same command again",
        )
    return replace(built, digest=digest)


def _answer(engine: Engine, argv: Sequence[str]) -> Ended:
    """Run a short query of the engine."""
    return local_command.answer(argv, timeout_seconds=_LOOK_SECONDS, base=_environment(engine))


def _run(
    engine: Engine, argv: Sequence[str], say: Say, *, seconds: float, stdin: str = "", confined: bool = False
) -> Ended:
    """Run the engine. Confined, it may still trace: as root it opens the namespaces of its containers."""
    base = _environment(engine)
    try:
        return local_command.run(
            argv, say, base=base, stdin=stdin, timeout_seconds=seconds, confined=confined, may_trace=True
        )
    except OSError as error:
        return Ended(127, 0.0, str(error))


def _environment(engine: Engine) -> dict[str, str]:
    return process_environment.for_engine(os.environ, engine.pass_env)


def _how(ended: Ended) -> str:
    if ended.timed_out:
        return f"stopped after {ended.seconds:.0f} s"
    return f"it left {ended.left_running} processes running" if ended.left_running else f"status {ended.status}"
