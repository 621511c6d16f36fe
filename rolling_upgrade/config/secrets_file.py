"""The encrypted files of an environment: its env file, its recipients file, and the keys that open them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rolling_upgrade.config.encryption.keyring import Keyring, KeySource, Prompt, no_prompt, prompt_hidden
from rolling_upgrade.config.encryption.recipients import EXPECTED, Recipient, parse
from rolling_upgrade.config.files import READABLE, decoded
from rolling_upgrade.config.issues import Issues, conceals
from rolling_upgrade.config.locate import Located, expanded, locate
from rolling_upgrade.engine.local_file import read_small
from rolling_upgrade.engine.shell import shown_command
from rolling_upgrade.errors import ConfigError

#: Variables with a private age key, as CI passes it: the key itself, or a file that contains it.
KEY_TEXT = "ROLLING_AGE_KEY"
KEY_FILE = "ROLLING_AGE_KEY_FILE"


@dataclass(frozen=True)
class SecretsFile:
    """The env file of an environment, its recipients and its keys. Names are paths as messages show them."""

    environment: str
    path: Path
    name: str
    recipients_path: Path
    recipients_name: str
    recipients: tuple[Recipient, ...]
    sources: tuple[KeySource, ...] = field(repr=False)
    keyring: Keyring = field(repr=False)
    #: Places in hosts.yaml, which is not encrypted, that override a secret on a host.
    overrides: tuple[str, ...] = ()
    #: The command whose output replaces the file, empty for a file.
    command: tuple[str, ...] = ()


def locate_secrets(
    environment: str | None, *, root: Path, prompt: Prompt = prompt_hidden, needs_file: bool = True
) -> SecretsFile:
    """Locate the encrypted files of an environment. Raises ConfigError with every error of hosts.yaml and the list.

    With `needs_file`, also when the values come from a command.
    """
    issues = Issues(root.resolve())
    located = locate(environment, root.resolve(), issues)
    recipients = read_recipients(located, issues)
    if issues.errors:
        raise ConfigError(
            f"The configuration of {located.name} has errors. Nothing was changed.",
            issues.errors,
            next_step="correct the lines above and run the same command again",
        )
    if needs_file and located.entry.env_command:
        raise ConfigError(
            f"The values of {located.name} come from a command, env_command in {issues.name(located.file)}; "
            "there is no env file to read, edit or encrypt.",
            next_step=f"change the values where the command reads them: {shown_command(located.entry.env_command)}",
        )
    sources = tuple(_sources(located))
    return SecretsFile(
        environment=located.name,
        path=located.env_file,
        name=issues.name(located.env_file),
        recipients_path=located.recipients_file,
        recipients_name=issues.name(located.recipients_file),
        recipients=recipients,
        sources=sources,
        keyring=Keyring(sources, recipients, os.environ, prompt),
        overrides=tuple(_overrides(located, issues)),
        command=located.entry.env_command,
    )


def _overrides(located: Located, issues: Issues) -> Iterator[str]:
    for name, host in located.entry.hosts.items():
        for key, value in host.env.items():
            if value and conceals(key, value):
                yield f"{issues.name(located.file)} environments.{located.name}.hosts.{name}.env.{key}"


def keyring(located: Located, *, prompt: bool) -> Keyring:
    """Return the keys for the env file of an environment. `prompt` allows prompting for passphrases."""
    recipients = read_recipients(located, Issues(located.file.parent))
    ask = prompt_hidden if prompt else no_prompt
    return Keyring(tuple(_sources(located)), recipients, os.environ, ask)


def read_recipients(located: Located, issues: Issues) -> tuple[Recipient, ...]:
    """Read the recipients file; a missing file lists none. Errors go to `issues`."""
    path, file = located.recipients_file, issues.name(located.recipients_file)
    try:
        data = read_small(path)
    except FileNotFoundError:
        return ()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        issues.add(file, "", found=f"an unreadable file ({reason})", expected=READABLE)
        return ()
    recipients, faults = parse(decoded(data, file, issues) or "")
    for number, fault in faults:
        issues.add(file, "", found=fault, expected=EXPECTED, line=number)
    return recipients


def _sources(located: Located) -> Iterator[KeySource]:
    """Yield the possible sources of private keys in the order in which they are tried."""
    entry = located.entry
    if entry.age_identity:
        path = located.resolve(entry.age_identity)
        yield KeySource(f"{path} (age_identity)", path)
    if os.environ.get(KEY_TEXT):
        yield KeySource(KEY_TEXT, text=os.fsencode(os.environ[KEY_TEXT].strip()) + b"\n")
    if os.environ.get(KEY_FILE):
        path = expanded(os.environ[KEY_FILE])
        yield KeySource(f"{path} ({KEY_FILE})", path)
    if entry.identity_file:
        path = located.resolve(entry.identity_file)
        yield KeySource(f"{path} (identity_file)", path, named=False)
    for name in ("id_ed25519", "id_rsa"):
        yield KeySource(f"~/.ssh/{name}", expanded(f"~/.ssh/{name}"), named=False)
