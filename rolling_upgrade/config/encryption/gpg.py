"""Decrypt and encrypt OpenPGP files with gpg and its agent. Text goes through pipes; the agent asks for passphrases."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence

from rolling_upgrade.config.encryption import EncryptionError

#: Long enough to type a passphrase when the agent prompts.
_SECONDS = 300.0


def decrypt(data: bytes) -> bytes:
    """Return the plaintext. gpg's agent may prompt. Raises EncryptionError.

    gpg exits with 0 for a truncated file: only the status lines DECRYPTION_OKAY and GOODMDC prove success.
    Source: GnuPG's doc/DETAILS, "Format of the --status-fd output".
    """
    done = _gpg("--decrypt", data=data)
    status = set(re.findall(r"^\[GNUPG:\] (\w+)", done.stderr.decode("utf-8", "replace"), re.MULTILINE))
    if done.returncode == 0 and "DECRYPTION_OKAY" in status and "GOODMDC" in status:
        return done.stdout
    if "NO_SECKEY" in status:
        found = f"a gpg file encrypted for {', '.join(_titles(done.stderr))}, whose secret key is not on this machine"
        raise EncryptionError(found, "the secret key of one recipient in gpg's keyring (GNUPGHOME)")
    if "DECRYPTION_FAILED" in status:
        raise EncryptionError(
            f"a gpg file that gpg could not decrypt ({_last_message(done.stderr)})", "its key and passphrase"
        )
    raise EncryptionError("a damaged or truncated gpg file", "an intact copy, for example from Git")


def encrypt(text: bytes, keys: Sequence[str], *, armored: bool) -> bytes:
    """Encrypt the text for the keys, each a fingerprint or a `KEYID!`. Raises EncryptionError when gpg lacks a key.

    The recipients file decides who is trusted, so gpg's web of trust is not consulted.
    """
    options = ["--encrypt", "--trust-model", "always", "--no-encrypt-to", *(["--armor"] if armored else [])]
    for key in keys:
        options += ["--recipient", key]
    done = _gpg(*options, data=text)
    if done.returncode or not done.stdout:
        raise EncryptionError(
            f"a text that gpg cannot encrypt ({_last_message(done.stderr)})",
            "the public key of every recipient in gpg's keyring: gpg --import FILE, or gpg --recv-keys FINGERPRINT",
        )
    return done.stdout


def recipients(data: bytes) -> tuple[str, ...]:
    """Return the ids of the keys that a file is encrypted for, without hidden ones. Raises EncryptionError."""
    return tuple(key for key in _key_ids(_gpg("--list-only", "--decrypt", data=data).stderr) if key.strip("0"))


def encryption_keys(fingerprint: str) -> tuple[str, ...]:
    """Return the ids of a key and its subkeys in gpg's keyring; empty when the keyring lacks the key."""
    listed = _gpg("--with-colons", "--list-keys", "--", fingerprint).stdout.decode("utf-8", "replace")
    rows = [line.split(":") for line in listed.splitlines()]
    return tuple(row[4] for row in rows if row[0] in ("pub", "sub") and len(row) > 4)


def _gpg(*options: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["gpg", "--batch", "--no-tty", "--status-fd", "2", *options]
    environment = {**os.environ, "LC_ALL": "C"}
    if "GPG_TTY" not in environment and sys.stdin.isatty():
        # A pinentry that runs in the terminal finds it by this variable.
        environment["GPG_TTY"] = os.ttyname(sys.stdin.fileno())
    try:
        return subprocess.run(command, input=data, capture_output=True, timeout=_SECONDS, env=environment, check=False)
    except FileNotFoundError:
        raise EncryptionError("a gpg file, but gpg is not installed", "gpg (the Debian package gnupg)") from None
    except subprocess.TimeoutExpired:
        raise EncryptionError(
            "a gpg that did not finish within five minutes", "a gpg agent that can prompt for the passphrase"
        ) from None


def _key_ids(stderr: bytes) -> list[str]:
    """Return the ids of the keys that a file is encrypted for; the id of a hidden key is zero."""
    key_ids = re.findall(r"^\[GNUPG:\] ENC_TO ([0-9A-F]{16}) ", stderr.decode("utf-8", "replace"), re.MULTILINE)
    return list(dict.fromkeys(key_ids))


def _titles(stderr: bytes) -> list[str]:
    keys = [f"the key {key}" if key.strip("0") else "a hidden key" for key in _key_ids(stderr)]
    return keys or ["other keys"]


def _last_message(stderr: bytes) -> str:
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if not line.startswith("[GNUPG:]")]
    return lines[-1].removeprefix("gpg: ").strip() if lines else "no message"
