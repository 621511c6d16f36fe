"""Whether Git tracks a file. It asks the git of this machine and changes nothing; without one nothing is tracked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_SECONDS = 10.0


def is_tracked(path: Path) -> bool:
    """Whether the file itself, not a link to it, stands in a repository's index: committed, or about to be."""
    real = path.resolve()
    if not any((folder / ".git").exists() for folder in real.parents):
        return False
    # Whose repository it is does not matter for the question, and no program that its settings name is run.
    settings = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    words = ["--literal-pathspecs", "-C", str(real.parent), "ls-files", "--error-unmatch", "--", real.name]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *settings, *words], capture_output=True, timeout=_SECONDS, env=environ, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
