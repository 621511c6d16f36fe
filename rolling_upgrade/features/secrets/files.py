"""Shared steps of the secrets tasks: read, encrypt, prove that the result decrypts, replace the file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rolling_upgrade.config.encrypted_files import SecretsFile
from rolling_upgrade.config.encryption import Encryption, EncryptionError, age, detect, gpg, is_armored, vault
from rolling_upgrade.config.encryption.recipients import Recipient, is_mark_current, with_mark
from rolling_upgrade.config.files import EnvFile, decoded, parse_env
from rolling_upgrade.config.issues import Issues
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.console.text import count, one_line, table
from rolling_upgrade.engine.local_file import PRIVATE, PUBLIC, read_small, replace
from rolling_upgrade.engine.model import Diagnosis, Level
from rolling_upgrade.errors import PROGRAM, ConfigError, ConfigIssue


@contextmanager
def refusing(secrets: SecretsFile) -> Iterator[None]:
    """Turn an EncryptionError into the ConfigError that ends a task."""
    try:
        yield
    except EncryptionError as error:
        issue = ConfigIssue(secrets.name, "", error.found, error.needed)
        raise ConfigError(f"{secrets.name} is unchanged.", [issue]) from None


def bytes_of(secrets: SecretsFile) -> bytes:
    """Read the env file. Raises ConfigError."""
    try:
        return read_small(secrets.path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        next_step = f"copy {secrets.path.name}.example to {secrets.name} and fill it in"
        raise ConfigError(f"Cannot read {secrets.name}: {reason}.", next_step=next_step) from None


def encrypted_bytes(secrets: SecretsFile) -> tuple[bytes, Encryption]:
    """Read the env file and detect its encryption. Raises ConfigError when it is plaintext."""
    data = bytes_of(secrets)
    encryption = detect(data)
    if encryption is None:
        raise ConfigError(
            f"{secrets.name} is not encrypted: any editor opens it.",
            next_step=f"{PROGRAM} secrets.encrypt --env {secrets.environment}",
        )
    return data, encryption


def values_in(text: bytes, secrets: SecretsFile) -> EnvFile:
    """Parse a plaintext. Raises ConfigError with every invalid line."""
    issues = Issues(secrets.path.parent)
    content = decoded(text, secrets.name, issues)
    env = parse_env(content or "", secrets.name, issues)
    if issues.errors:
        raise ConfigError(f"The text is not a valid env file; {secrets.name} is unchanged.", issues.errors)
    if not env.values:
        raise ConfigError(f"The text contains no setting; {secrets.name} is unchanged.")
    return env


def usable(secrets: SecretsFile, encryption: Encryption) -> tuple[Recipient, ...]:
    """Return the recipients with a key for this encryption. Raises ConfigError when there is none."""
    listed = tuple(one for one in secrets.recipients if one.encryption is encryption)
    if not listed:
        example = "'gpg FINGERPRINT'" if encryption is Encryption.GPG else "~/.ssh/id_ed25519.pub"
        kind = "gpg FINGERPRINT" if encryption is Encryption.GPG else "ssh-ed25519, ssh-rsa or age1"
        raise ConfigError(
            f"{secrets.recipients_name} lists no key for {encryption.value} ({kind}); {secrets.name} is unchanged.",
            next_step=f"{PROGRAM} secrets.recipients --env {secrets.environment} --add {example}, "
            "for you, everybody else who deploys, and CI",
        )
    return listed


def encrypt_like(
    text: bytes, encryption: Encryption, secrets: SecretsFile, *, like: bytes = b"", new_password: bool = False
) -> bytes:
    """Encrypt the text for the listed recipients, with the armor and label of `like`. Raises EncryptionError."""
    armored = not like or detect(like) is not encryption or is_armored(like)
    if encryption is Encryption.AGE:
        return age.encrypt(text, usable(secrets, encryption), armored=armored)
    if encryption is Encryption.GPG:
        keys = [one.key.removeprefix("gpg ") for one in usable(secrets, encryption)]
        return gpg.encrypt(text, keys, armored=armored)
    label = vault.label(like) if detect(like) is Encryption.VAULT else ""
    return vault.encrypt(text, secrets.keyring.password(new=new_password), label=label)


def prove(written: bytes, text: bytes, secrets: SecretsFile, *, force: bool) -> None:
    """Prove that a key of this machine decrypts the new file, before it replaces the old one.

    Raises ConfigError when no key decrypts it, unless forced, and when the plaintext differs.
    """
    try:
        same = secrets.keyring.decrypt(written) == text
    except EncryptionError as error:
        if force:
            print_lines([f"warning: the new file was not verified: {error.found}"], sys.stderr)
            return
        raise ConfigError(
            f"{secrets.name} is unchanged, because no key on this machine decrypts the new file: {error.found}.",
            next_step=f"add your own key with {PROGRAM} secrets.recipients --add, or use --force if another recipient can decrypt it",
        ) from None
    if not same:
        raise ConfigError(f"{secrets.name} is unchanged, because the new file decrypts to a different text.")


def put(secrets: SecretsFile, written: bytes, *, before: bytes) -> None:
    """Replace the env file atomically. Raises ConfigError when it changed since it was read."""
    if bytes_of(secrets) != before:
        raise ConfigError(
            f"Another process changed {secrets.name} while this task ran; {secrets.name} is unchanged by this task.",
            next_step="run the same command again",
        )
    replace(secrets.path, written, PRIVATE)


def describe(data: bytes, secrets: SecretsFile) -> str:
    """Describe the recipients of a file for people. Raises EncryptionError for a damaged file."""
    encryption = detect(data)
    if encryption is Encryption.AGE:
        return age.describe_recipients(age.stanzas(data), secrets.recipients)
    if encryption is Encryption.GPG:
        return ", ".join(_gpg_titles(gpg.recipients(data), secrets.recipients)) or "anyone with its passphrase"
    return "anyone with its password"


def differences(data: bytes, secrets: SecretsFile) -> tuple[str, ...]:
    """Describe the differences between a file's recipients and the recipients file. Raises EncryptionError."""
    encryption = detect(data)
    if encryption is Encryption.AGE:
        listed = [one for one in secrets.recipients if one.encryption is encryption]
        found = age.differences(age.stanzas(data), listed)
        if not found and not is_mark_current(_list(secrets), listed):
            return ("the list changed after the file was encrypted: its mark names other age keys",)
        return found
    return tuple(_gpg_differences(data, secrets)) if encryption is Encryption.GPG else ()


def remember(secrets: SecretsFile) -> None:
    """Mark the recipients file with the current recipients, because the file does not show age keys."""
    text = _list(secrets)
    noted = with_mark(text, [one for one in secrets.recipients if one.encryption is Encryption.AGE])
    if noted != text:
        replace(secrets.recipients_path, noted.encode(), PUBLIC)


def _list(secrets: SecretsFile) -> str:
    return secrets.recipients_path.read_bytes().decode() if secrets.recipients_path.exists() else ""


def _gpg_titles(keys: tuple[str, ...], listed: tuple[Recipient, ...]) -> Iterator[str]:
    names = {key: one.title for one in listed if one.encryption is Encryption.GPG for key in _keys_of(one)}
    for key in keys:
        yield names.get(key, f"an unlisted gpg key {key}")


def _gpg_differences(data: bytes, secrets: SecretsFile) -> Iterator[str]:
    """Compare the keys in gpg's keyring: a file names subkeys, the list names primary keys."""
    keys = set(gpg.recipients(data))
    known: set[str] = set()
    unknown = False
    for one in (one for one in secrets.recipients if one.encryption is Encryption.GPG):
        own = _keys_of(one)
        known |= set(own)
        unknown = unknown or not own
        if own and not keys & set(own):
            yield f"{one.title} is listed, but the file is not encrypted for that key"
    if not unknown:
        yield from (f"the file is encrypted for the gpg key {key}, which is not listed" for key in sorted(keys - known))


def _keys_of(one: Recipient) -> tuple[str, ...]:
    return gpg.encryption_keys(one.key.removeprefix("gpg "))


def same_recipients(data: bytes, text: bytes, encryption: Encryption, secrets: SecretsFile) -> bytes:
    """Encrypt the text for the current recipients of the file. Raises EncryptionError."""
    if encryption is not Encryption.GPG:
        return encrypt_like(text, encryption, secrets, like=data)
    keys = [f"{key}!" for key in gpg.recipients(data)]
    if not keys:
        raise EncryptionError(
            "a gpg file that names no recipient: it has a passphrase or hides its recipients", _ROTATE
        )
    return gpg.encrypt(text, keys, armored=is_armored(data))


_ROTATE = f"listed recipients: add them with {PROGRAM} secrets.recipients --add, then run {PROGRAM} secrets.rotate"


def say(lines: list[str]) -> None:
    """Print to standard error, because standard output may carry the secrets."""
    print_lines(lines, sys.stderr)


def shown_path(path: Path) -> str:
    """Abbreviate the home directory in a path to ~."""
    home = str(Path.home())
    return f"~{str(path).removeprefix(home)}" if str(path).startswith(f"{home}/") else str(path)


def recipient_lines(file: str, rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Format the recipients of a file: owner, key type, fingerprint."""
    if not rows:
        return [f"{file}: no keys"]
    return [f"{file}: {count(len(rows), 'key')}", *table([("", *row) for row in rows])]


def finding_lines(rows: Sequence[Diagnosis], environments: str) -> list[str]:
    """Format the findings by file, each with its remedy, and a summary at the end."""
    lines: list[str] = []
    for file in dict.fromkeys(row.host for row in rows):
        lines.append(file)
        for row in (row for row in rows if row.host == file):
            lines.append(f"  {'repaired' if row.level is Level.OK else 'FOUND':<8} {one_line(row.what)}")
            lines += [f"           {one_line(row.remedy)}"] if row.remedy else []
    found = sum(row.level is not Level.OK for row in rows)
    return [*lines, f"{environments}: {count(found, 'finding') if found else 'no exposed secrets'}"]
