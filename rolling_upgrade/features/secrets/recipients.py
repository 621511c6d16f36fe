"""List, add and remove the recipients of an environment's secrets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rolling_upgrade.config.encrypted_files import SecretsFile, locate_secrets
from rolling_upgrade.config.encryption import Encryption, EncryptionError, age, detect
from rolling_upgrade.config.encryption.recipients import EXPECTED, Recipient, add_line, parse, remove_line
from rolling_upgrade.config.locate import expanded
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.console.text import count, table
from rolling_upgrade.engine.local_file import PUBLIC, replace
from rolling_upgrade.errors import PROGRAM, ConfigError, ExitCode
from rolling_upgrade.features.secrets.files import as_config_error, print_notes, recipient_differences

_HEADER = "# Public keys that {file} is encrypted for, one per line: {expected}.\n"


def recipients(
    env: str | None, *, root: Path, add: Sequence[str] = (), remove: Sequence[str] = (), comment: str = ""
) -> ExitCode:
    """Add and remove recipients, then list them. Raises ConfigError before any change."""
    secrets = locate_secrets(env, root=root)
    # As bytes, so that other lines keep their line endings.
    text = secrets.recipients_path.read_bytes().decode() if secrets.recipients_path.exists() else ""
    changed = _removed(_added(text, add, comment, secrets), remove, secrets)
    if changed != text:
        replace(secrets.recipients_path, changed.encode(), PUBLIC)
        secrets = locate_secrets(env, root=root)
    _show(secrets, changed=changed != text)
    return ExitCode.DONE


def _added(text: str, add: Sequence[str], comment: str, secrets: SecretsFile) -> str:
    if comment and len(add) != 1:
        raise ConfigError("--comment names the owner of a key and requires exactly one --add.")
    if not comment.isprintable():
        raise ConfigError("--comment must be a single line of text.")
    known = {recipient.key for recipient in secrets.recipients}
    for word in add:
        for recipient in _keys(word, comment):
            if recipient.key not in known:
                text = add_line(text or _HEADER.format(file=secrets.name, expected=EXPECTED), recipient)
                known.add(recipient.key)
    return text


def _keys(word: str, comment: str) -> list[Recipient]:
    """Parse a key, or the keys in a file of that name. Raises ConfigError."""
    path = expanded(word)
    try:
        text = path.read_text(encoding="utf-8") if len(word) < 4096 and path.is_file() else word
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"--add {word}: cannot read the file as text.", next_step=EXPECTED) from None
    listed, faults = parse(text)
    if faults or not listed:
        what = faults[0][1] if faults else "no key"
        shown = f"{word}: " if text != word else ""
        raise ConfigError(
            f"--add {shown}found {what}; nothing was changed.", next_step=f"add {EXPECTED}; or its .pub file"
        )
    for recipient in listed:
        _check(recipient)
    return [Recipient(recipient.key, " ".join(comment.split()) or recipient.comment) for recipient in listed]


def _check(recipient: Recipient) -> None:
    if recipient.encryption is Encryption.AGE:
        try:
            age.public_key(recipient)
        except EncryptionError as error:
            raise ConfigError(f"--add: found {error.found}; nothing was changed.", next_step=error.needed) from None


def _removed(text: str, remove: Sequence[str], secrets: SecretsFile) -> str:
    for word in remove:
        listed, _ = parse(text)
        picked = [
            recipient
            for recipient in listed
            if word in (recipient.comment, recipient.fingerprint, recipient.key, recipient.key.split()[-1])
        ]
        if len(picked) != 1:
            titles = ", ".join(recipient.title for recipient in listed) or "nobody"
            what = "more than one key" if picked else "no key"
            raise ConfigError(
                f"--remove {word!r} matches {what} in {secrets.recipients_name}; nothing was changed.",
                next_step=f"name a key by its comment or fingerprint: {titles}",
            )
        if len(listed) == 1:
            raise ConfigError(
                f"{picked[0].title} is the only recipient in {secrets.recipients_name}; without it, nobody could decrypt the file.",
                next_step="add another recipient first",
            )
        text = remove_line(text, picked[0])
    return text


def _show(secrets: SecretsFile, *, changed: bool) -> None:
    data = secrets.path.read_bytes() if secrets.path.exists() else b""
    with as_config_error(secrets):
        found = recipient_differences(data, secrets) if data else ()
    encryption = detect(data)
    rows = [
        (recipient.title, recipient.key.split()[0] if " " in recipient.key else "age", recipient.fingerprint)
        for recipient in secrets.recipients
    ]
    print_lines(_recipient_lines(secrets.recipients_name, rows), sys.stdout)
    state = f"encrypted by {encryption.value}" if encryption else "not encrypted" if data else "missing"
    print_lines([f"{secrets.name} is {state}.", *(f"  {difference}" for difference in found)], sys.stdout)
    if found or (changed and encryption in (Encryption.AGE, Encryption.GPG)):
        print_notes(
            [f"Next: {PROGRAM} secrets.rotate --env {secrets.environment}. Until then, the old recipients apply."]
        )
    elif changed and encryption is None:
        print_notes([f"Next: {PROGRAM} secrets.encrypt --env {secrets.environment}"])


def _recipient_lines(file: str, rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Format the recipients of a file: owner, key type, fingerprint."""
    if not rows:
        return [f"{file}: no keys"]
    return [f"{file}: {count(len(rows), 'key')}", *table([("", *row) for row in rows])]
