"""Encrypt, decrypt and rotate an env file on this workstation."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from rolling_upgrade.config.encrypted_files import SecretsFile, locate_secrets
from rolling_upgrade.config.encryption import Encryption, EncryptionError, NoTerminal, detect, passwords
from rolling_upgrade.config.issues import secret_keys
from rolling_upgrade.config.locate import expanded
from rolling_upgrade.engine.git import is_tracked
from rolling_upgrade.errors import PROGRAM, ConfigError, ExitCode
from rolling_upgrade.features.secrets.files import (
    as_config_error,
    describe_recipients,
    encrypt_like,
    encrypted_bytes,
    parse_values,
    print_notes,
    read_env_file,
    recipient_differences,
    replace_env_file,
    update_mark,
    verify,
)

_NEW_PASSWORD = f"Pass the new password to everybody who deploys, and to CI ({passwords.PASSWORD_FILE})."


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
        new = passwords.read_password(expanded(file), "--new-password-file")
    else:
        environ = {key: value for key, value in os.environ.items() if key != passwords.PASSWORD_FILE}
        new = _asked(environ)
    return replace(secrets, keyring=secrets.keyring.with_password(new))


def _refuse_same(secrets: SecretsFile, data: bytes) -> None:
    """Raise ConfigError when the new password decrypts the old file: both are the same."""
    try:
        secrets.keyring.decrypt(data)
    except EncryptionError:
        return
    raise ConfigError(f"The new password is the old one; {secrets.name} is unchanged.", next_step="choose another")


def _asked(environ: dict[str, str]) -> bytes:
    try:
        return passwords.vault_password(environ, passwords.prompt_hidden, new=True)
    except NoTerminal:
        raise NoTerminal(
            "an ansible-vault file, but no new password for it", "--new-password-file FILE, or a terminal to prompt on"
        ) from None
