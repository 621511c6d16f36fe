"""The known_hosts files of an environment: what they have on record for a host. It verifies no key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fabfile.model.known_hosts import Record, records, usable


def is_known(address: str, port: int, files: Iterable[str]) -> bool:
    """Whether any of the files has a key for the address, on that port where it is not 22."""
    return bool(usable(recorded(address, port, files)))


def recorded(address: str, port: int, files: Iterable[str]) -> tuple[Record, ...]:
    """Every line of the files that names the host, in order, revoked keys too; a file that is not there has none."""
    return tuple(record for file in files for record in records(file, _text(file), address, port))


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
