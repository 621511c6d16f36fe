"""A starting configuration for another application: ask, check, show, write. All of its files are written, or none."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from rolling_upgrade import config, rendering
from rolling_upgrade.config.issues import shown
from rolling_upgrade.config.locate import list_lab_environments
from rolling_upgrade.console.operator import confirm
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.engine.git import is_tracked
from rolling_upgrade.engine.local_file import PRIVATE, PUBLIC, NewFile, replace_all
from rolling_upgrade.errors import ConfigError, ConfigIssue, ExitCode, usage_error
from rolling_upgrade.features.init.answers import Answers, Starting, is_as_git_has_it, is_example, read_options
from rolling_upgrade.features.init.questions import ask_for_the_rest

#: What `inv` loads in a repository that has the installed package.
TASKS = 'from rolling_upgrade.tasks import namespace\n\n__all__ = ["namespace"]\n'
GITIGNORE = "# Env files hold secrets; `git add --force` adds an encrypted one.\n/*.env\n"


def init(
    *,
    root: Path,
    directory: str = "",
    values: Mapping[str, str] = MappingProxyType({}),
    services: Sequence[str] = (),
    hosts: Sequence[str] = (),
    health: Sequence[str] = (),
    routes: Sequence[str] = (),
    yes: bool = False,
    force: bool = False,
) -> ExitCode:
    """Write hosts.yaml, deploy/services.yaml and deploy/ENV.env; tasks.py and deploy/.gitignore where there is none.

    Args:
        root: Where the files go without a `directory`.
        values: The answers that options give, by the names of the options.
        yes: Ask nothing.
        force: Replace files that are there.

    Raises:
        ConfigError: An answer is missing or wrong, or a file is there already; nothing is written.
    """
    folder = _folder(root, directory)
    answers, issues = read_options(values, services=services, hosts=hosts, health=health, routes=routes)
    asks = not yes and sys.stdin.isatty()
    if not asks:
        told = {issue.path for issue in issues}
        missing = (ConfigIssue("command line", option, "", expected) for option, expected in answers.missing())
        issues = (*issues, *(issue for issue in missing if issue.path not in told))
    if issues:
        raise ConfigError(
            "The answers have a mistake or are not complete; nothing was written.",
            issues,
            next_step="correct these options; on a terminal, without --yes, inv init asks for what no option says",
        )
    if asks:
        # Refuse existing files as soon as the answers name them.
        ask_for_the_rest(answers, lambda: _replaced(folder, answers.values.get("env", ""), force=force))
    starting = _finished(answers)
    files = _files(folder, starting, _replaced(folder, starting.environment, force=force))
    _prove(starting, files, folder)
    shown = [(_name(file.path, folder), file.data.decode(), _fate(file)) for file in files]
    print_lines(shown_lines(shown, folder), sys.stdout)
    if asks:
        confirm("Write these files?", force=False, hint="")
        _replaced(folder, starting.environment, force=force)
    kept = replace_all(files)
    print_lines(next_lines(starting.environment, [_name(one.path, folder) for one in files], folder, kept), sys.stdout)
    return ExitCode.DONE


def _folder(root: Path, directory: str) -> Path:
    try:
        folder = Path(directory).expanduser().resolve() if directory else root.resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        raise usage_error(("--directory", shown(directory), "the path of a folder"), nothing="written") from error
    return folder


def _finished(answers: Answers) -> Starting:
    try:
        return answers.finished()
    except ValueError as error:
        raise usage_error(("--route", "one path for two services", str(error)), nothing="written") from error


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
    names = ("hosts.yaml", "services.yaml", "values.env")
    hosts, services, values = (rendering.template(f"init/{name}.j2").render(it=starting) for name in names)
    named = (
        (folder / "hosts.yaml", hosts, PUBLIC),
        (folder / "deploy/services.yaml", services, PUBLIC),
        (folder / f"deploy/{starting.environment}.env", values, PRIVATE),
    )
    files = [NewFile(path, text.encode(), mode, keep=path not in examples) for path, text, mode in named]
    return [*files, *_files_of_a_new_repository(folder)]


def _files_of_a_new_repository(folder: Path) -> Iterator[NewFile]:
    """The files of a repository that uses the installed package; files that are there are left alone."""
    if _is_clone(folder):
        return
    for path, text in ((folder / "tasks.py", TASKS), (folder / "deploy/.gitignore", GITIGNORE)):
        if not os.path.lexists(path):
            yield NewFile(path, text.encode(), PUBLIC)


def _is_clone(folder: Path) -> bool:
    """Whether this is a clone of this project, which has its own tasks.py and ignores env files."""
    return (folder / "rolling_upgrade" / "__init__.py").is_file()


def _program(folder: Path) -> str:
    """The program that has this product's tasks in a folder: `inv`, unless the team's own tasks.py is another."""
    try:
        ours = _is_clone(folder) or (folder / "tasks.py").read_text(encoding="utf-8") == TASKS
    except (OSError, ValueError):
        ours = False
    return "inv" if ours else "rolling-upgrade"


def _prove(starting: Starting, files: Sequence[NewFile], folder: Path) -> None:
    """Load what would be written, strictly and from a place of its own. Raises ConfigError with every mistake."""
    if starting.environment in list_lab_environments(folder):
        raise usage_error(("--env", starting.environment, "another name; a lab here has this one"), nothing="written")
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
                error.issues,
                next_step="another name or image where the lines above say so",
            ) from error


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder))


def _fate(file: NewFile) -> str:
    """What becomes of a file that is there."""
    if not os.path.lexists(file.path):
        return "new"
    return "replaces yours, which is kept beside it" if file.keep else "replaces the example; Git has it"


def shown_lines(files: Sequence[tuple[str, str, str]], folder: Path) -> list[str]:
    """Each file by name, text, and what becomes of the one that is there."""
    lines: list[str] = []
    for name, text, fate in files:
        lines += [f"--- {folder}/{name} ({fate})", *text.rstrip("\n").splitlines(), ""]
    return lines


def next_lines(env: str, written: Sequence[str], folder: Path, kept: Sequence[Path]) -> list[str]:
    """What was written, and the commands up to the first deploy."""
    keys, program = f"deploy/authorized_keys/{env}", _program(folder)
    lines = [f"Written in {folder}: {', '.join(written)}."]
    lines += [f"Kept: {path}" for path in kept]
    if not Path.cwd().is_relative_to(folder):
        lines.append(f"cd {shlex.quote(str(folder))}    # tasks read the configuration of the folder that they run in")
    return [
        *lines,
        "Next:",
        f"  {program} config.check --env {env}    # finds every error, also after you edited the files",
        f"  {program} trust --env {env}           # records the hosts' keys, once you have compared them",
        f"  mkdir -p {keys} && cp ~/.ssh/id_ed25519.pub {keys}/you.pub    # lets you deploy",
        f"  {program} setup --env {env}           # prepares the hosts, from a bare Debian on",
        f"  {program} deploy --env {env} --dry-run    # shows the plan; without --dry-run it asks and deploys",
    ]
