"""What a doctor looks at on this very machine: Python, packages, keys, this clone. Contacts nothing."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from fabfile import config
from fabfile.config.modes import OWNER_ALONE, too_open
from fabfile.model import Diagnosis, Environment, Level
from fabfile.workflows import operator

HERE = "here"
_NEEDED = (
    "fabric",
    "invoke",
    "paramiko",
    "pydantic",
    "jinja2",
    "pyyaml",
    "python-dotenv",
    "rich",
    "cryptography",
    "pyrage",
)


def diagnose(environment: Environment, root: Path) -> tuple[Diagnosis, ...]:
    """Every check of this machine, well or not."""
    warnings = config.local_warnings(environment, root)
    rows = [Diagnosis(HERE, Level.WARNING, what, "") for what in (*environment.warnings, *warnings)]
    if not rows:
        rows = [Diagnosis(HERE, Level.OK, "the configuration has no mistake, and each host's key is on record")]
    return (*rows, *_packages(root), *_keys(environment), *_clone(root))


def _packages(root: Path) -> Iterator[Diagnosis]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", _text(root / "requirements.lock"), re.MULTILINE))
    other = [
        f"{name} {_installed(name)} instead of {locked[name]}"
        for name in _NEEDED
        if name in locked and _installed(name) != locked[name]
    ]
    if other:
        what = f"packages differ from requirements.lock: {', '.join(other)}"
        yield Diagnosis(HERE, Level.WARNING, what, "make setup")
    else:
        yield Diagnosis(HERE, Level.OK, f"Python {version}, packages as in requirements.lock")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _keys(environment: Environment) -> Iterator[Diagnosis]:
    files = {target.identity_file for target in environment.targets if target.identity_file}
    for file in sorted(files):
        mode = too_open(Path(file), OWNER_ALONE)
        if mode:
            what = f"{file}: its mode is {mode}, so others on this machine can read the key"
            yield Diagnosis(HERE, Level.WARNING, what, f"chmod 600 {file}")
    own = list((Path.home() / ".ssh").glob("id_*")) if (Path.home() / ".ssh").is_dir() else []
    if not files and not own and not os.environ.get("SSH_AUTH_SOCK"):
        what = "no SSH agent, no key in ~/.ssh and no identity_file: a login will hardly work"
        yield Diagnosis(HERE, Level.WARNING, what, "Start ssh-agent, or name identity_file in hosts.yaml")


def _clone(root: Path) -> Iterator[Diagnosis]:
    revision = operator.revision(root)
    if revision.endswith("+changes"):
        what = f"this clone is at {revision}: what runs from here stands in no commit"
        yield Diagnosis(HERE, Level.WARNING, what, "Commit or put the changes away")
    elif revision:
        yield Diagnosis(HERE, Level.OK, f"this clone is at {revision}, without changes")
