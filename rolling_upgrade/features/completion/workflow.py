"""Shell completion: print the script of a shell, or the names that it completes."""

from __future__ import annotations

import sys
from pathlib import Path

from rolling_upgrade import rendering
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.errors import ExitCode, usage_error

SHELLS = {"bash": "bash.sh", "zsh": "zsh.zsh", "fish": "fish.fish"}
NAMES = ("environments", "hosts")


def completion(shell: str, names: str, *, root: Path) -> ExitCode:
    """Print a shell's script, or one kind of names, a line each. Raises ConfigError for an unknown shell or kind."""
    if names and names not in NAMES:
        raise usage_error(("--names", repr(names), " or ".join(NAMES)))
    if names:
        from rolling_upgrade import config
        from rolling_upgrade.config.locate import list_hosts

        found = config.environments(root) if names == "environments" else list_hosts(root)
        print_lines([*found])
        return ExitCode.DONE
    if shell not in SHELLS:
        raise usage_error(("--shell", repr(shell), ", ".join(SHELLS)))
    sys.stdout.write((rendering.TEMPLATES / "completion" / SHELLS[shell]).read_text(encoding="utf-8"))
    return ExitCode.DONE
