"""A certificate authority for benchmarks, whose chains are like Let's Encrypt's: leaf and intermediate are sent."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

LEAVES = {
    "ec": "EC P-256 leaf, P-384 intermediate, RSA-4096 root",
    "rsa": "RSA-2048 leaf, RSA-2048 intermediate, RSA-4096 root",
}
"""The kinds of chains: what Let's Encrypt gives out for a key of that kind."""


@dataclass(frozen=True)
class Chain:
    """Files (PEM) of a chain."""

    authority: Path
    """The root, which clients trust."""
    server: Path
    """The leaf's private key, the leaf and the intermediate: what a server loads."""


def make_chain(folder: Path, leaf: str, name: str) -> Chain:
    """Makes a chain for a DNS name, which may be a wildcard, valid for a day; `leaf` is a key of LEAVES."""
    root_key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    middle_key, leaf_key = _keys(leaf)
    root = _certificate("Root", root_key.public_key(), "Root", root_key, authority=True)
    middle = _certificate("Intermediate", middle_key.public_key(), "Root", root_key, authority=True)
    end = _certificate(name, leaf_key.public_key(), "Intermediate", middle_key, authority=False)
    secret = leaf_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = Chain(folder / f"root-{leaf}.pem", folder / f"server-{leaf}.pem")
    chain.authority.write_bytes(_pem(root))
    chain.server.write_bytes(secret + _pem(end) + _pem(middle))
    return chain


def _keys(leaf: str) -> tuple[Key, Key]:
    """The keys of an intermediate and of its leaf."""
    if leaf == "ec":
        return ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    return tuple(rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))  # type: ignore[return-value]


def _certificate(
    subject: str,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    issuer: str,
    signer: Key,
    *,
    authority: bool,
) -> x509.Certificate:
    """A signed certificate with the extensions that a strict client asks for (RFC 5280 §4.2)."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(_usage(authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    is_p384 = isinstance(signer, ec.EllipticCurvePrivateKey)
    return builder.sign(signer, hashes.SHA384() if is_p384 else hashes.SHA256())


def _usage(authority: bool) -> x509.KeyUsage:
    """An authority signs certificates; a server signs handshakes."""
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
