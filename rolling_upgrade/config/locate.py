"""Finding an environment: which inventory file holds it, and what that file says of it.

It owns the places where inventories lie (`hosts.yaml`, `.lab/*/hosts.yaml`) and how relative paths are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fabfile.config import checks
from fabfile.config.findings import Findings, nearest
from fabfile.config.inventory import EnvironmentEntry, Inventory
from fabfile.config.validation import validate
from fabfile.config.yamlfile import read_yaml
from fabfile.errors import ConfigError

_INVENTORY_REMEDY = "a hosts.yaml with the environments and their hosts"


@dataclass(frozen=True)
class Located:
    """An environment in its inventory file."""

    name: str
    file: Path
    entry: EnvironmentEntry

    @property
    def env_file(self) -> Path:
        """The file with the values of the environment."""
        return self.beside(self.entry.env_file or f"deploy/{self.name}.env")

    @property
    def recipients_file(self) -> Path:
        """The file with the public keys that the env file is encrypted for."""
        return self.beside(self.entry.recipients_file or f"deploy/recipients/{self.name}.txt")

    def beside(self, path: str) -> Path:
        """A path of the inventory, which is relative to the folder of its file."""
        return Path(os.path.normpath(self.file.parent / expanded(path)))


def expanded(path: str) -> Path:
    """A path with ~ replaced, where this machine knows a home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def list_environments(root: Path) -> tuple[str, ...]:
    """The names of all environments."""
    quiet = Findings(root)
    return tuple(dict.fromkeys(name for file in _inventories(root) for name in _names(file, quiet)))


def list_of_labs(root: Path) -> tuple[str, ...]:
    """The names of the environments of labs alone."""
    quiet = Findings(root)
    return tuple(name for file in sorted(root.glob(".lab/*/hosts.yaml")) for name in _names(file, quiet))


def list_with_values(root: Path) -> tuple[str, ...]:
    """The names of the environments whose env file is there; a lab's count only where no other has one."""
    quiet = Findings(root)
    for files in ([root / "hosts.yaml"], sorted(root.glob(".lab/*/hosts.yaml"))):
        entries = [(file, name) for file in files if file.exists() for name in _names(file, quiet)]
        found = [name for file, name in entries if _located(file, name, quiet).env_file.is_file()]
        if found:
            return tuple(found)
    return ()


def _located(file: Path, name: str, findings: Findings) -> Located:
    inventory = _read_inventory(file, findings)
    entry = inventory.environments.get(name) if inventory else None
    return Located(name, file, entry or EnvironmentEntry())


def list_hosts(root: Path) -> tuple[str, ...]:
    """The names, groups and roles of all hosts of all environments, each once; what cannot be read is left out."""
    quiet = Findings(root)
    found: dict[str, None] = {}
    for file in _inventories(root):
        content = read_yaml(file, quiet, remedy=_INVENTORY_REMEDY) or {}
        inventory = validate(Inventory, content, quiet.name(file), quiet)
        for entry in inventory.environments.values() if inventory else ():
            for name, host in entry.hosts.items():
                found |= dict.fromkeys((name, *host.groups, *host.roles))
    return tuple(found)


def _inventories(root: Path) -> list[Path]:
    lab = sorted(root.glob(".lab/*/hosts.yaml"))
    main = root / "hosts.yaml"
    return [main, *lab] if main.exists() or not lab else lab


def _names(file: Path, findings: Findings) -> list[str]:
    content = read_yaml(file, findings, remedy=_INVENTORY_REMEDY) or {}
    entries = content.get("environments")
    if isinstance(entries, dict):
        return list(entries)
    if content:
        findings.add(findings.name(file), "environments", found="no names", expected="environments by name")
    return []


def locate(environment: str | None, root: Path, findings: Findings) -> Located:
    """The environment and the file that holds it, read whole. Raises ConfigError when no file does."""
    reading = {file: Findings(root) for file in _inventories(root)}
    named = {file: _names(file, own) for file, own in reading.items()}
    holders = [file for file, names in named.items() if environment in names]
    if environment and not holders:
        holders = [file for file, own in reading.items() if own.mistakes and _has_values(file, environment)]
    if environment is None or not holders:
        raise _no_environment(environment, list_environments(root), reading.values())
    if len(holders) > 1:
        both = " and ".join(findings.name(file) for file in holders)
        findings.add(both, f"environments.{environment}", found="one name in two files", expected="distinct names")
    inventory = _read_inventory(holders[0], findings)
    entry = inventory.environments.get(environment) if inventory else None
    return Located(environment, holders[0], entry or EnvironmentEntry())


def _has_values(file: Path, environment: str) -> bool:
    """Whether a faulty inventory can be meant: the usual env file of the environment lies beside it."""
    return Located(environment, file, EnvironmentEntry()).env_file.is_file()


def _read_inventory(file: Path, findings: Findings) -> Inventory | None:
    content = read_yaml(file, findings, remedy=_INVENTORY_REMEDY)
    if content is None:
        return None
    before = len(findings.mistakes)
    inventory = validate(Inventory, content, findings.name(file), findings)
    if inventory is not None:
        checks.check_inventory(inventory, findings.name(file), len(findings.mistakes) == before, findings)
    return inventory


def _no_environment(name: str | None, names: Sequence[str], reading: Iterable[Findings]) -> ConfigError:
    listed = ", ".join(names) or "none"
    near = nearest(name or "", names)
    hint = f" (nearest: {near})" if near else ""
    what = f"There is no environment {name!r}{hint}." if name else "No environment was named, and none is the default."
    mistakes = [mistake for findings in reading for mistake in findings.mistakes]
    return ConfigError(
        f"{what} Environments: {listed}. Nothing was contacted.",
        mistakes,
        next_step="name one with --env" if names else "describe one in hosts.yaml",
    )
