"""Files of this clone that a task writes: whole or not at all. It decides nothing about what is in them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fabfile.errors import ConfigError


def replace_file(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Give the file this text by temp and rename; one that is there keeps its mode. Raises ConfigError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A link stays one: what it points to is replaced.
        target = path.resolve()
        mode = target.stat().st_mode & 0o777 if target.exists() else mode
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(mode)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}).", next_step="check owner and mode") from error
