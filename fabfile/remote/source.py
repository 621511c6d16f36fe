"""The Git work tree that a build's context lies in: asked, never changed."""

from __future__ import annotations

import re

from fabfile.errors import PreflightError
from fabfile.model import Source
from fabfile.remote import local_command

_SECONDS = 60.0
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")
#: What Git says of a folder that is in no repository; anything else it refuses for is told.
_NO_REPOSITORY = "not a git repository"


def look(folder: str) -> Source:
    """What Git says of a folder; an empty Source where there is no Git or no commit. Raises PreflightError."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    if not top.ok:
        if top.status == 127 or _NO_REPOSITORY in top.last_words:
            return Source()
        raise PreflightError(f"{folder}: git refused to look at it: {top.last_words}. Nothing was built.")
    revision = _git(folder, "rev-parse", "--verify", "HEAD")
    if not revision.ok:
        return Source()
    tag = _git(folder, "describe", "--tags", "--match", "v[0-9]*", "--abbrev=0")
    origin = _git(folder, "config", "--get", "remote.origin.url")
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD").last_words
    # Files that Git does not know get into an image too; those that it ignores are meant to be elsewhere.
    dirty = _git(folder, "status", "--porcelain", "--untracked-files=normal")
    return Source(
        root=top.last_words,
        revision=revision.last_words,
        branch="" if branch == "HEAD" else branch,
        version=tag.last_words if tag.ok else "",
        origin=_CREDENTIALS.sub("", origin.last_words) if origin.ok else "",
        dirty=tuple(dirty.last_words.splitlines()),
    )


def _git(folder: str, *words: str) -> local_command.Ended:
    env = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    return local_command.answer(["git", "-C", folder, *words], timeout_seconds=_SECONDS, env=env)
