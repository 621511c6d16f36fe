"""Query Git about a work tree that untrusted code may have changed.

A work tree and its `.git` can name programs that Git runs. Git switches off file system monitors, hooks, transports,
and bare repositories committed as ordinary files. Content filters have no switch and are needed to detect changes, so
that query runs confined. Standard library only (Python 3.10+).

Source: git-config(1), `safe.bareRepository` (Git 2.38 and newer); git(1), environment variables.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from rolling_upgrade.engine import local_command

_SETTINGS = {"safe.bareRepository": "explicit", "core.fsmonitor": "false", "core.hooksPath": os.devnull}
#: Git takes no lock, fetches nothing, never prompts, and writes English messages.
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
}


def command(directory: str, *words: str) -> list[str]:
    """The command line of Git for a directory."""
    settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    return ["git", *settings, "-C", directory, *words]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of Git, without secrets, agents, and the repository of the caller."""
    return local_command.git_environment(environ) | _ENVIRONMENT


_SECONDS = 10.0


def is_tracked(path: Path) -> bool | None:
    """Whether a file itself, not the target of a link, is in the index of a repository.

    None if Git is missing or cannot read the repository.
    """
    real = path.resolve()
    if not any((parent / ".git").exists() for parent in real.parents):
        return False
    result = _git(real, "ls-files", "--error-unmatch", "--", real.name)
    return {0: True, 1: False}.get(result.returncode) if result else None


def staged(path: Path) -> bytes | None:
    """The content of the file in the index, which a commit would write; None if it has none."""
    real = path.resolve()
    result = _git(real, "cat-file", "blob", f":./{real.name}")
    return result.stdout if result and result.returncode == 0 else None


def _git(real: Path, *words: str) -> subprocess.CompletedProcess[bytes] | None:
    # The owner of the repository does not matter here. Neither query makes Git read a file, so no filter runs.
    argv = command(str(real.parent), "-c", "safe.directory=*", "--literal-pathspecs", *words)
    environ = environment(os.environ)
    try:
        return subprocess.run(argv, capture_output=True, timeout=_SECONDS, env=environ, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
