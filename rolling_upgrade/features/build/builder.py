"""The engine of this workstation at work: it builds, judges and pushes images. It contacts no host."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fabfile.commands import building
from fabfile.commands.building import Engine
from fabfile.errors import PreflightError, StepFailed
from fabfile.model import Built, Image, Login
from fabfile.remote import local_command
from fabfile.remote.local_command import Ended

ENGINES = ("podman", "docker")
BUILD_SECONDS = 7200.0
PUSH_SECONDS = 3600.0
SCAN_SECONDS = 1800.0
_LOOK_SECONDS = 60.0

Say = Callable[[str], None]


def find(words: Sequence[str]) -> Engine:
    """The engine that is asked for, or the first one that is here. Raises PreflightError."""
    if not words:
        words = next(((name,) for name in ENGINES if shutil.which(name)), ())
    if not words or not shutil.which(words[0]):
        missing = f"{words[0]} is not on this workstation" if words else f"neither {' nor '.join(ENGINES)} is installed"
        raise PreflightError(
            f"{missing}: nothing was built.",
            next_step="install podman, or name another engine: `building: {engine: …}` in services.yaml",
        )
    return Engine(tuple(words))


def check(engine: Engine) -> None:
    """Have the engine answer before anything is asked of it. Raises PreflightError with its words."""
    ended = local_command.answer(building.version(engine), timeout_seconds=_LOOK_SECONDS)
    if not ended.ok:
        raise PreflightError(
            f"{' '.join(engine.words)} gives no answer ({_how(ended)}): nothing was built.\n{ended.last_words.strip()}",
            next_step="start its service, or name another engine: `building: {engine: …}` in services.yaml",
        )


def size(engine: Engine, image: str) -> tuple[str, int]:
    """The id and the bytes of an image that is here; ('', 0) when it is not, or is a list of several."""
    ended = local_command.answer(building.size(engine, image), timeout_seconds=_LOOK_SECONDS)
    words = ended.last_words.split()
    return (words[0], int(words[1])) if ended.ok and len(words) == 2 and words[1].isdigit() else ("", 0)


def newest_size(engine: Engine, repository: str) -> int:
    """The bytes of the repository's newest image that is here; 0 when there is none."""
    ended = local_command.answer(building.newest(engine, repository), timeout_seconds=_LOOK_SECONDS)
    ids = ended.last_words.split() if ended.ok else []
    return size(engine, ids[0])[1] if ids else 0


def build(
    engine: Engine, service: str, reference: str, argv: Sequence[str], say: Say, *, platforms: Sequence[str]
) -> Built:
    """Build one image, each line told as it comes. Raises StepFailed with the last ones."""
    before = newest_size(engine, Image.parse(reference).repository)
    if len(platforms) > 1:
        local_command.answer(building.forget_list(engine, reference), timeout_seconds=_LOOK_SECONDS)
    with tempfile.TemporaryDirectory(prefix="rolling-build-") as folder:
        kept = Path(folder) / "id"
        ended = _run(building.telling_id(argv, str(kept)), say, seconds=BUILD_SECONDS)
        made = len(platforms) > 1 or kept.exists()
    if not ended.ok or not made:
        raise StepFailed(
            f"{service}: the image was not built ({_how(ended)}); nothing was pushed.\n{ended.last_words}",
            next_step="the last lines above say why; correct the source and run the same command again",
        )
    if len(platforms) > 1:
        _check_list(engine, service, reference, platforms)
        return Built(service, reference, ended.seconds)
    found, bytes_ = size(engine, reference)
    return Built(service, reference, ended.seconds, found, bytes_, before)


def _check_list(engine: Engine, service: str, reference: str, platforms: Sequence[str]) -> None:
    """A list that lacks a platform must not be pushed. Raises StepFailed."""
    said: list[str] = []
    _run(building.list_platforms(engine, reference), said.append, seconds=_LOOK_SECONDS)
    wanted = {"/".join(platform.split("/")[:2]) for platform in platforms}
    lacking = wanted - building.platforms_of("\n".join(said))
    if lacking:
        raise StepFailed(
            f"{service}: {reference} was built, but without {', '.join(sorted(lacking))}; nothing was pushed.",
            next_step="build the platforms one by one, or with a newer Podman",
        )


def scan(command: Sequence[str], built: Built, say: Say) -> None:
    """Let the hook judge an image. Raises StepFailed when it refuses."""
    ended = _run(building.scan(command, built.reference), say, seconds=SCAN_SECONDS, env={"IMAGE": built.reference})
    if not ended.ok:
        raise StepFailed(
            f"{built.service}: the scan refused {built.reference} ({_how(ended)}); nothing was pushed.\n"
            f"{ended.last_words}",
            next_step="mend what it found, or change `scan` in services.yaml",
        )


@contextmanager
def logged_in(engine: Engine, login: Login | None) -> Iterator[tuple[str, bool]]:
    """A folder of this run alone, with a login where one is given, and whether it has. Raises PreflightError."""
    with tempfile.TemporaryDirectory(prefix="rolling-login-") as folder:
        if login is not None:
            argv = building.login(engine, login, folder)
            ended = _run(argv, lambda _: None, seconds=_LOOK_SECONDS, stdin=login.password)
            if not ended.ok:
                raise PreflightError(
                    f"{login.registry} refused {login.username}: nothing was pushed.\n{ended.last_words}",
                    next_step="check REGISTRY, REGISTRY_USERNAME and REGISTRY_PASSWORD",
                )
        yield folder, login is not None


def push(engine: Engine, built: Built, folder: str, say: Say, *, many: bool, login: bool) -> Built:
    """Push one image; hand it back with its digest. Raises StepFailed with the last lines."""
    kept = Path(folder) / "digest"
    kept.unlink(missing_ok=True)
    ended = _run(building.push(engine, built.reference, folder, many=many, logged_in=login), say, seconds=PUSH_SECONDS)
    digest = kept.read_text().strip() if kept.exists() else building.pushed_digest(ended.last_words)
    if not ended.ok or not digest:
        raise StepFailed(
            f"{built.service}: {built.reference} was not pushed ({_how(ended)}).\n{ended.last_words}",
            next_step="check the registry and the login, then run the same command again",
        )
    return replace(built, digest=digest)


def _run(argv: Sequence[str], say: Say, *, seconds: float, env: dict[str, str] | None = None, stdin: str = "") -> Ended:
    try:
        return local_command.run(argv, say, env=env, stdin=stdin, timeout_seconds=seconds)
    except OSError as error:
        return Ended(127, 0.0, str(error))


def _how(ended: Ended) -> str:
    return f"stopped after {ended.seconds:.0f} s" if ended.timed_out else f"status {ended.status}"
