"""Look up host keys in the known_hosts files of an environment."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rolling_upgrade.engine.local_file import read_small
from rolling_upgrade.engine.openssh import Record, records, usable
from rolling_upgrade.engine.untrusted import LARGE_ANSWER_BYTES


def is_known(address: str, port: int, files: Iterable[str]) -> bool:
    """Return whether any of the files has a usable key for the address and port."""
    return bool(usable(recorded(address, port, files)))


def recorded(address: str, port: int, files: Iterable[str]) -> tuple[Record, ...]:
    """Return the lines that name the host, in order, revoked keys included; missing files are skipped."""
    return tuple(record for file in files for record in records(file, _text(file), address, port))


def _text(file: str) -> str:
    try:
        return read_small(Path(file), LARGE_ANSWER_BYTES).decode(errors="replace")
    except OSError:
        return ""
