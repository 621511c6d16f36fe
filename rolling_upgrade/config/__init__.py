"""The configuration: `hosts.yaml`, `deploy/services.yaml` and an env file, validated into one `model.Environment`.

Importing this package is cheap: pydantic, PyYAML and python-dotenv are imported when a file is read, cryptography
and pyrage when it is encrypted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rolling_upgrade.engine import model


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
        root: The directory with `hosts.yaml`.
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
