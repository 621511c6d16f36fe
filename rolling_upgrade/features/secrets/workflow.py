"""Encrypt, decrypt and rotate an env file on this workstation, and change its recipients."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rolling_upgrade.config.encryption import Encryption, EncryptionError, NoTerminal, age, detect, keyring
from rolling_upgrade.config.encryption.recipients import EXPECTED, Recipient, add_line, parse, remove_line
from rolling_upgrade.config.issues import secret_keys
from rolling_upgrade.config.locate import expanded
from rolling_upgrade.config.secrets_file import SecretsFile, locate_secrets
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.console.text import count, table
from rolling_upgrade.engine.git import is_tracked
from rolling_upgrade.engine.local_file import PUBLIC, replace
from rolling_upgrade.errors import PROGRAM, ConfigError, ExitCode
from rolling_upgrade.features.secrets.env_file import (
    as_config_error,
    describe_recipients,
    encrypt_like,
    encrypted_bytes,
    parse_values,
    print_notes,
    read_env_file,
    recipient_differences,
    recipients_text,
    replace_env_file,
    update_mark,
    verify,
)

_HEADER = "# Public keys that {file} is encrypted for, one per line: {expected}.\n"
_NEW_PASSWORD = f"Pass the new password to everybody who deploys, and to CI ({keyring.PASSWORD_FILE})."


def encrypt(env: str | None, *, root: Path, form: str = "", force: bool = False) -> ExitCode:
    """Replace the plaintext env file by an encrypted one, once a key has decrypted it. Raises ConfigError."""
    secrets = locate_secrets(env, root=root)
    data, encryption = read_env_file(secrets), _encryption(form)
    current = detect(data)
    if current is not None and (not form or current is encryption):
        raise ConfigError(
            f"{secrets.name} is already encrypted by {current.value}.",
            next_step=f"{PROGRAM} secrets.edit --env {secrets.environment} changes values, {PROGRAM} secrets.rotate recipients",
        )
    with as_config_error(secrets):
        text = secrets.keyring.decrypt(data)
        values = parse_values(text, secrets).values
        written = encrypt_like(text, encryption, secrets, new_password=current is not Encryption.VAULT)
    exposed = current is None and is_tracked(secrets.path) is True
    readers = _replace(secrets, written, text, data, force=force)
    print_notes([f"{secrets.name} is encrypted by {encryption.value} for {readers}.", *_left_out(encryption, secrets)])
    if exposed:
        print_notes(["Git's history still contains it in plaintext. Replace these secrets:", *_keys(values)])
    print_notes(
        [f"Next: {PROGRAM} config.check --env {secrets.environment}, then commit it: git add --force {secrets.name}"]
    )
    return ExitCode.DONE


def _replace(secrets: SecretsFile, written: bytes, text: bytes, before: bytes, *, force: bool) -> str:
    """Replace the env file once a key has decrypted the new one; return its recipients. Raises ConfigError."""
    verify(written, text, secrets, force=force)
    replace_env_file(secrets, written, before=before)
    if detect(written) is Encryption.AGE:
        update_mark(secrets)
    with as_config_error(secrets):
        return describe_recipients(written, secrets)


def _encryption(word: str) -> Encryption:
    try:
        return Encryption(word or Encryption.AGE.value)
    except ValueError:
        known = ", ".join(encryption.value for encryption in Encryption)
        raise ConfigError(f"--form {word!r} is unknown.", next_step=f"use one of {known}") from None


def _left_out(encryption: Encryption, secrets: SecretsFile) -> list[str]:
    """Name the recipients that have no key for this encryption."""
    if encryption is Encryption.VAULT:
        return []
    others = [recipient.title for recipient in secrets.recipients if recipient.encryption is not encryption]
    return [f"Not for {', '.join(others)}: their keys are not for {encryption.value}."] if others else []


def _keys(values: dict[str, str]) -> list[str]:
    return [f"  {key}" for key in secret_keys(values.items())] or ["  none: no key has the name of a secret"]


def decrypt(env: str | None, *, root: Path, in_place: bool = False, force: bool = False) -> ExitCode:
    """Print the plaintext, or replace the encrypted file by it. Raises ConfigError."""
    secrets = locate_secrets(env, root=root)
    data, _ = encrypted_bytes(secrets)
    tracked = in_place and is_tracked(secrets.path)
    if tracked is not False:
        why = "Git tracks it" if tracked else "git cannot tell whether it is tracked"
        raise ConfigError(
            f"{secrets.name} is unchanged: {why}, and the next commit could contain the plaintext.",
            next_step=f"{PROGRAM} secrets.edit --env {secrets.environment}, or {PROGRAM} secrets.decrypt without --in-place",
        )
    if not in_place and sys.stdout.isatty() and not force:
        raise ConfigError(
            "The secrets would stay in this terminal's history.",
            next_step=f"{PROGRAM} secrets.decrypt --env {secrets.environment} | less, or --force to print them",
        )
    with as_config_error(secrets):
        text = secrets.keyring.decrypt(data)
    if in_place:
        replace_env_file(secrets, text, before=data)
        print_notes([f"{secrets.name} is now plaintext, readable by this account only (0600)."])
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
    return ExitCode.DONE


def rotate(env: str | None, *, root: Path, new_password_file: str = "", force: bool = False) -> ExitCode:
    """Encrypt the file for the listed recipients; for ansible-vault, with a new password. Raises ConfigError."""
    secrets = locate_secrets(env, root=root)
    data, encryption = encrypted_bytes(secrets)
    with as_config_error(secrets):
        text = secrets.keyring.decrypt(data)
        values = parse_values(text, secrets).values
        changed, before = recipient_differences(data, secrets), describe_recipients(data, secrets)
        if encryption is Encryption.VAULT:
            secrets = _with_new_password(secrets, new_password_file)
            _refuse_same(secrets, data)
        written = encrypt_like(text, encryption, secrets, like=data)
    now = _replace(secrets, written, text, data, force=force)
    print_notes(
        [
            f"{secrets.name} is encrypted again by {encryption.value}.",
            f"  before: {before}",
            f"  now:    {now}",
            *(f"  {change}" for change in changed),
            *_left_out(encryption, secrets),
            *([_NEW_PASSWORD] if encryption is Encryption.VAULT else ()),
            "Former recipients still know these values and can decrypt older versions in Git's history.",
            f"If somebody left, replace each value with {PROGRAM} secrets.edit --env {secrets.environment}, and deploy:",
            *_keys(values),
        ]
    )
    return ExitCode.DONE


def _with_new_password(secrets: SecretsFile, file: str) -> SecretsFile:
    """Return the file with a keyring for the new ansible-vault password. Raises EncryptionError."""
    if file:
        new = keyring.read_password(expanded(file), "--new-password-file")
    else:
        environ = {key: value for key, value in os.environ.items() if key != keyring.PASSWORD_FILE}
        try:
            new = keyring.vault_password(environ, keyring.prompt_hidden, new=True)
        except NoTerminal:
            found = "an ansible-vault file, but no new password for it"
            raise NoTerminal(found, "--new-password-file FILE, or a terminal to prompt on") from None
    return dataclasses.replace(secrets, keyring=secrets.keyring.with_password(new))


def _refuse_same(secrets: SecretsFile, data: bytes) -> None:
    """Raise ConfigError when the new password decrypts the old file: both are the same."""
    try:
        secrets.keyring.decrypt(data)
    except EncryptionError:
        return
    raise ConfigError(f"The new password is the old one; {secrets.name} is unchanged.", next_step="choose another")


def recipients(
    env: str | None, *, root: Path, add: Sequence[str] = (), remove: Sequence[str] = (), comment: str = ""
) -> ExitCode:
    """Add and remove recipients, then list them. Raises ConfigError before any change."""
    secrets = locate_secrets(env, root=root)
    text = recipients_text(secrets)
    changed = _removed(_added(text, add, comment, secrets), remove, secrets)
    if changed != text:
        replace(secrets.recipients_path, changed.encode(), PUBLIC)
        secrets = locate_secrets(env, root=root)
    _print_recipients(secrets, changed=changed != text)
    return ExitCode.DONE


def _added(text: str, add: Sequence[str], comment: str, secrets: SecretsFile) -> str:
    if comment and len(add) != 1:
        raise ConfigError("--comment names the owner of a key and requires exactly one --add.")
    if not comment.isprintable():
        raise ConfigError("--comment must be a single line of text.")
    known = {recipient.key for recipient in secrets.recipients}
    for word in add:
        for recipient in _parse_recipients(word, comment):
            if recipient.key not in known:
                text = add_line(text or _HEADER.format(file=secrets.name, expected=EXPECTED), recipient)
                known.add(recipient.key)
    return text


def _parse_recipients(word: str, comment: str) -> list[Recipient]:
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
        if recipient.encryption is Encryption.AGE:
            try:
                age.public_key(recipient)
            except EncryptionError as error:
                raise ConfigError(f"--add: found {error.found}; nothing was changed.", next_step=error.needed) from None
    return [Recipient(recipient.key, " ".join(comment.split()) or recipient.comment) for recipient in listed]


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


def _print_recipients(secrets: SecretsFile, *, changed: bool) -> None:
    data = secrets.path.read_bytes() if secrets.path.exists() else b""
    with as_config_error(secrets):
        found = recipient_differences(data, secrets) if data else ()
    encryption = detect(data)
    rows = [
        (recipient.title, recipient.key.split()[0] if " " in recipient.key else "age", recipient.fingerprint)
        for recipient in secrets.recipients
    ]
    listed = count(len(rows), "key") if rows else "no keys"
    print_lines([f"{secrets.recipients_name}: {listed}", *table([("", *row) for row in rows])])
    state = f"encrypted by {encryption.value}" if encryption else "not encrypted" if data else "missing"
    print_lines([f"{secrets.name} is {state}.", *(f"  {difference}" for difference in found)])
    if found or (changed and encryption in (Encryption.AGE, Encryption.GPG)):
        print_notes(
            [f"Next: {PROGRAM} secrets.rotate --env {secrets.environment}. Until then, the old recipients apply."]
        )
    elif changed and encryption is None:
        print_notes([f"Next: {PROGRAM} secrets.encrypt --env {secrets.environment}"])
