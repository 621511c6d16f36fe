"""Reading the public key by which images must be signed. It contacts nothing."""

from __future__ import annotations

from pathlib import Path

_EXPECTED = "the public half of a pair by `cosign generate-key-pair` or `skopeo generate-sigstore-key`"


def read_signing_key(path: Path) -> str:
    """The key as PEM text. Raises ValueError. Only ECDSA keys: both programs make these alone."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        data = path.read_bytes()
        if isinstance(load_pem_public_key(data), EllipticCurvePublicKey):
            return data.decode("ascii")
    except OSError as error:
        raise ValueError(f"{error.strerror or type(error).__name__}; {_EXPECTED}") from error
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise ValueError(f"{_EXPECTED}, in PEM form")
