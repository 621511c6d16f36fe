"""The checks of this machine: the configuration, Python, packages, keys, and the clone."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from rolling_upgrade import __version__
from rolling_upgrade.config.cross_checks import local_warnings
from rolling_upgrade.console import identity
from rolling_upgrade.engine.local_file import OWNER_ONLY, exposed_mode
from rolling_upgrade.engine.model import Diagnosis, Environment, Level

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
    """Run every check of this machine."""
    warnings = local_warnings(environment, root)
    rows = [Diagnosis(HERE, Level.WARNING, what, "") for what in (*environment.warnings, *warnings)]
    if not rows:
        rows = [Diagnosis(HERE, Level.OK, "the configuration is valid, and every host key is recorded")]
    return (*rows, *_packages(root), *_keys(environment), *_clone(root))


def _packages(root: Path) -> Iterator[Diagnosis]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    lock = root / "requirements.lock"
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE))
    other = [
        f"{name} {_installed(name)} instead of {locked[name]}"
        for name in _NEEDED
        if name in locked and _installed(name) != locked[name]
    ]
    if other:
        what = f"packages differ from requirements.lock: {', '.join(other)}"
        yield Diagnosis(HERE, Level.WARNING, what, "make setup")
    else:
        packages = "packages as in requirements.lock" if locked else f"rolling-upgrade {__version__}"
        yield Diagnosis(HERE, Level.OK, f"Python {version}, {packages}")


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _keys(environment: Environment) -> Iterator[Diagnosis]:
    files = {target.identity_file for target in environment.targets if target.identity_file}
    for file in sorted(files):
        mode = exposed_mode(Path(file), OWNER_ONLY)
        if mode:
            what = f"{file}: its mode is {mode}, so other users of this machine can read the key"
            yield Diagnosis(HERE, Level.WARNING, what, f"chmod 600 {file}")
    if not files and not any((Path.home() / ".ssh").glob("id_*")) and not os.environ.get("SSH_AUTH_SOCK"):
        what = "no SSH agent, no key in ~/.ssh and no identity_file: logins will probably fail"
        yield Diagnosis(HERE, Level.WARNING, what, "Start ssh-agent, or set identity_file in hosts.yaml")


def _clone(root: Path) -> Iterator[Diagnosis]:
    revision = identity.revision(root)
    if revision.endswith("+changes"):
        what = f"this clone is at {revision}: runs use uncommitted changes"
        yield Diagnosis(HERE, Level.WARNING, what, "Commit or stash the changes")
    elif revision:
        yield Diagnosis(HERE, Level.OK, f"this clone is at {revision}, without changes")
