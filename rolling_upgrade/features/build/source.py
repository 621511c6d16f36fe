"""Read the Git work tree of a build context."""

from __future__ import annotations

import os
import re
import shlex

from rolling_upgrade.engine import git, local_command
from rolling_upgrade.engine.model import Source
from rolling_upgrade.errors import PreflightError

_SECONDS = 60.0
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")
#: The error of Git outside a repository. The operator sees every other error.
_NO_REPOSITORY = "not a git repository"


def read(directory: str) -> Source:
    """Return the state of the work tree; an empty Source without Git or a commit. Raises PreflightError."""
    top = _git(directory, "rev-parse", "--show-toplevel")
    if not top.ok:
        if top.status == 127 or _NO_REPOSITORY in top.output_tail:
            return Source()
        raise PreflightError(f"{directory}: git refused to read it: {top.output_tail}. Nothing was built.")
    revision = _git(directory, "rev-parse", "--verify", "HEAD")
    if not revision.ok:
        return Source()
    tag = _git(directory, "describe", "--tags", "--match", "v[0-9]*", "--abbrev=0")
    origin = _git(directory, "config", "--get", "remote.origin.url")
    branch = _git(directory, "rev-parse", "--abbrev-ref", "HEAD").output
    # Untracked files get into an image too; Git ignores the files that must not.
    dirty = _git(directory, "status", "--porcelain", "--untracked-files=normal")
    if not dirty.ok:
        raise PreflightError(
            f"{directory}: git status failed: {dirty.output_tail}. Nothing was built.",
            next_step=f"fix the cause until git -C {shlex.quote(directory)} status succeeds",
        )
    return Source(
        root=top.output,
        revision=revision.output,
        branch="" if branch == "HEAD" else branch,
        version=tag.output if tag.ok else "",
        origin=_CREDENTIALS.sub("", origin.output) if origin.ok else "",
        dirty=tuple(dirty.output.splitlines()),
    )


def _git(directory: str, *words: str) -> local_command.CommandResult:
    # Confined: Git runs the filters of its configuration when it compares files.
    argv, base = git.command(directory, *words), git.environment(os.environ)
    return local_command.capture(argv, timeout_seconds=_SECONDS, base=base, confined=True)
