"""What `inv init` will write, and the commands that come next. It writes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from fabfile.model.starting import Starting


def shown_lines(files: Sequence[tuple[str, str, str]], folder: Path) -> list[str]:
    """Each file by name, text, and what becomes of the one that is there."""
    lines: list[str] = []
    for name, text, fate in files:
        lines += [f"--- {folder}/{name} ({fate})", *text.rstrip("\n").splitlines(), ""]
    return lines


def next_lines(starting: Starting, folder: Path, root: Path, kept: Sequence[Path]) -> list[str]:
    """What was written, and the commands up to the first deploy."""
    env = starting.environment
    keys = f"deploy/authorized_keys/{env}"
    lines = [f"Written: hosts.yaml, deploy/services.yaml and deploy/{env}.env in {folder}."]
    lines += [f"Kept: {path}" for path in kept]
    if folder != root:
        own = (folder / "tasks.py").is_file() and (folder / "fabfile").is_dir()
        place = shlex.quote(str(folder))
        other = f"Tasks read {root} alone: copy the three files there, or into another clone of the project."
        lines += [f"cd {place}    # its own tasks read them" if own else other]
    return [
        *lines,
        "Next:",
        f"  inv config.check --env {env}    # finds every mistake, also after you edited the files",
        f"  inv trust --env {env}           # records the hosts' keys, once you have compared them",
        f"  mkdir -p {keys} && cp ~/.ssh/id_ed25519.pub {keys}/you.pub    # lets you deploy",
        f"  inv setup --env {env}           # prepares the hosts, from a bare Debian on",
        f"  inv deploy --env {env} --dry-run    # shows the plan; without --dry-run it asks and deploys",
    ]
