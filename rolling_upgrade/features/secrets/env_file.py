"""The env file in the secrets tasks: read, encrypt, verify and replace it, and list its recipients."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rolling_upgrade.config.encryption import Encryption, EncryptionError, age, detect, gpg, is_armored, vault
from rolling_upgrade.config.encryption.recipients import Recipient, is_mark_current, with_mark
from rolling_upgrade.config.files import EnvFile, decoded, parse_env
from rolling_upgrade.config.issues import Issues
from rolling_upgrade.config.secrets_file import SecretsFile
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.engine.local_file import PRIVATE, PUBLIC, read_small, replace
from rolling_upgrade.errors import PROGRAM, ConfigError, ConfigIssue


@contextmanager
def as_config_error(secrets: SecretsFile) -> Iterator[None]:
    """Convert an EncryptionError into a ConfigError, which says that the file is unchanged."""
    try:
        yield
    except EncryptionError as error:
        issue = ConfigIssue(secrets.name, "", error.found, error.needed)
        raise ConfigError(f"{secrets.name} is unchanged.", [issue]) from None


def read_env_file(secrets: SecretsFile) -> bytes:
    """Read the env file. Raises ConfigError."""
    try:
        return read_small(secrets.path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        example = secrets.path.parent / f"{secrets.path.name}.example"
        copy = f"copy {example.name} to {secrets.name} and fill it in"
        next_step = copy if example.exists() else f"write {secrets.name}, with KEY=value lines"
        raise ConfigError(f"Cannot read {secrets.name}: {reason}.", next_step=next_step) from None


def encrypted_bytes(secrets: SecretsFile) -> tuple[bytes, Encryption]:
    """Read the env file and detect its encryption. Raises ConfigError when it is plaintext."""
    data = read_env_file(secrets)
    encryption = detect(data)
    if encryption is None:
        raise ConfigError(
            f"{secrets.name} is not encrypted: any editor opens it.",
            next_step=f"{PROGRAM} secrets.encrypt --env {secrets.environment}",
        )
    return data, encryption


def parse_values(text: bytes, secrets: SecretsFile) -> EnvFile:
    """Parse a plaintext. Raises ConfigError with every invalid line."""
    issues = Issues(secrets.path.parent)
    content = decoded(text, secrets.name, issues)
    env = parse_env(content or "", secrets.name, issues)
    if issues.errors:
        raise ConfigError(f"The text is not a valid env file; {secrets.name} is unchanged.", issues.errors)
    if not env.values:
        raise ConfigError(f"The text contains no setting; {secrets.name} is unchanged.")
    return env


def _listed(secrets: SecretsFile, encryption: Encryption) -> tuple[Recipient, ...]:
    return tuple(recipient for recipient in secrets.recipients if recipient.encryption is encryption)


def recipients_for(secrets: SecretsFile, encryption: Encryption) -> tuple[Recipient, ...]:
    """Return the recipients with a key for this encryption. Raises ConfigError when there is none."""
    listed = _listed(secrets, encryption)
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
        return age.encrypt(text, recipients_for(secrets, encryption), armored=armored)
    if encryption is Encryption.GPG:
        keys = [recipient.key.removeprefix("gpg ") for recipient in recipients_for(secrets, encryption)]
        return gpg.encrypt(text, keys, armored=armored)
    label = vault.label(like) if detect(like) is Encryption.VAULT else ""
    return vault.encrypt(text, secrets.keyring.password(new=new_password), label=label)


def verify(written: bytes, text: bytes, secrets: SecretsFile, *, force: bool) -> None:
    """Verify that a key of this machine decrypts the new file, before it replaces the old one.

    Raises ConfigError when no key decrypts it, unless `force`, and when the plaintext differs.
    """
    try:
        same = secrets.keyring.decrypt(written) == text
    except EncryptionError as error:
        if force:
            print_lines([f"warning: the new file was not verified: {error.found}"], stream=sys.stderr)
            return
        raise ConfigError(
            f"{secrets.name} is unchanged, because no key on this machine decrypts the new file: {error.found}.",
            next_step=f"add your own key with {PROGRAM} secrets.recipients --add, or use --force if another recipient can decrypt it",
        ) from None
    if not same:
        raise ConfigError(f"{secrets.name} is unchanged, because the new file decrypts to a different text.")


def replace_env_file(secrets: SecretsFile, written: bytes, *, before: bytes) -> None:
    """Replace the env file atomically. Raises ConfigError when it changed since it was read."""
    if read_env_file(secrets) != before:
        raise ConfigError(
            f"Another process changed {secrets.name} while this task ran; {secrets.name} is unchanged by this task.",
            next_step="run the same command again",
        )
    replace(secrets.path, written, PRIVATE)


def describe_recipients(data: bytes, secrets: SecretsFile) -> str:
    """Describe the recipients of a file. Raises EncryptionError for a damaged file."""
    encryption = detect(data)
    if encryption is Encryption.AGE:
        return age.describe_recipients(age.stanzas(data), secrets.recipients)
    if encryption is Encryption.GPG:
        titles = {key: recipient.title for recipient in _listed(secrets, encryption) for key in _gpg_keys(recipient)}
        named = [titles.get(key, f"an unlisted gpg key {key}") for key in gpg.recipients(data)]
        return ", ".join(named) or "anyone with its passphrase"
    return "anyone with its password"


def recipient_differences(data: bytes, secrets: SecretsFile) -> tuple[str, ...]:
    """Describe the differences between a file's recipients and the recipients file. Raises EncryptionError."""
    encryption = detect(data)
    if encryption is Encryption.AGE:
        listed = _listed(secrets, encryption)
        found = age.differences(age.stanzas(data), listed)
        if not found and not is_mark_current(recipients_text(secrets), listed):
            return ("the list changed after the file was encrypted: its mark names other age keys",)
        return found
    return tuple(_gpg_differences(data, secrets)) if encryption is Encryption.GPG else ()


def update_mark(secrets: SecretsFile) -> None:
    """Record the age recipients in the recipients file, because an age file does not name its recipients."""
    text = recipients_text(secrets)
    marked = with_mark(text, _listed(secrets, Encryption.AGE))
    if marked != text:
        replace(secrets.recipients_path, marked.encode(), PUBLIC)


def recipients_text(secrets: SecretsFile) -> str:
    """Return the recipients file, or an empty text; its lines keep their line endings."""
    return secrets.recipients_path.read_bytes().decode() if secrets.recipients_path.exists() else ""


def _gpg_differences(data: bytes, secrets: SecretsFile) -> Iterator[str]:
    """Compare the keys in gpg's keyring: a file names subkeys, the list names primary keys."""
    keys = set(gpg.recipients(data))
    known: set[str] = set()
    unknown = False
    for recipient in _listed(secrets, Encryption.GPG):
        own = _gpg_keys(recipient)
        known |= set(own)
        unknown = unknown or not own
        if own and not keys & set(own):
            yield f"{recipient.title} is listed, but the file is not encrypted for that key"
    if not unknown:
        yield from (f"the file is encrypted for the gpg key {key}, which is not listed" for key in sorted(keys - known))


def _gpg_keys(recipient: Recipient) -> tuple[str, ...]:
    return gpg.encryption_keys(recipient.key.removeprefix("gpg "))


def encrypt_for_same_recipients(data: bytes, text: bytes, encryption: Encryption, secrets: SecretsFile) -> bytes:
    """Encrypt the text for the current recipients of the file. Raises EncryptionError."""
    if encryption is not Encryption.GPG:
        return encrypt_like(text, encryption, secrets, like=data)
    keys = [f"{key}!" for key in gpg.recipients(data)]
    if not keys:
        raise EncryptionError(
            "a gpg file that names no recipient: it has a passphrase or hides its recipients",
            f"listed recipients: add them with {PROGRAM} secrets.recipients --add, then run {PROGRAM} secrets.rotate",
        )
    return gpg.encrypt(text, keys, armored=is_armored(data))


def print_notes(lines: list[str]) -> None:
    """Print to standard error, because standard output may carry the secrets."""
    print_lines(lines, stream=sys.stderr)
