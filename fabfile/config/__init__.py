"""The configuration: three files read, checked whole and joined into `model.Environment`.

It owns `hosts.yaml` (where the hosts are), `deploy/services.yaml` (what runs) and `deploy/<env>.env` (with
which values). It contacts nothing and changes nothing. Importing it is cheap: pydantic, PyYAML and
python-dotenv are imported when a file is read, cryptography and pyrage when it is encrypted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fabfile import model
from fabfile.errors import Mistake

if TYPE_CHECKING:
    from fabfile.config.explaining import Explained


def load(
    environment: str | None,
    *,
    root: Path,
    hosts: Sequence[str] = (),
    tag: str = "",
    strict: bool = False,
    prompt: bool = True,
) -> model.Environment:
    """Read and check everything one run needs to know about an environment.

    `hosts` picks hosts: a word is the name of a host, a group or a role; none means all. `tag` wins over the
    tags and digests of the image keys. `strict` turns unknown keys of the env file into mistakes. `prompt`: a
    person may be asked for the password of an encrypted env file.
    Raises ConfigError with every mistake of all files; without a known environment it lists those there are.
    """
    from fabfile.config.loading import load_environment

    return load_environment(environment, root=root, hosts=hosts, tag=tag, strict=strict, prompt=prompt)


def environments(root: Path) -> tuple[str, ...]:
    """The names of all environments: those of `hosts.yaml` first, then those of `.lab/*/hosts.yaml`.

    A file that cannot be read adds no names; `load` says what is wrong with it.
    """
    from fabfile.config.locating import list_environments

    return list_environments(root)


def host_names(root: Path) -> tuple[str, ...]:
    """The names, groups and roles of the hosts of all environments; a file that cannot be read adds none."""
    from fabfile.config.locating import list_hosts

    return list_hosts(root)


def explain(environment: str | None, *, root: Path, hosts: Sequence[str] = (), tag: str = "") -> Explained:
    """Every effective value of an environment and where it came from, secrets masked. Raises ConfigError."""
    from fabfile.config.explaining import explain_environment

    return explain_environment(environment, root=root, hosts=hosts, tag=tag)


def clashes(environments: Sequence[model.Environment]) -> tuple[Mistake, ...]:
    """What two environments both claim on a host that they share."""
    from fabfile.config import together

    return together.clashes(environments)


def local_warnings(environment: model.Environment, root: Path) -> tuple[str, ...]:
    """What of this machine's own files would spoil a run: a readable env file, a host without a known key."""
    from fabfile.config import together

    return together.warnings(environment, root)


def filled_in(root: Path) -> tuple[str, ...]:
    """Environments whose env file is here: those of `hosts.yaml`, or those of the lab where it has none."""
    from fabfile.config.locating import list_with_values

    return list_with_values(root)


def suites(root: Path) -> tuple[model.Suite, ...]:
    """The suites of `deploy/services.yaml`, of no environment. Raises ConfigError."""
    from fabfile.config.loading import load_suites

    return load_suites(root)
