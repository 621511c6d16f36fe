"""Reading the public key by which images must be signed. It contacts nothing."""

from __future__ import annotations

from pathlib import Path

from fabfile.config.findings import Findings
from fabfile.config.textfile import decoded, read_bytes

_EXPECTED = "the public half of a pair by `cosign generate-key-pair` or `skopeo generate-sigstore-key`"


def read_signing_key(path: Path, findings: Findings) -> str:
    """The key as PEM text, or empty and a mistake. Only ECDSA keys: both programs make these alone."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = read_bytes(path, findings, remedy=_EXPECTED)
    text = decoded(data, findings.name(path), findings) if data is not None else None
    if text is None:
        return ""
    try:
        known = isinstance(load_pem_public_key(text.encode()), EllipticCurvePublicKey)
    except ValueError:
        known = False
    if not known:
        findings.add(findings.name(path), "", found="no public ECDSA key in PEM form", expected=_EXPECTED)
    return text if known else ""
