"""Real keys for files at rest: made by ssh-keygen and pyrage, and a gpg with a keyring of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pyrage import x25519

from fabfile.sealing.identities import KeySource
from fabfile.sealing.keyring import Keyring
from fabfile.sealing.passwords import Ask, never
from fabfile.sealing.recipients import Recipient, recipient

TEXT = b"APP_NAME=memoryark\nJWT_SECRET_KEY=correct-horse-battery\n"


def ssh_key(path: Path, comment: str, *options: str, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new SSH key pair."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", comment, *options, "-f", str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


def public(private: Path) -> Recipient:
    """The public half of an SSH key."""
    one = recipient(private.with_name(f"{private.name}.pub").read_text())
    assert one is not None
    return one


def age_key(path: Path, comment: str = "") -> Recipient:
    """A new key of age's own in a file as age-keygen writes it; what comes back is its public half."""
    made = x25519.Identity.generate()
    path.write_text(f"# created: 2026-11-23\n# public key: {made.to_public()}\n{made}\n")
    path.chmod(0o600)
    return Recipient(str(made.to_public()), comment)


def keyring(
    *files: Path, listed: tuple[Recipient, ...] = (), environ: dict[str, str] | None = None, asking: Ask = never
) -> Keyring:
    """The keys in these files."""
    sources = [KeySource(str(file), file) for file in files]
    return Keyring(sources, listed, environ or {}, asking)


class Asked:
    """A person who types the same answer and is counted."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.questions: list[str] = []

    def __call__(self, question: str) -> str:
        self.questions.append(question)
        return self._answers.pop(0)
