"""Join a certificate and its intermediates into the chain that Nginx sends to clients.

Nginx sends exactly the file of `ssl_certificate`: the certificate, then each issuer in order, without the root, which
clients have. `ssl_trusted_certificate` sends nothing. Source: RFC 8446, section 4.4.2; nginx, ssl_certificate.
"""

from __future__ import annotations

import re
import ssl
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----")
_PUBLIC_KEY = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_MOST_CERTIFICATES, _SECONDS = 20, 10


class ChainError(Exception):
    """The files contain no chain for clients; the message says why."""


@dataclass(frozen=True)
class Certificate:
    """One certificate of a file; `ends` is its expiry in Unix seconds."""

    pem: str = field(repr=False)
    subject: str
    issuer: str
    ends: float
    public_key: str = field(repr=False)

    @property
    def is_root(self) -> bool:
        """Whether it names itself as its issuer."""
        return self.subject == self.issuer


@dataclass(frozen=True)
class Chain:
    """The text for Nginx, and the subjects of certificates that are no part of the chain."""

    text: str
    left_out: tuple[str, ...] = ()


def join(certificate: str, intermediates: str, key: Path, now: float) -> Chain:
    """Order the certificates of both texts from the one of the key to its last issuer.

    Their order and duplicates do not matter; a root and unrelated certificates are left out. Raises ChainError.
    """
    found = {item.pem: item for item in map(read, _blocks(certificate, intermediates))}
    public = _run("pkey", "-pubout", "-in", str(key), "-passin", "pass:")
    leaf = next((item for item in found.values() if item.public_key == public.strip()), None)
    if leaf is None:
        raise ChainError(f"the key {key} belongs to none of the certificates")
    chain, left = [leaf], [item for item in found.values() if item is not leaf]
    while not chain[-1].is_root and (issuer := _issuer(chain[-1], left)) is not None:
        chain.append(issuer)
        left.remove(issuer)
    if len(chain) == 1 and not leaf.is_root:
        raise ChainError(f"no intermediate certificate signed {leaf.subject}: its issuer is {leaf.issuer}")
    for item in chain:
        if item.ends <= now:
            raise ChainError(f"the certificate of {item.subject} has expired")
    sent = [leaf, *(item for item in chain[1:] if not item.is_root)]
    return Chain("".join(f"{item.pem}\n" for item in sent), tuple(item.subject for item in left))


def read(pem: str) -> Certificate:
    """Read one certificate. Raises ChainError."""
    text = _run("x509", "-noout", "-nameopt", "RFC2253", "-subject", "-issuer", "-enddate", "-pubkey", text=pem)
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("-"))
    public = _PUBLIC_KEY.search(text)
    try:
        subject, issuer = (fields[name].strip()[:200] for name in ("subject", "issuer"))
        return Certificate(pem, subject, issuer, _unix_seconds(fields["notAfter"]), public[0] if public else "")
    except (KeyError, ValueError) as error:
        raise ChainError("a certificate cannot be read") from error


def _blocks(*texts: str) -> list[str]:
    """Return the certificates of the texts in one form, so that equal ones are equal texts."""
    blocks = [block for text in texts for block in _BLOCK.findall(text.replace("\r\n", "\n"))]
    if len(blocks) > _MOST_CERTIFICATES:
        raise ChainError(f"the files contain more than {_MOST_CERTIFICATES} certificates")
    try:
        return [ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(block)).strip() for block in blocks]
    except ValueError as error:
        raise ChainError("a certificate cannot be read") from error


def _issuer(certificate: Certificate, candidates: Iterable[Certificate]) -> Certificate | None:
    """Return the candidate that signed the certificate; of two with one key, the one that is valid longer."""
    named = [item for item in candidates if item.subject == certificate.issuer and _signed(certificate, item)]
    return max(named, key=lambda item: item.ends, default=None)


def _signed(certificate: Certificate, issuer: Certificate) -> bool:
    """Whether the issuer, an authority, signed the certificate. Source: openssl-verification-options(1)."""
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory) / name for name in ("issuer.pem", "certificate.pem")]
        for path, item in zip(files, (issuer, certificate), strict=True):
            path.write_text(item.pem + "\n", encoding="ascii")
        words = ("verify", "-no_check_time", "-partial_chain", "-trusted", str(files[0]), str(files[1]))
        return _openssl(words).returncode == 0


def _unix_seconds(text: str) -> float:
    """Read a time such as `Nov 30 12:00:00 2036 GMT`."""
    month, day, clock, year, _ = text.split()
    return parsedate_to_datetime(f"{day} {month} {year} {clock} +0000").timestamp()


def _run(*words: str, text: str = "") -> str:
    done = _openssl(words, text)
    if done.returncode:
        what = "the key" if words[0] == "pkey" else "a certificate"
        raise ChainError(f"{what} cannot be read: {' '.join(done.stderr.split())[:200]}")
    return done.stdout


def _openssl(words: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ("openssl", *words), input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise ChainError("openssl is not installed") from None
