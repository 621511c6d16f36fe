"""Read and replace files on this machine safely.

A read neither hangs nor exhausts memory if the path is a FIFO, a device or a huge file. Writes are atomic, for one file
or for several together.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rolling_upgrade.engine.untrusted import size
from rolling_upgrade.errors import ConfigError

#: The largest configuration file, in bytes.
MOST_BYTES: Final = 1 << 20


def read_small(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a regular file. Raises OSError, also for a pipe, a device, or a file of more than `most` bytes."""
    # Check before opening too: opening a device may have side effects.
    _check_kind(path.stat().st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check_kind(os.fstat(descriptor).st_mode)
        file = os.fdopen(descriptor, "rb", closefd=False)
        data = file.read(most + 1)
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {size(most)}")
    return data


def _check_kind(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")


#: The most permissive mode of a file with secrets, which the group may read, and of a key.
OWNER_AND_GROUP, OWNER_ONLY = 0o740, 0o700


def exposed_mode(path: Path, allowed: int = OWNER_AND_GROUP) -> str:
    """The mode of a file in octal if it grants more than `allowed`; "" otherwise, or if the file is missing."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return ""
    return f"{mode:04o}" if mode & 0o777 & ~allowed else ""


#: The content of a .gitignore that makes Git ignore the whole directory, the .gitignore included.
IGNORE_ALL: Final = b"*\n"

#: The modes of a file with secrets, encrypted or not, and of a public file.
PRIVATE, PUBLIC = 0o600, 0o644


def replace(path: Path, data: bytes, mode: int) -> None:
    """Replace the content of a file atomically and durably; a link stays a link. Raises ConfigError.

    The temporary file has the suffix of the file, so that Git ignores both alike.
    """
    try:
        _replace(path, data, mode)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"{path} cannot be written ({reason}) and was left as it is.", next_step="check owner, mode and free space"
        ) from error


def _replace(path: Path, data: bytes, mode: int) -> None:
    real = path.resolve()
    temporary = _write_temporary(real, data, mode)
    try:
        temporary.replace(real)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(real.parent)


def _write_temporary(real: Path, data: bytes, mode: int) -> Path:
    """Write the bytes to a temporary file beside the destination."""
    real.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".half-", suffix=real.suffix, dir=real.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


@dataclass(frozen=True)
class NewFile:
    """A file to write; with `keep`, the previous content stays in a file beside it."""

    path: Path
    data: bytes
    mode: int
    keep: bool = False


def replace_all(files: Sequence[NewFile]) -> tuple[Path, ...]:
    """Write all files or none; return the paths of the kept previous files. Raises ConfigError."""
    replaced: list[tuple[Path, bytes | None, int]] = []
    temporaries: list[Path] = []
    kept: list[Path] = []
    try:
        previous = [_previous(file.path.resolve()) for file in files]
        for file in files:
            temporaries.append(_write_temporary(file.path.resolve(), file.data, file.mode))
        for file, (real, old, mode) in zip(files, previous, strict=True):
            if file.keep and old is not None:
                kept.append(_backup_name(real))
                _replace(kept[-1], old, mode)
        for temporary, original in zip(temporaries, previous, strict=True):
            replaced.append(original)
            temporary.replace(original[0])
            _sync(original[0].parent)
    except BaseException as error:
        for path, old, mode in reversed(replaced):
            path.unlink(missing_ok=True) if old is None else _replace(path, old, mode)
        for path in (*temporaries, *kept):
            path.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise ConfigError(
            f"The files cannot be written ({error}). None of them was.", next_step="check owner, mode and free space"
        ) from error
    return tuple(kept)


def _previous(real: Path) -> tuple[Path, bytes | None, int]:
    if not real.exists():
        return real, None, 0
    return real, real.read_bytes(), real.stat().st_mode & 0o777


def _backup_name(real: Path) -> Path:
    """A free name beside a file, with the same suffix, so that Git ignores both alike."""
    numbers = ("", *map(str, range(2, 1000)))
    names = (real.with_name(f"{real.stem}.bak{number}{real.suffix}") for number in numbers)
    return next(path for path in names if not os.path.lexists(path))


def replace_text(path: Path, text: str) -> None:
    """Replace the content of a public file with this text; an existing file keeps its mode. Raises ConfigError."""
    mode = path.stat().st_mode & 0o777 if path.exists() else PUBLIC
    replace(path, text.encode(errors="surrogateescape"), mode)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
