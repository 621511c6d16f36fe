"""Replacing a file of this machine: whole or not at all, and never readable by others meanwhile."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fabfile.errors import ConfigError

#: Of a file with secrets, encrypted or not, and of a file that everybody may read.
PRIVATE, PUBLIC = 0o600, 0o644


def replace(path: Path, data: bytes, mode: int) -> None:
    """Put these bytes in the place of a file, on disk before they are there under its name; a link stays a link.

    The half-written file has the ending of the file itself, so that Git ignores it as it does that one.
    Raises ConfigError.
    """
    try:
        _replace(path, data, mode)
    except OSError as error:
        said = error.strerror or type(error).__name__
        raise ConfigError(
            f"{path} cannot be written ({said}) and was left as it is.", next_step="check owner, mode and free space"
        ) from error


def _replace(path: Path, data: bytes, mode: int) -> None:
    real = path.resolve()
    half = _half(real, data, mode)
    try:
        half.replace(real)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    _sync(real.parent)


def _half(real: Path, data: bytes, mode: int) -> Path:
    """These bytes on disk beside the file whose place they will take."""
    real.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".half-", suffix=real.suffix, dir=real.parent)
    half = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    return half


@dataclass(frozen=True)
class NewFile:
    """A file that is to be there; `keep` says whether what stands in its place is kept beside it."""

    path: Path
    data: bytes
    mode: int
    keep: bool = False


def replace_all(files: Sequence[NewFile]) -> tuple[Path, ...]:
    """Write all of these files or none of them; hands back where the old ones are kept. Raises ConfigError."""
    done: list[tuple[Path, bytes | None, int]] = []
    halves: list[Path] = []
    kept: list[Path] = []
    try:
        before = [_before(file.path.resolve()) for file in files]
        for file in files:
            halves.append(_half(file.path.resolve(), file.data, file.mode))
        for file, (real, old, mode) in zip(files, before, strict=True):
            if file.keep and old is not None:
                kept.append(_aside(real))
                _replace(kept[-1], old, mode)
        for half, was in zip(halves, before, strict=True):
            done.append(was)
            half.replace(was[0])
            _sync(was[0].parent)
    except BaseException as error:
        for path, old, mode in reversed(done):
            path.unlink(missing_ok=True) if old is None else _replace(path, old, mode)
        for path in (*halves, *kept):
            path.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise ConfigError(
            f"The files cannot be written ({error}). None of them was.", next_step="check owner, mode and free space"
        ) from error
    return tuple(kept)


def _before(real: Path) -> tuple[Path, bytes | None, int]:
    if not real.exists():
        return real, None, 0
    return real, real.read_bytes(), real.stat().st_mode & 0o777


def _aside(real: Path) -> Path:
    """A free name beside a file, with its ending: what Git ignores of the one it ignores of the other."""
    numbers = ("", *map(str, range(2, 1000)))
    names = (real.with_name(f"{real.stem}.bak{number}{real.suffix}") for number in numbers)
    return next(path for path in names if not os.path.lexists(path))


def replace_text(path: Path, text: str) -> None:
    """The same for a text that everybody may read; a file that is there keeps its mode. Raises ConfigError."""
    mode = path.stat().st_mode & 0o777 if path.exists() else PUBLIC
    replace(path, text.encode(errors="surrogateescape"), mode)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
