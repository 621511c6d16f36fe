"""Files in OpenPGP's form, by gpg and its agent. Text goes in and out by pipes; no passphrase passes here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence

from fabfile.sealing.forms import SealError

#: The agent asks for the passphrase meanwhile: a person needs time to type it.
_SECONDS = 300.0


def decrypt(data: bytes) -> bytes:
    """The plaintext; gpg's agent asks for what it needs. Raises SealError.

    gpg exits with 0 for a file that is cut off: only its words "decryption okay" and "good MDC" count.
    Source: GnuPG's doc/DETAILS, "Format of the --status-fd output".
    """
    done = _gpg("--decrypt", data=data)
    said = _status(done.stderr)
    if done.returncode == 0 and "DECRYPTION_OKAY" in said and "GOODMDC" in said:
        return done.stdout
    if "NO_SECKEY" in said:
        found = f"a gpg file that no key here opens: it is for {', '.join(_titles(done.stderr))}"
        raise SealError(found, "the secret key of one of them in gpg's keyring (GNUPGHOME)")
    if "DECRYPTION_FAILED" in said:
        raise SealError(f"a gpg file that could not be opened ({_last_words(done.stderr)})", "its key and passphrase")
    raise SealError("a gpg file that is damaged or cut off", "the file as it was written, for example from Git")


def encrypt(text: bytes, keys: Sequence[str], *, armored: bool) -> bytes:
    """The text for these keys, each a fingerprint or a `KEYID!`. Raises SealError when gpg has one of them not.

    The list of recipients is what says whose key it is: gpg's own web of trust is not asked.
    """
    options = ["--encrypt", "--trust-model", "always", "--no-encrypt-to", *(["--armor"] if armored else [])]
    for key in keys:
        options += ["--recipient", key]
    done = _gpg(*options, data=text)
    if done.returncode or not done.stdout:
        raise SealError(
            f"a text that gpg does not encrypt ({_last_words(done.stderr)})",
            "the public key of every recipient in gpg's keyring: gpg --import FILE, or gpg --recv-keys FINGERPRINT",
        )
    return done.stdout


def recipients(data: bytes) -> tuple[str, ...]:
    """The ids of the keys that a file is encrypted for; a hidden one counts as none. Raises SealError."""
    said = _gpg("--list-only", "--decrypt", data=data).stderr
    found = re.findall(r"^\[GNUPG:\] ENC_TO ([0-9A-F]{16}) ", said.decode("utf-8", "replace"), re.MULTILINE)
    return tuple(dict.fromkeys(key for key in found if key.strip("0")))


def encryption_keys(fingerprint: str) -> tuple[str, ...]:
    """The ids of a key and its subkeys, as gpg's keyring has them; none where it has not."""
    listed = _gpg("--with-colons", "--list-keys", "--", fingerprint).stdout.decode("utf-8", "replace")
    rows = [line.split(":") for line in listed.splitlines()]
    return tuple(row[4] for row in rows if row[0] in ("pub", "sub") and len(row) > 4)


def _gpg(*options: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["gpg", "--batch", "--no-tty", "--status-fd", "2", *options]
    environment = {**os.environ, "LC_ALL": "C"}
    if "GPG_TTY" not in environment and sys.stdin.isatty():
        # Without it a pinentry that draws on the terminal has none to draw on.
        environment["GPG_TTY"] = os.ttyname(sys.stdin.fileno())
    try:
        return subprocess.run(command, input=data, capture_output=True, timeout=_SECONDS, env=environment, check=False)
    except FileNotFoundError:
        raise SealError("a gpg file, and no program gpg here", "gpg (the Debian package gnupg)") from None
    except subprocess.TimeoutExpired:
        raise SealError("a gpg that did not end within five minutes", "gpg, with its agent able to ask") from None


def _status(stderr: bytes) -> set[str]:
    return set(re.findall(r"^\[GNUPG:\] (\w+)", stderr.decode("utf-8", "replace"), re.MULTILINE))


def _titles(stderr: bytes) -> list[str]:
    """Which keys gpg named, the hidden ones too."""
    found = re.findall(r"^\[GNUPG:\] ENC_TO ([0-9A-F]{16}) ", stderr.decode("utf-8", "replace"), re.MULTILINE)
    return [f"the key {key}" if key.strip("0") else "a hidden key" for key in dict.fromkeys(found)] or ["other keys"]


def _last_words(stderr: bytes) -> str:
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if not line.startswith("[GNUPG:]")]
    return lines[-1].removeprefix("gpg: ").strip() if lines else "it says nothing"
