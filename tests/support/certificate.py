"""Test certificates: an authority, and server certificates that it signed or that are self-signed."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Authority:
    """A certificate authority; clients trust the certificate in `file`."""

    file: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, directory: Path) -> Authority:
        """Create an authority with its certificate in the directory."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Test authority")
        certificate = _builder(name, name, key, key, authority=True).sign(key, hashes.SHA256())
        file = directory / "authority.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(file, certificate, key)

    def server(self, directory: Path, *, address: str = "127.0.0.1", trusted: bool = True) -> ssl.SSLContext:
        """Return the TLS context of a server at this address, self-signed without `trusted`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(address)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        issuer, signer = (self.certificate.subject, self.key) if trusted else (subject, key)
        builder = _builder(subject, issuer, key, signer, authority=False).add_extension(names, critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        file = directory / f"server-{address}-{trusted}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
    hours: float = 1.0,
) -> x509.CertificateBuilder:
    """Return an unsigned certificate that strict verifiers accept. Source: RFC 5280, section 4.2.1."""
    now = datetime.now(timezone.utc)
    signer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=hours))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(signer_id, critical=False)
    )


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, which can sign others; `name` is its subject."""

    name: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def root(cls, name: str = "Root") -> Issued:
        """Create a root certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(name, _builder(_name(name), _name(name), key, key, authority=True).sign(key, hashes.SHA256()), key)

    def issue(self, name: str, *, authority: bool = True, expired: bool = False, key: Issued | None = None) -> Issued:
        """Sign a certificate for a domain, or for an authority; `key` reuses the key of another one."""
        own = key.key if key else ec.generate_private_key(ec.SECP256R1())
        hours = -0.1 if expired else 1.0
        builder = _builder(_name(name), self.certificate.subject, own, self.key, authority=authority, hours=hours)
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return Issued(name, builder.sign(self.key, hashes.SHA256()), own)

    @property
    def pem(self) -> str:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def private(self) -> str:
        """The key."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
