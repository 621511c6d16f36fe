"""The models of commands around a deploy: the release command, and the hooks on the workstation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rolling_upgrade.config import validators
from rolling_upgrade.config.issues import Issues, Strict
from rolling_upgrade.engine import model


class Release(Strict):
    """A command that a deploy runs once, such as a migration of the database."""

    service: Annotated[str, validators.SERVICE_NAME] = Field(
        default="", description="Service whose new image, environment and mounts it gets. Default: the first service."
    )
    command: Annotated[tuple[str, ...], validators.COMMAND] = Field(
        description="Command in the container: a list of arguments, or a string for sh. It must be safe to repeat."
    )
    entrypoint: Annotated[tuple[str, ...], validators.ENTRYPOINT] | None = Field(
        default=None, description="Replaces the entrypoint of the service; [] runs the command itself."
    )
    timeout_seconds: Annotated[float, validators.duration(1, 86_400)] = Field(
        default=model.ReleaseCommand.timeout_seconds, description="Time limit of the command."
    )


_Hook = Annotated[tuple[str, ...], validators.ENTRYPOINT] | None


class Hooks(Strict):
    """Commands on the workstation during a deploy or a rollback, run in the directory of hosts.yaml.

    A hook that is not set here is the executable `deploy/hooks/NAME`, with or without an extension, if there is one.
    [] turns a hook off.
    """

    before_connect: _Hook = Field(
        default=None, description="Before the first connection of a deploy or a rollback. A failure stops the run."
    )
    before_deploy: _Hook = Field(
        default=None, description="After the confirmation of a deploy that changes hosts. A failure stops the run."
    )
    after_deploy: _Hook = Field(default=None, description="After a deploy that succeeded.")
    after_rollback: _Hook = Field(default=None, description="After a rollback that succeeded.")
    on_failure: _Hook = Field(default=None, description="After a deploy or a rollback that failed.")
    timeout_seconds: Annotated[float, validators.duration(1, 86_400)] | None = Field(
        default=None, description=f"Time limit of each hook. Default: {model.HookCommand.timeout_seconds:g} seconds."
    )


#: The directory of executable hooks, relative to hosts.yaml.
DIRECTORY = "deploy/hooks"
#: Names of hooks in Kamal, with ours.
_COUNTERPARTS = {"pre_connect": "before_connect", "pre_deploy": "before_deploy", "post_deploy": "after_deploy"}
#: Files beside the hooks that are none.
_IGNORED = (".sample", ".md", ".txt", ".bak", ".orig", "~")


def hooks(folder: Path, layers: Sequence[tuple[str, Hooks]], issues: Issues) -> tuple[model.HookCommand, ...]:
    """Return the hooks of an environment.

    Args:
        folder: The directory of hosts.yaml.
        layers: The hooks in the files with their places, the most specific first.
        issues: Gets an error for an executable that cannot be used.
    """
    limits = [declared.timeout_seconds for _, declared in layers if declared.timeout_seconds]
    seconds = limits[0] if limits else model.HookCommand.timeout_seconds
    executables = _executables(folder / DIRECTORY, issues)
    found = []
    for name in model.HOOKS:
        given = [(place, command) for place, declared in layers if (command := getattr(declared, name)) is not None]
        given += [(issues.name(path), (str(path),)) for path in executables.get(name, ())[:1]]
        if not given or not given[0][1]:
            continue
        place, command = given[0]
        if not given[1:] and name in executables:
            _check_executable(executables[name], issues)
        found.append(model.HookCommand(name, command, str(folder), seconds, place))
    return tuple(found)


def _executables(directory: Path, issues: Issues) -> dict[str, list[Path]]:
    """Return the files of the directory that have the name of a hook, and warn about names that are close to one."""
    found: dict[str, list[Path]] = {}
    for path in _files(directory):
        name = path.name.partition(".")[0]
        if name in model.HOOKS:
            found.setdefault(name, []).append(path)
            continue
        plain = name.replace("-", "_")
        if (meant := _COUNTERPARTS.get(plain, plain)) in model.HOOKS:
            issues.warn(f"{issues.name(path)} has no effect; the hook is named {meant}")
    return found


def _files(directory: Path) -> Iterator[Path]:
    try:
        paths = sorted(directory.iterdir())
    except OSError:
        return
    yield from (path for path in paths if path.is_file() and not path.name.endswith(_IGNORED))


def _check_executable(paths: Sequence[Path], issues: Issues) -> None:
    """Report several files for one hook, and a file that is not executable."""
    first, *others = paths
    file = issues.name(first)
    if others:
        issues.add(file, "", found=f"{file} and {issues.name(others[0])}", expected="one executable for each hook")
    elif not os.access(first, os.X_OK):
        issues.add(file, "", found="a file that is not executable", expected=f"an executable: chmod +x {file}")
