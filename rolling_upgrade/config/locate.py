"""Locate an environment in `hosts.yaml` or `.lab/*/hosts.yaml`, and resolve paths relative to that file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rolling_upgrade.config import checks
from rolling_upgrade.config.files import read_yaml
from rolling_upgrade.config.inventory import EnvironmentEntry, Inventory
from rolling_upgrade.config.issues import Issues, nearest, validate
from rolling_upgrade.errors import ConfigError

_INVENTORY_REMEDY = "a hosts.yaml with the environments and their hosts"


@dataclass(frozen=True)
class Located:
    """An environment and its inventory file."""

    name: str
    file: Path
    entry: EnvironmentEntry

    @property
    def env_file(self) -> Path:
        """The env file."""
        return self.resolve(self.entry.env_file or f"deploy/{self.name}.env")

    def values_name(self, issues: Issues) -> str:
        """Return the source of the values as messages show it: the env file, or the command."""
        return f"env_command of {self.name}" if self.entry.env_command else issues.name(self.env_file)

    @property
    def recipients_file(self) -> Path:
        """The file with the public keys for which the env file is encrypted."""
        return self.resolve(self.entry.recipients_file or f"deploy/recipients/{self.name}.txt")

    def resolve(self, path: str) -> Path:
        """Resolve a path relative to the directory of the inventory file."""
        return Path(os.path.normpath(self.file.parent / expanded(path)))


def expanded(path: str) -> Path:
    """Expand ~ in a path; without a home directory, return the path as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def list_environments(root: Path) -> tuple[str, ...]:
    """Return the names of all environments."""
    quiet = Issues(root)
    return tuple(dict.fromkeys(name for file in _inventories(root) for name in _names(file, quiet)))


def list_lab_environments(root: Path) -> tuple[str, ...]:
    """Return the names of the environments of labs."""
    quiet = Issues(root)
    return tuple(name for file in sorted(root.glob(".lab/*/hosts.yaml")) for name in _names(file, quiet))


def list_environments_with_values(root: Path) -> tuple[str, ...]:
    """Return the environments with a command, or whose env file exists; labs count only when `hosts.yaml` has none."""
    quiet = Issues(root)
    for files in ([root / "hosts.yaml"], sorted(root.glob(".lab/*/hosts.yaml"))):
        entries = [(file, name) for file in files if file.exists() for name in _names(file, quiet)]
        names = [name for file, name in entries if _has_source(_located(file, name, quiet))]
        if names:
            return tuple(names)
    return ()


def _has_source(located: Located) -> bool:
    return bool(located.entry.env_command) or located.env_file.is_file()


def _located(file: Path, name: str, issues: Issues) -> Located:
    inventory = _read_inventory(file, issues)
    entry = inventory.environments.get(name) if inventory else None
    return Located(name, file, entry or EnvironmentEntry())


def list_hosts(root: Path) -> tuple[str, ...]:
    """Return the names, groups and roles of the hosts of all environments; unreadable files are skipped."""
    quiet = Issues(root)
    words: dict[str, None] = {}
    for file in _inventories(root):
        inventory = _read_inventory(file, quiet)
        for entry in inventory.environments.values() if inventory else ():
            for name, host in entry.hosts.items():
                words |= dict.fromkeys((name, *host.groups, *host.roles))
    return tuple(words)


def _inventories(root: Path) -> list[Path]:
    lab = sorted(root.glob(".lab/*/hosts.yaml"))
    main = root / "hosts.yaml"
    return [main, *lab] if main.exists() or not lab else lab


def _names(file: Path, issues: Issues) -> list[str]:
    content = read_yaml(file, issues, remedy=_INVENTORY_REMEDY) or {}
    entries = content.get("environments")
    if isinstance(entries, dict):
        return list(entries)
    if content:
        issues.add(issues.name(file), "environments", found="no mapping", expected="environments by name")
    return []


def locate(environment: str | None, root: Path, issues: Issues) -> Located:
    """Find an environment and read its inventory file. Raises ConfigError when no file contains it."""
    inventories = {file: Issues(root) for file in _inventories(root)}
    matches = [file for file, own in inventories.items() if environment in _names(file, own)]
    if environment and not matches:
        matches = [file for file, own in inventories.items() if own.errors and _has_values(file, environment)]
    if environment is None or not matches:
        raise _no_environment(environment, list_environments(root), inventories.values())
    if len(matches) > 1:
        files = " and ".join(issues.name(file) for file in matches)
        issues.add(files, f"environments.{environment}", found="one name in two files", expected="distinct names")
    return _located(matches[0], environment, issues)


def _has_values(file: Path, environment: str) -> bool:
    """Return whether the environment may be in an invalid inventory: its default env file exists."""
    return Located(environment, file, EnvironmentEntry()).env_file.is_file()


def _read_inventory(file: Path, issues: Issues) -> Inventory | None:
    content = read_yaml(file, issues, remedy=_INVENTORY_REMEDY)
    if content is None:
        return None
    before = len(issues.errors)
    inventory = validate(Inventory, content, issues.name(file), issues)
    if inventory is not None:
        checks.check_inventory(inventory, issues.name(file), len(issues.errors) == before, issues)
    return inventory


def _no_environment(name: str | None, names: Sequence[str], inventories: Iterable[Issues]) -> ConfigError:
    listed = ", ".join(names) or "none"
    near = nearest(name or "", names)
    hint = f" (did you mean {near}?)" if near else ""
    what = f"Unknown environment {name!r}{hint}." if name else "No environment was given, and there is no default."
    errors = [error for issues in inventories for error in issues.errors]
    next_step = "use one of these names" if name else "pass one with --env"
    return ConfigError(
        f"{what} Environments: {listed}. Nothing was contacted.",
        errors,
        next_step=next_step if names else "add one to hosts.yaml",
    )
