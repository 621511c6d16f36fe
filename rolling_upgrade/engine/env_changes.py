"""Find the changed keys of a service's environment without storing hashes of its values.

Each process draws a random key. The host answers with keyed hashes, which are useless to any other process.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Iterable

from rolling_upgrade.engine.model import Service
from rolling_upgrade.engine.shell import quote

_KEY = os.urandom(32)
#: The number of directories that the host reads, newest first, and the bytes of one environment file.
_MOST, _BYTES = 50, 1_048_576
_ROW = re.compile(r"([a-z][a-z0-9-]{0,30}-[0-9a-f]{4,32})((?: [A-Za-z_][A-Za-z0-9_]{0,255}:[0-9a-f]{16})*)")
_PROGRAM = f"""\
import glob, hmac, os, sys
key = bytes.fromhex("{_KEY.hex()}")
paths = sorted(glob.glob(glob.escape(sys.argv[1]) + "/config/*/env"), key=os.path.getmtime, reverse=True)
for path in paths[:{_MOST}]:
    with open(path, "rb") as file:
        lines = file.read({_BYTES}).splitlines()
    marks = (line.split(b"=")[0].decode("ascii", "replace") + ":" + hmac.digest(key, line, "sha256").hex()[:16] for line in lines)
    print(path.split("/")[-2], *marks)
"""


def marks(service: Service) -> dict[str, str]:
    """Return a keyed hash for each key of the service's environment; equal values have equal hashes."""
    return {key: hmac.digest(_KEY, f"{key}={value}".encode(), "sha256").hex()[:16] for key, value in service.env}


def read_marks(home: str) -> str:
    """Print `DIRECTORY KEY:MARK…` for each environment file on the host; nothing if the host has no Python."""
    return f"python3 -I - {quote(home)} 2>/dev/null <<'END-OF-PYTHON' || :\n{_PROGRAM}END-OF-PYTHON"


def parse(rows: Iterable[str]) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """The marks by directory, from the output of `read_marks`; other lines are ignored."""
    marked = []
    for row in rows:
        if match := _ROW.fullmatch(row):
            pairs = (pair.partition(":") for pair in match[2].split())
            marked.append((match[1], tuple((key, mark) for key, _, mark in pairs)))
    return tuple(marked)
