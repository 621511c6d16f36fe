"""Whether a known_hosts file has an entry for a host. It verifies no key: the connection does that.

Source: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: patterns, `[host]:port`, hashed names `|1|salt|hash`.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path


def is_known(address: str, port: int, files: Iterable[str]) -> bool:
    """Whether any of the files names the address, on that port where it is not 22."""
    name = address.casefold() if port == 22 else f"[{address.casefold()}]:{port}"
    return any(_names(line, name) for file in files for line in _lines(file))


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _names(line: str, name: str) -> bool:
    words = line.split()
    if words and words[0] == "@cert-authority":
        words = words[1:]
    if len(words) < 3 or words[0].startswith(("#", "@")):
        return False
    patterns = words[0].split(",")
    if any(pattern.startswith("!") and fnmatch.fnmatchcase(name, pattern[1:].casefold()) for pattern in patterns):
        return False
    return any(_fits(pattern, name) for pattern in patterns)


def _fits(pattern: str, name: str) -> bool:
    if not pattern.startswith("|1|"):
        escaped = pattern.casefold().replace("[", "[[]")
        return fnmatch.fnmatchcase(name, escaped)
    salt, _, wanted = pattern.removeprefix("|1|").partition("|")
    try:
        digest = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
        return hmac.compare_digest(digest, base64.b64decode(wanted))
    except (ValueError, binascii.Error):
        return False
