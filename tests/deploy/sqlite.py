"""Queries of a host's SQLite files with the host's Python."""

from __future__ import annotations

import json
from typing import Any

from lab.host import Host
from rolling_upgrade.engine.shell import shell_join

_PROGRAM = """\
import json, sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=10)
print(json.dumps(database.execute(sys.argv[2]).fetchall()))
database.commit()
"""


def ask(host: Host, path: str, statement: str) -> list[list[Any]]:
    """Run one statement in the deploy user's namespace. Return its rows."""
    command = shell_join("podman", "unshare", "python3", "-I", "-c", _PROGRAM, path, statement)
    return list(json.loads(host.sh(command, user="deploy").stdout))
