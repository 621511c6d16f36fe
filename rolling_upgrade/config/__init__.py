"""The configuration: `hosts.yaml`, `deploy/services.yaml` and an env file, validated into one `model.Environment`.

Importing this package is cheap: pydantic, PyYAML and python-dotenv are imported when a file is read, cryptography
and pyrage when it is encrypted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rolling_upgrade.engine import model
from rolling_upgrade.errors import ConfigIssue

if TYPE_CHECKING:
    from rolling_upgrade.config.effective import Explained


def load(
    environment: str | None,
    *,
    root: Path,
    hosts: Sequence[str] = (),
    tag: str = "",
    strict: bool = False,
    prompt: bool = True,
) -> model.Environment:
    """Read and validate the configuration of an environment.

    Args:
        environment: The name of the environment.
        root: The folder with `hosts.yaml`.
        hosts: The hosts to select, by name, group or role; all when empty.
        tag: An image tag that overrides the tags and digests of the env file.
        strict: Treat unknown keys of the env file as errors.
        prompt: Allow prompting for the password of an encrypted env file.

    Raises:
        ConfigError: With the errors of all files, or with the known environments when this one is unknown.
    """
    from rolling_upgrade.config.loader import load_environment

    return load_environment(environment, root=root, hosts=hosts, tag=tag, strict=strict, prompt=prompt)


def environments(root: Path) -> tuple[str, ...]:
    """Return the names of all environments: of `hosts.yaml` first, then of `.lab/*/hosts.yaml`.

    Unreadable files are skipped; `load` reports their errors.
    """
    from rolling_upgrade.config.locate import list_environments

    return list_environments(root)


def host_names(root: Path) -> tuple[str, ...]:
    """Return the names, groups and roles of the hosts of all environments; unreadable files are skipped."""
    from rolling_upgrade.config.locate import list_hosts

    return list_hosts(root)


def explain(environment: str | None, *, root: Path, hosts: Sequence[str] = (), tag: str = "") -> Explained:
    """Return every effective value of an environment and its source, secrets masked. Raises ConfigError."""
    from rolling_upgrade.config.effective import explain_environment

    return explain_environment(environment, root=root, hosts=hosts, tag=tag)


def conflicts(environments: Sequence[model.Environment]) -> tuple[ConfigIssue, ...]:
    """Report names, ports, domains and paths that two environments use on the same host."""
    from rolling_upgrade.config import cross_checks

    return cross_checks.conflicts(environments)


def local_warnings(environment: model.Environment, root: Path) -> tuple[str, ...]:
    """Warn about files of this machine: a readable env file, or a host without a known key."""
    from rolling_upgrade.config import cross_checks

    return cross_checks.warnings(environment, root)


def environments_with_values(root: Path) -> tuple[str, ...]:
    """Return the environments whose env file exists: those of `hosts.yaml`, or else those of labs."""
    from rolling_upgrade.config.locate import list_with_values

    return list_with_values(root)


def suites(root: Path) -> tuple[model.Suite, ...]:
    """Return the test suites of `deploy/services.yaml`. Raises ConfigError."""
    from rolling_upgrade.config.loader import load_suites

    return load_suites(root)
