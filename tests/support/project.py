"""A small valid project on disk, and helpers that change one thing in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rolling_upgrade import config
from rolling_upgrade.engine.model import Application, Environment
from rolling_upgrade.errors import ConfigError, ConfigIssue

ROOT = Path(__file__).resolve().parents[2]
#: A copy of the shipped example, which tests use because a team replaces the shipped one.
MEMORYARK = ROOT / "tests/fixtures/memoryark"

ENV = {
    "APP_NAME": "memoryark",
    "APP_VERSION": "2.0.1",
    "ENVIRONMENT": "staging",
    "BACKEND_IMAGE": "registry.example.org/memoryark/backend",
    "FRONTEND_IMAGE": "registry.example.org/memoryark/frontend",
    "DOMAIN_NAME": "files.example.org",
    "DATABASE_PATH": "/srv/memoryark/data/memoryark.db",
    "UPLOADS_PATH": "/srv/memoryark/uploads",
    "JWT_SECRET_KEY": "correct-horse-battery",
}

HOSTS = """\
environments:
  demo:
    hosts:
      web1: {address: 192.0.2.11, roles: [web], groups: [canary]}
      web2: {address: 192.0.2.12, roles: [web]}
"""


class Project:
    """The three files of one environment named demo."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "deploy").mkdir()
        self.write("hosts.yaml", HOSTS)
        self.write("deploy/services.yaml", (MEMORYARK / "deploy/services.yaml").read_text())
        self.env()

    def write(self, path: str, content: str | bytes) -> Path:
        """Write a file of the project."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def env(self, changes: Mapping[str, str | None] | None = None, *, extra: str = "") -> None:
        """Write the env file with changed values; None removes a key."""
        values = {**ENV, **(changes or {})}
        lines = [f"{key}={value}" for key, value in values.items() if value is not None]
        self.write("deploy/demo.env", "\n".join([*lines, extra]))

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text in a file of the project."""
        text = (self.root / path).read_text()
        assert old in text
        self.write(path, text.replace(old, new))

    def rollout(self, settings: str) -> None:
        """Add rollout settings to the environment, such as `confirm: true`."""
        self.edit("hosts.yaml", "    hosts:", f"    rollout: {{{settings}}}\n    hosts:")

    def require_signatures(self) -> str:
        """Add a key that images must be signed with, and return it."""
        self.rollout("signed_by: release.pub")
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        text = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.write("release.pub", text)
        return text.decode()

    def load(
        self,
        environment: str | None = "demo",
        *,
        hosts: tuple[str, ...] = (),
        tag: str = "",
        strict: bool = False,
    ) -> Environment:
        """Load the project."""
        return config.load(environment, root=self.root, hosts=hosts, tag=tag, strict=strict)

    def application(self, *, tag: str = "") -> Application:
        """Load the application of the first host."""
        return self.load(tag=tag).targets[0].application

    def refused(
        self,
        environment: str | None = "demo",
        *,
        hosts: tuple[str, ...] = (),
        tag: str = "",
        strict: bool = False,
    ) -> ConfigError:
        """Return the error of a failed load."""
        with pytest.raises(ConfigError) as caught:
            self.load(environment, hosts=hosts, tag=tag, strict=strict)
        return caught.value

    def issues(self, *, hosts: tuple[str, ...] = (), tag: str = "", strict: bool = False) -> list[ConfigIssue]:
        """Return the issues of a failed load."""
        return list(self.refused(hosts=hosts, tag=tag, strict=strict).issues)

    def places(self) -> list[tuple[str, str]]:
        """Return the file and path of each issue; the line, if it has no path."""
        return [(issue.file, issue.path or issue.place) for issue in self.issues()]
