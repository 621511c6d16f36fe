"""What Git holds of a file. It asks the git of this machine and changes nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_SECONDS = 10.0


def is_tracked(path: Path) -> bool | None:
    """Whether the file itself, not a link to it, stands in a repository's index: committed, or about to be.

    None where that cannot be told: no git here, or a repository that it cannot read.
    """
    real = path.resolve()
    if not any((folder / ".git").exists() for folder in real.parents):
        return False
    done = _git(real, "ls-files", "--error-unmatch", "--", real.name)
    return {0: True, 1: False}.get(done.returncode) if done else None


def staged(path: Path) -> bytes | None:
    """What the index holds of the file, which a commit would write; None where it holds nothing."""
    real = path.resolve()
    done = _git(real, "cat-file", "blob", f":./{real.name}")
    return done.stdout if done and done.returncode == 0 else None


def _git(real: Path, *words: str) -> subprocess.CompletedProcess[bytes] | None:
    # Whose repository it is does not matter for the question, and no program that its settings name is run.
    settings = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "--literal-pathspecs", "-C", str(real.parent)]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", *settings, *words], capture_output=True, timeout=_SECONDS, env=environ, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
