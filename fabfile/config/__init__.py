"""The configuration: three files read, checked whole and joined into `model.Environment`.

It owns `hosts.yaml` (where the hosts are), `deploy/services.yaml` (what runs) and `deploy/<env>.env` (with
which values). It contacts nothing and changes nothing. Importing it is cheap: pydantic, PyYAML and
python-dotenv are imported when a file is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fabfile import model


def load(
    environment: str | None, *, root: Path, hosts: Sequence[str] = (), tag: str = "", strict: bool = False
) -> model.Environment:
    """Read and check everything one run needs to know about an environment.

    `hosts` picks hosts: a word is the name of a host, a group or a role; none means all. `tag` wins over the
    tags and digests of the image keys. `strict` turns unknown keys of the env file into mistakes.
    Raises ConfigError with every mistake of all files; without a known environment it lists those there are.
    """
    from fabfile.config.loading import load_environment

    return load_environment(environment, root=root, hosts=hosts, tag=tag, strict=strict)


def environments(root: Path) -> tuple[str, ...]:
    """The names of all environments: those of `hosts.yaml` first, then those of `.lab/*/hosts.yaml`.

    A file that cannot be read adds no names; `load` says what is wrong with it.
    """
    from fabfile.config.locating import list_environments

    return list_environments(root)
