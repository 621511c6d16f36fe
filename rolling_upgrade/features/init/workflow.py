"""A starting configuration for another application: ask, check, show, write. All of its files are written, or none."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fabfile import config, render
from fabfile.config.findings import shown
from fabfile.config.locating import list_of_labs
from fabfile.config.starting import Answers, is_as_git_has_it, is_example, read_options
from fabfile.config.tracking import is_tracked
from fabfile.errors import ConfigError, ExitCode, Mistake
from fabfile.model.starting import Starting
from fabfile.report import tell
from fabfile.report.starting import next_lines, shown_lines
from fabfile.workflows.operator import confirm
from fabfile.workflows.questions import ask_for_the_rest
from fabfile.workflows.replacing import PRIVATE, PUBLIC, NewFile, replace_all


@dataclass(frozen=True)
class Request:
    """What a person asked for; `values` holds the answers that are given by options, by the names of those.

    `root` is where the tasks read, `folder` where the files go; `yes` asks nothing, `force` replaces what is there.
    """

    root: Path
    folder: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    services: Sequence[str] = ()
    hosts: Sequence[str] = ()
    health: Sequence[str] = ()
    routes: Sequence[str] = ()
    yes: bool = False
    force: bool = False


def init(request: Request) -> ExitCode:
    """Write hosts.yaml, deploy/services.yaml and deploy/ENV.env. Raises ConfigError, with which nothing is written."""
    folder = _folder(request)
    answers, mistakes = read_options(
        request.values, services=request.services, hosts=request.hosts, health=request.health, routes=request.routes
    )
    asks = not request.yes and sys.stdin.isatty()
    if not asks:
        told = {mistake.path for mistake in mistakes}
        missing = (Mistake("command line", option, "nothing", expected) for option, expected in answers.missing())
        mistakes = (*mistakes, *(one for one in missing if one.path not in told))
    if mistakes:
        raise ConfigError(
            "The answers have a mistake or are not complete; nothing was written.",
            mistakes,
            next_step="correct these options; on a terminal, without --yes, inv init asks for what no option says",
        )
    if asks:
        # What is there already is told before a person has answered more than it takes to know.
        ask_for_the_rest(answers, lambda: _replaced(folder, answers.values.get("env", ""), force=request.force))
    starting = _finished(answers)
    files = _files(folder, starting, _replaced(folder, starting.environment, force=request.force))
    _prove(starting, files, folder)
    tell(shown_lines([(_name(one.path, folder), one.data.decode(), _fate(one)) for one in files], folder), sys.stdout)
    if asks:
        confirm("Write these files?", force=False, hint="")
        _replaced(folder, starting.environment, force=request.force)
    kept = replace_all(files)
    tell(next_lines(starting, folder, request.root, kept), sys.stdout)
    return ExitCode.DONE


def _folder(request: Request) -> Path:
    try:
        folder = Path(request.folder).expanduser().resolve() if request.folder else request.root.resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        mistake = Mistake("command line", "--directory", shown(request.folder), "the path of a folder")
        raise ConfigError("The command line has a mistake; nothing was written.", [mistake]) from error
    return folder


def _finished(answers: Answers) -> Starting:
    try:
        return answers.finished()
    except ValueError as error:
        mistake = Mistake("command line", "--route", "one path for two services", str(error))
        raise ConfigError("The command line has a mistake; nothing was written.", [mistake]) from error


def _replaced(folder: Path, environment: str, *, force: bool) -> frozenset[Path]:
    """The examples that may give way without a word. Raises ConfigError for other files that are there."""
    _refuse_tracked(folder / f"deploy/{environment}.env", environment)
    env_file = [folder / f"deploy/{environment}.env"] if environment else []
    paths = [folder / "hosts.yaml", folder / "deploy/services.yaml", *env_file]
    there = [path for path in paths if os.path.lexists(path)]
    examples = frozenset(path for path in there if path not in env_file and is_as_git_has_it(path))
    if folder / "hosts.yaml" not in examples or not is_example(folder):
        examples = frozenset()
    left = [_name(path, folder) for path in there if path not in examples]
    if left and not force:
        raise ConfigError(
            f"{folder} has {', '.join(left)} already; nothing was written.",
            next_step="--force replaces them and keeps the old ones beside them as .bak, or another --directory. "
            "A further environment is an entry in hosts.yaml and an env file of its own",
        )
    return examples


def _refuse_tracked(env_file: Path, environment: str) -> None:
    """An encrypted env file that Git tracks is not replaced by plain text, which the next commit would publish."""
    if os.path.lexists(env_file) and is_tracked(env_file):
        raise ConfigError(
            f"{env_file} is tracked by Git, and would be plain text; nothing was written.",
            next_step=f"inv secrets.edit --env {environment} changes it; git rm --cached takes it out of Git first",
        )


def _files(folder: Path, starting: Starting, examples: frozenset[Path]) -> list[NewFile]:
    hosts, services, values = render.starting_files(starting)
    named = (
        (folder / "hosts.yaml", hosts, PUBLIC),
        (folder / "deploy/services.yaml", services, PUBLIC),
        (folder / f"deploy/{starting.environment}.env", values, PRIVATE),
    )
    return [NewFile(path, text.encode(), mode, keep=path not in examples) for path, text, mode in named]


def _prove(starting: Starting, files: Sequence[NewFile], folder: Path) -> None:
    """Load what would be written, strictly and from a place of its own. Raises ConfigError with every mistake."""
    if starting.environment in list_of_labs(folder):
        mistake = Mistake("command line", "--env", starting.environment, "another name; a lab here has this one")
        raise ConfigError("The command line has a mistake; nothing was written.", [mistake])
    with tempfile.TemporaryDirectory() as place:
        for one in files:
            path = Path(place) / one.path.relative_to(folder)
            path.parent.mkdir(exist_ok=True)
            path.touch(mode=PRIVATE)
            path.write_bytes(one.data)
        try:
            config.load(starting.environment, root=Path(place), strict=True)
        except ConfigError as error:
            raise ConfigError(
                "These answers do not make a configuration; nothing was written.",
                error.mistakes,
                next_step="another name or image where the lines above say so",
            ) from error


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder))


def _fate(file: NewFile) -> str:
    """What becomes of a file that is there."""
    if not os.path.lexists(file.path):
        return "new"
    return "replaces yours, which is kept beside it" if file.keep else "replaces the example; Git has it"
