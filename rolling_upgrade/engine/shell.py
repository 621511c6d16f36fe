"""Scripts for a POSIX shell: quoting, joining, and masking secrets."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from rolling_upgrade.engine.masking import MASK
from rolling_upgrade.engine.untrusted import ANSWER_BYTES

#: The environment of every script, independent of the login shell.
ENVIRONMENT = """\
set -eu
umask 077
cd || exit
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"
export PATH LC_ALL XDG_RUNTIME_DIR
"""

#: A command that prints the seconds since the boot. For durations: `date` jumps when somebody sets the host's clock.
UPTIME = "cut -d . -f 1 /proc/uptime"
#: The same with two decimals.
EXACT_UPTIME = "cut -d ' ' -f 1 /proc/uptime"

#: The command lines that run a script from standard input: as the user who has logged in; as root, through sudo.
AS_LOGIN_USER, BY_SUDO = "exec sh -s", "exec sudo -n sh -s"


def quote(value: str | int | float) -> str:
    """Quote a value as one shell word. Raises ValueError for a NUL byte."""
    text = str(value)
    if "\0" in text:
        raise ValueError("shell text cannot contain a NUL byte")
    return shlex.quote(text)


def shell_join(*values: str | int | float) -> str:
    """A command line of quoted words."""
    return " ".join(quote(value) for value in values)


def shown_command(argv: Sequence[str]) -> str:
    """Return a command in one line, as its author would type it."""
    shown = argv[2] if tuple(argv[:2]) == ("sh", "-c") and len(argv) == 3 else shell_join(*argv)
    return " ".join(shown.split())


@dataclass(frozen=True)
class Script:
    """Shell text that runs as one unit under `sh`, its secret strings, and the size limit of its answer."""

    text: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    answer_bytes: int = ANSWER_BYTES

    def answering(self, most_bytes: int) -> Script:
        """The same script with another size limit for both outputs together, in bytes."""
        return replace(self, answer_bytes=most_bytes)

    @property
    def masked(self) -> str:
        """The text with masked secrets."""
        shown = self.text
        for secret in self.secrets:
            shown = shown.replace(secret, MASK)
        return shown


def script(*parts: str | Script) -> Script:
    """Join lines and scripts, in order, into one script that stops at its first failing command."""
    texts = ["set -eu"]
    secrets: list[str] = []
    for part in parts:
        if isinstance(part, Script):
            texts.append(part.text.removeprefix("set -eu\n"))
            secrets.extend(part.secrets)
        elif part:
            texts.append(part)
    return Script("\n".join(texts) + "\n", tuple(dict.fromkeys(secrets)))


def direct(*parts: str | Script) -> Script:
    """A script that runs within its connection, because it only reads or must not wait for a step."""
    texts = [part.text if isinstance(part, Script) else part for part in parts]
    secrets = tuple(secret for part in parts if isinstance(part, Script) for secret in part.secrets)
    return Script(ENVIRONMENT + "\n".join(texts), secrets)


def write_file(path: str, content: str, *, mode: str = "0600", secret: bool = False) -> Script:
    """Replace a file atomically.

    The script contains the content as base64, so the shell cannot interpret any of it.
    """
    encoded = base64.b64encode(content.encode(errors="surrogateescape")).decode()
    target = quote(path)
    temporary = quote(f"{path}.new")
    text = (
        f"(umask 077; printf %s {quote(encoded)} | base64 -d > {temporary})\n"
        f"chmod {quote(mode)} {temporary}\n"
        f"mv -f {temporary} {target}"
    )
    return Script(text, (encoded,) if secret and encoded else ())


def lines(items: Iterable[str]) -> str:
    """Join the non-empty items, a line each."""
    return "\n".join(item for item in items if item)


def sha256(content: bytes) -> str:
    """The SHA-256 of bytes in hexadecimal digits. The late import keeps the memory of the watchdog small."""
    import hashlib

    return hashlib.sha256(content).hexdigest()
