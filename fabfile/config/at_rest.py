"""An environment's files at rest: where they lie, for whom they are encrypted, which keys here may open them.

It reads the recipients file; it opens nothing and writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fabfile.config.findings import Findings, conceals
from fabfile.config.locating import Located, expanded, locate
from fabfile.config.textfile import decoded
from fabfile.errors import ConfigError
from fabfile.sealing import passwords
from fabfile.sealing.identities import KeySource
from fabfile.sealing.keyring import Keyring
from fabfile.sealing.passwords import Ask
from fabfile.sealing.recipients import EXPECTED, Recipient, read

#: A private key for age, as CI hands it over: its text, or the file that holds it.
KEY_TEXT = "ROLLING_AGE_KEY"
KEY_FILE = "ROLLING_AGE_KEY_FILE"


@dataclass(frozen=True)
class AtRest:
    """The env file of an environment on this machine, and what belongs to it."""

    environment: str
    file: Path
    shown: str
    recipients_file: Path
    recipients_shown: str
    listed: tuple[Recipient, ...]
    sources: tuple[KeySource, ...] = field(repr=False)
    keyring: Keyring = field(repr=False)
    #: Where the inventory, which is no secret, gives a secret another value on a host.
    overridden: tuple[str, ...] = ()


def at_rest(environment: str | None, *, root: Path, asking: Ask = passwords.ask) -> AtRest:
    """Where the files of an environment lie and what they are for. Raises ConfigError with every mistake."""
    findings = Findings(root.resolve())
    found = locate(environment, root.resolve(), findings)
    listed = recipients(found, findings)
    if findings.mistakes:
        raise ConfigError(
            f"{found.name} cannot be looked at. Nothing was changed.",
            findings.mistakes,
            next_step="correct the lines above and run the same command again",
        )
    sources = tuple(_sources(found))
    return AtRest(
        environment=found.name,
        file=found.env_file,
        shown=findings.name(found.env_file),
        recipients_file=found.recipients_file,
        recipients_shown=findings.name(found.recipients_file),
        listed=listed,
        sources=sources,
        keyring=Keyring(sources, listed, os.environ, asking),
        overridden=tuple(_overridden(found, findings)),
    )


def _overridden(found: Located, findings: Findings) -> Iterator[str]:
    for name, host in found.entry.hosts.items():
        for key, value in host.env.items():
            if value and conceals(key, value):
                yield f"{findings.name(found.file)} environments.{found.name}.hosts.{name}.env.{key}"


def keyring(found: Located, *, prompt: bool) -> Keyring:
    """What may open the env file of an environment; `prompt` says whether a person may be asked."""
    listed = recipients(found, Findings(found.file.parent))
    return Keyring(tuple(_sources(found)), listed, os.environ, passwords.ask if prompt else passwords.never)


def recipients(found: Located, findings: Findings) -> tuple[Recipient, ...]:
    """For whom the env file is to be encrypted; none where there is no such file. Mistakes go to `findings`."""
    path, file = found.recipients_file, findings.name(found.recipients_file)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        findings.add(file, "", found=f"a file that cannot be read ({reason})", expected="a readable file")
        return ()
    listed, faults = read(decoded(data, file, findings) or "")
    for number, fault in faults:
        findings.add(file, f"line {number}", found=fault, expected=EXPECTED)
    return listed


def _sources(found: Located) -> Iterator[KeySource]:
    """The places that may hold a private key, in the order in which they are tried."""
    entry = found.entry
    if entry.age_identity:
        path = found.beside(entry.age_identity)
        yield KeySource(f"{path} (age_identity)", path)
    if os.environ.get(KEY_TEXT):
        yield KeySource(KEY_TEXT, text=os.fsencode(os.environ[KEY_TEXT].strip()) + b"\n")
    if os.environ.get(KEY_FILE):
        path = expanded(os.environ[KEY_FILE])
        yield KeySource(f"{path} ({KEY_FILE})", path)
    if entry.identity_file:
        path = found.beside(entry.identity_file)
        yield KeySource(f"{path} (identity_file)", path, named=False)
    for name in ("id_ed25519", "id_rsa"):
        yield KeySource(f"~/.ssh/{name}", expanded(f"~/.ssh/{name}"), named=False)
