"""Completion at the prompt: the script of a shell, and the names that it asks for. Reads files of this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from fabfile import config, render
from fabfile.errors import ConfigError, ExitCode, Mistake
from fabfile.report import tell

SHELLS = {"bash": "bash.sh", "zsh": "zsh.zsh", "fish": "fish.fish"}
NAMES = ("environments", "hosts")


def completion(shell: str, names: str, *, root: Path) -> ExitCode:
    """Print a shell's script, or names of one kind, a line each. Raises ConfigError for another shell or kind."""
    if names and names not in NAMES:
        raise _mistake("--names", names, " or ".join(NAMES))
    if names:
        found = config.environments(root) if names == "environments" else config.host_names(root)
        tell([*found], sys.stdout)
        return ExitCode.DONE
    if shell not in SHELLS:
        raise _mistake("--shell", shell, ", ".join(SHELLS))
    sys.stdout.write(render.completion_script(SHELLS[shell]))
    return ExitCode.DONE


def _mistake(option: str, found: str, expected: str) -> ConfigError:
    mistake = Mistake("command line", option, repr(found), expected)
    return ConfigError("The command line has a mistake; nothing was contacted.", [mistake])
