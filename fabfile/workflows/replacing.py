"""Replacing a file of this machine: whole or not at all, and never readable by others meanwhile."""

from __future__ import annotations

import os
import tempfile
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
    real.parent.mkdir(parents=True, exist_ok=True)
    descriptor, half = tempfile.mkstemp(prefix=".half-", suffix=real.suffix, dir=real.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(half).replace(real)
    except BaseException:
        Path(half).unlink(missing_ok=True)
        raise
    _sync(real.parent)


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
