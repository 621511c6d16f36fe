"""Ask Git about a work tree that untrusted code may have changed: command lines, environment, tracked and staged files.

A work tree and its `.git` can name programs that Git runs. Those with a switch are off: file system monitors, hooks,
transports, and bare repositories committed as ordinary files. Content filters have no switch and are needed to detect
changes, so that question runs confined. Standard library only (Python 3.10+).

Source: git-config(1), `safe.bareRepository` (Git 2.38 and newer); git(1), environment variables.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from rolling_upgrade.engine import process_environment

_SETTINGS = {"safe.bareRepository": "explicit", "core.fsmonitor": "false", "core.hooksPath": os.devnull}
#: No lock is taken and nothing is written, fetched or asked; messages are in English.
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
}


def question(folder: str, *words: str) -> list[str]:
    """The command line of Git for a folder."""
    settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    return ["git", *settings, "-C", folder, *words]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of Git: without secrets, agents, and the repository of the caller."""
    return process_environment.for_git(environ) | _ENVIRONMENT


_SECONDS = 10.0


def is_tracked(path: Path) -> bool | None:
    """Whether a file itself, not the target of a link, is in the index of a repository.

    None if that is unknown: Git is missing, or it cannot read the repository.
    """
    real = path.resolve()
    if not any((folder / ".git").exists() for folder in real.parents):
        return False
    done = _git(real, "ls-files", "--error-unmatch", "--", real.name)
    return {0: True, 1: False}.get(done.returncode) if done else None


def staged(path: Path) -> bytes | None:
    """The content of the file in the index, which a commit would write; None without one."""
    real = path.resolve()
    done = _git(real, "cat-file", "blob", f":./{real.name}")
    return done.stdout if done and done.returncode == 0 else None


def _git(real: Path, *words: str) -> subprocess.CompletedProcess[bytes] | None:
    # Whose repository it is does not matter for the question. Neither question makes Git look into a file, so that no
    # filter runs.
    command = question(str(real.parent), "-c", "safe.directory=*", "--literal-pathspecs", *words)
    environ = environment(os.environ)
    try:
        return subprocess.run(command, capture_output=True, timeout=_SECONDS, env=environ, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
