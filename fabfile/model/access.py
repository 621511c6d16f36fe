"""Who may deploy, as the folder of an environment says it. Shapes only.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from fabfile.model.public_key import PublicKey


@dataclass(frozen=True)
class Access:
    """The keys that are granted and those that were revoked, each with its name, sorted by it."""

    granted: tuple[tuple[str, PublicKey], ...] = ()
    revoked: tuple[tuple[str, PublicKey], ...] = ()

    @property
    def names(self) -> Mapping[str, str]:
        """Whose each fingerprint is."""
        former = {key.fingerprint: f"{name} (revoked)" for name, key in self.revoked}
        return former | {key.fingerprint: name for name, key in self.granted}

    @property
    def revoked_blobs(self) -> frozenset[str]:
        """The keys that let nobody in any more."""
        return frozenset(key.blob for _, key in self.revoked)

    def key_of(self, name: str) -> PublicKey | None:
        """The key that is granted under the name."""
        return dict(self.granted).get(name)

    def with_granted(self, name: str, key: PublicKey) -> Access:
        """The same with one more key."""
        return Access(tuple(sorted([*self.granted, (name, key)], key=lambda row: row[0])), self.revoked)

    def with_revoked(self, name: str) -> Access:
        """The same with the key of that name revoked."""
        kept = tuple(row for row in self.granted if row[0] != name)
        gone = tuple(row for row in self.granted if row[0] == name)
        return Access(kept, (*self.revoked, *gone))


class Standing(str, Enum):
    """How a key that lets somebody in stands to the folder."""

    GRANTED = "granted"
    MISSING = "MISSING"
    REMOVED = "NOT IN THE FOLDER"
    REVOKED = "REVOKED"
    UNMANAGED = "NOT MANAGED"
    ELSEWHERE = "another block"

    @property
    def is_drift(self) -> bool:
        """Whether folder and host differ in it."""
        return self not in (Standing.GRANTED, Standing.ELSEWHERE)


@dataclass(frozen=True)
class Holder:
    """Somebody who can log in to a host as the deploy user, or should: by which file, and which foreign block of it."""

    name: str
    key: PublicKey
    standing: Standing
    file: str
    block: str = ""
    options: str = ""

    @property
    def place(self) -> str:
        """The file and block for people."""
        return f"{self.file} (block of {self.block})" if self.block else self.file
