"""The scope of the site program: a cgroup that the caller of sudo does not own.

The entry point imports only this module before the program enters its scope, because that first execution needs nothing
else.
"""

from __future__ import annotations

import os

_IN_SCOPE = "--in-scope"


def enter_scope(program: str, words: list[str]) -> list[str]:
    """Re-execute the program in a systemd scope unless it runs in one; return its arguments without the marker.

    The caller owns the cgroup in which it starts sudo, and could freeze or kill every process in it. The sudo rule
    allows exactly one word, so the marker never comes from the caller. Source: cgroups(7), delegation; systemd-run(1),
    --scope.
    """
    if tuple(words[:1]) != (_IN_SCOPE,):
        scope = ("--scope", "--quiet", "--collect", "--", program, _IN_SCOPE, *words)
        os.execvp("systemd-run", ("systemd-run", *scope))  # noqa: S606
    return words[1:]
