"""`inv init`: ask for a configuration, check it, show it, and write all of its files or none."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolling_upgrade import config, rendering
from rolling_upgrade.config.files import parse_env, read_yaml
from rolling_upgrade.config.inventory import Inventory
from rolling_upgrade.config.issues import Issues, conceals, shown, validate
from rolling_upgrade.config.locate import list_lab_environments
from rolling_upgrade.config.schema import SCHEMA_DIRECTORY, schema_files
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.console.prompt import confirm
from rolling_upgrade.engine.git import is_tracked, staged
from rolling_upgrade.engine.local_file import PRIVATE, PUBLIC, NewFile, read_small, replace_all
from rolling_upgrade.engine.masking import MASK
from rolling_upgrade.errors import PROGRAM, ConfigError, ConfigIssue, ExitCode, usage_error
from rolling_upgrade.features.init.answers import Answers, ask_missing, read_options
from rolling_upgrade.features.init.compose import Converted, convert
from rolling_upgrade.features.init.compose_values import dotenv_text

#: The file that `inv` loads in a repository that uses the installed package.
TASKS = 'from rolling_upgrade.tasks import namespace\n\n__all__ = ["namespace"]\n'
GITIGNORE = "# Env files hold secrets; `git add --force` adds an encrypted one.\n/*.env\n"
#: The networks that RFC 5737 reserves for documentation.
_EXAMPLE_NETWORKS = tuple(map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))


def init(
    *,
    root: Path,
    directory: str = "",
    app: str | None = None,
    domain: str | None = None,
    env: str | None = None,
    user: str | None = None,
    certificate: str | None = None,
    email: str | None = None,
    service: Sequence[str] = (),
    host: Sequence[str] = (),
    health: Sequence[str] = (),
    route: Sequence[str] = (),
    from_: str | None = None,
    yes: bool = False,
    force: bool = False,
) -> ExitCode:
    """Write hosts.yaml, deploy/services.yaml, deploy/ENV.env and the schemas for editors.

    Also tasks.py and deploy/.gitignore if they are missing. `directory` overrides `root` as the place of the files. Raises ConfigError for a missing or invalid answer, or an
    existing file; then nothing is written. `from_` is a Compose file in place of the services.
    """
    target = _directory(root, directory)
    given = {"app": app, "domain": domain, "env": env, "user": user, "certificate": certificate, "email": email}
    compose = _read_compose(from_, given, (*service, *health, *route))
    answers, issues = read_options(given, services=service, hosts=host, health=health, routes=route)
    answers.has_compose_file = compose is not None
    asks = not yes and sys.stdin.isatty()
    _refuse_invalid(answers, issues, asks=asks)
    if asks:
        # Refuse existing files as soon as the answers name them.
        ask_missing(answers, lambda: _replaceable(target, answers.values.get("env", ""), force=force))
    template_values = _template_values(answers)
    chosen_env: str = template_values["env"]
    examples = _replaceable(target, chosen_env, force=force)
    if compose:
        files, notes = _convert_all(compose, answers, target, template_values, examples)
    else:
        files, notes = _files(target, template_values, examples), []
    _validate(chosen_env, files, target)
    print_lines([line for file in files for line in _preview(file)] + notes)
    if asks:
        confirm("Write these files?", force=False, hint="")
        _replaceable(target, chosen_env, force=force)
    kept = replace_all(files)
    print_lines(_next_lines(chosen_env, files, target, kept))
    return ExitCode.DONE


def _refuse_invalid(answers: Answers, issues: Sequence[ConfigIssue], *, asks: bool) -> None:
    """Raise ConfigError for invalid options, and for missing ones when nobody can be asked."""
    if not asks:
        reported = {issue.path for issue in issues}
        missing = (ConfigIssue("command line", option, "", expected) for option, expected in answers.missing())
        issues = (*issues, *(issue for issue in missing if issue.path not in reported))
    if issues:
        raise ConfigError(
            "The answers are invalid or incomplete; nothing was written.",
            issues,
            next_step=f"correct these options; on a terminal, without --yes, {PROGRAM} init asks for missing options",
        )


@dataclass(frozen=True)
class _Compose:
    """A Compose file: its name as given, its content and its directory."""

    name: str
    content: Mapping[str, Any]
    folder: Path


def _read_compose(name: str | None, given: dict[str, str | None], others: Sequence[str]) -> _Compose | None:
    """Read the Compose file of --from, whose name is the default name of the application. Raises ConfigError."""
    if name is None:
        return None
    if others:
        raise usage_error(("--from", "--service, --health or --route beside it", "one of the two"), nothing="written")
    path = Path(name).expanduser().absolute()
    issues = Issues(path.parent)
    content = read_yaml(path, issues, remedy="a Compose file")
    if content is None:
        raise ConfigError("The Compose file cannot be read; nothing was written.", issues.errors)
    name_there = content.get("name")
    if given["app"] is None and isinstance(name_there, str) and re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name_there):
        given["app"] = name_there
    return _Compose(name, content, path.parent)


def _convert_all(
    compose: _Compose, answers: Answers, target: Path, template_values: Mapping[str, Any], examples: frozenset[Path]
) -> tuple[list[NewFile], list[str]]:
    """Convert a Compose file; what the configuration does not accept is left out. Return the files and the notes."""
    converted = _converted(compose, answers, target)
    while True:
        files = _files(target, {**template_values, **_shown(converted)}, examples)
        problem = _problem(template_values["env"], files, target)
        if problem is None or not converted.drop(problem.issues):
            break
    notes = ["No counterpart, or your decision:", *(f"  {note}" for note in converted.notes), ""]
    return files, notes if converted.notes else []


def _converted(compose: _Compose, answers: Answers, target: Path) -> Converted:
    def dotenv(name: str) -> Mapping[str, str]:
        data = read_small(compose.folder / name)
        return parse_env(data.decode("utf-8", "replace"), name, Issues(compose.folder)).values

    hosts = [name for name, _ in answers.hosts]
    folder = os.path.relpath(compose.folder, target)
    try:
        return convert(compose.content, answers.values["app"], hosts[0] if len(hosts) > 1 else "", folder, dotenv)
    except ValueError as error:
        raise usage_error(("--from", repr(compose.name), str(error)), nothing="written") from error


def _shown(converted: Converted) -> dict[str, Any]:
    """Return what the templates show of a converted Compose file."""
    images = [service["image"] for service in converted.services]
    return {
        "services": converted.document,
        "values": [f"{key}={dotenv_text(value)}" for key, value in converted.values.items()],
        "needs_version": any("@" not in image and not re.search(r":[^/]*$", image) for image in images),
    }


def _problem(env: str, files: Sequence[NewFile], directory: Path) -> ConfigError | None:
    """Return the error of the configuration, None when it is valid."""
    try:
        _validate(env, files, directory)
    except ConfigError as error:
        return error
    return None


def _directory(root: Path, directory: str) -> Path:
    try:
        path = Path(directory).expanduser().resolve() if directory else root.resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        raise usage_error(("--directory", shown(directory), "the path of a directory"), nothing="written") from error
    return path


def _template_values(answers: Answers) -> dict[str, Any]:
    try:
        return answers.template_values()
    except ValueError as error:
        raise usage_error(("--route", "one path for two services", str(error)), nothing="written") from error


def _replaceable(directory: Path, environment: str, *, force: bool) -> frozenset[Path]:
    """Return the example files, which init replaces without a copy. Raises ConfigError for other existing files."""
    env_file = directory / f"deploy/{environment}.env"
    _refuse_tracked(env_file, environment)
    paths = [directory / "hosts.yaml", directory / "deploy/services.yaml", *([env_file] if environment else [])]
    existing = [path for path in paths if os.path.lexists(path)]
    examples = frozenset(path for path in existing if path != env_file and _is_staged_unchanged(path))
    if directory / "hosts.yaml" not in examples or not _is_example(directory):
        examples = frozenset()
    others = [_name(path, directory) for path in existing if path not in examples]
    if others and not force:
        raise ConfigError(
            f"{directory} has {', '.join(others)} already; nothing was written.",
            next_step="use another --directory, or --force, which keeps the old files as .bak. "
            "For another environment, add an entry to hosts.yaml and an env file",
        )
    return examples


def _is_example(root: Path) -> bool:
    """Whether hosts.yaml has hosts, all with addresses that are reserved for documentation."""
    issues = Issues(root)
    content = read_yaml(root / "hosts.yaml", issues, remedy="") or {}
    inventory = validate(Inventory, content, "hosts.yaml", issues)
    if inventory is None or issues.errors:
        return False
    addresses = [
        host.address or name
        for environment in inventory.environments.values()
        for name, host in environment.hosts.items()
    ]
    return bool(addresses) and all(map(_is_for_documentation, addresses))


def _is_for_documentation(address: str) -> bool:
    try:
        return any(ipaddress.ip_address(address) in network for network in _EXAMPLE_NETWORKS)
    except ValueError:
        return False


def _is_staged_unchanged(path: Path) -> bool:
    """Whether Git's index has exactly this content, so that replacing the file loses nothing."""
    try:
        return bool(is_tracked(path)) and staged(path) == path.read_bytes()
    except OSError:
        return False


def _refuse_tracked(env_file: Path, environment: str) -> None:
    """Refuse to replace an env file that Git tracks: the next commit would publish the plaintext."""
    if os.path.lexists(env_file) and is_tracked(env_file):
        raise ConfigError(
            f"{env_file} is tracked by Git, and the new one would be plaintext; nothing was written.",
            next_step=f"change it with {PROGRAM} secrets.edit --env {environment}, or run git rm --cached on it first",
        )


def _files(directory: Path, template_values: Mapping[str, Any], examples: frozenset[Path]) -> list[NewFile]:
    """Render the files; tasks.py and deploy/.gitignore only if they are missing, and not in a clone of this project."""
    names = ("hosts.yaml", "services.yaml", "values.env")
    texts = {f"{name}_yaml": rendering.yaml_document(template_values[name]) for name in ("hosts", "services")}
    shown = {**template_values, **texts}
    hosts, services, values = (rendering.template(f"init/{name}.j2").render(shown) for name in names)
    rendered = (
        (directory / "hosts.yaml", hosts, PUBLIC),
        (directory / "deploy/services.yaml", services, PUBLIC),
        (directory / f"deploy/{template_values['env']}.env", values, PRIVATE),
    )
    files = [NewFile(path, text.encode(), mode, keep=path not in examples) for path, text, mode in rendered]
    repository = {"tasks.py": TASKS, "deploy/.gitignore": GITIGNORE} if not _is_clone(directory) else {}
    schemas = {directory / SCHEMA_DIRECTORY / name: text for name, text in schema_files().items()}
    files += [NewFile(path, text.encode(), PUBLIC, keep=False) for path, text in schemas.items()]
    missing = {name: text for name, text in repository.items() if not os.path.lexists(directory / name)}
    return files + [NewFile(directory / name, text.encode(), PUBLIC) for name, text in missing.items()]


def _is_clone(directory: Path) -> bool:
    """Whether this is a clone of this project, which has its own tasks.py and ignores env files."""
    return (directory / "rolling_upgrade" / "__init__.py").is_file()


def _validate(env: str, files: Sequence[NewFile], directory: Path) -> None:
    """Load the files strictly from a temporary directory. Raises ConfigError with every error."""
    if env in list_lab_environments(directory):
        raise usage_error(("--env", env, "another name; a lab here has this one"), nothing="written")
    with tempfile.TemporaryDirectory() as temporary:
        for file in files:
            path = Path(temporary) / file.path.relative_to(directory)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=PRIVATE)
            path.write_bytes(file.data)
        try:
            config.load(env, root=Path(temporary), strict=True)
        except ConfigError as error:
            raise ConfigError(
                "The answers lead to an invalid configuration; nothing was written.",
                error.issues,
                next_step="choose another name or image in the lines above",
            ) from error


def _name(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory))


def _preview(file: NewFile) -> list[str]:
    if not os.path.lexists(file.path):
        effect = "new"
    else:
        effect = "replaces your file, which is kept as .bak" if file.keep else "replaces the example; Git has it"
    if file.path.suffix == ".json":
        return [f"--- {file.path} (for editors: completes and checks your files)", ""]
    lines = file.data.decode().rstrip("\n").splitlines()
    shown = map(_masked, lines) if file.path.suffix == ".env" else lines
    return [f"--- {file.path} ({effect})", *shown, ""]


def _masked(line: str) -> str:
    """Hide the value of a secret in a line of the env file."""
    key, equals, value = line.partition("=")
    return f"{key}={MASK}" if equals and value and not line.startswith("#") and conceals(key, value) else line


def _next_lines(env: str, files: Sequence[NewFile], directory: Path, kept: Sequence[Path]) -> list[str]:
    """List the written files and the commands up to the first deploy."""
    keys = f"deploy/authorized_keys/{env}"
    names = ", ".join(_name(file.path, directory) for file in files)
    lines = [f"Written in {directory}: {names}."]
    lines += [f"Kept: {path}" for path in kept]
    if not Path.cwd().is_relative_to(directory):
        lines.append(f"cd {shlex.quote(str(directory))}    # tasks read the configuration of the current directory")
    return [
        *lines,
        "Next:",
        f"  {PROGRAM} config.check --env {env}    # reports every error; run it after each edit",
        f"  {PROGRAM} trust --env {env}           # records the hosts' keys once you have compared them",
        f"  mkdir -p {keys} && cp ~/.ssh/id_ed25519.pub {keys}/you.pub    # grants you access",
        f"  {PROGRAM} setup --env {env}           # prepares the hosts, from bare Debian or Ubuntu",
        f"  {PROGRAM} deploy --env {env} --dry-run    # shows the plan; without --dry-run it asks and deploys",
    ]
