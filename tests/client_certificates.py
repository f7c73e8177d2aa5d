"""An authority that gives client certificates out, and the side of a server that asks for them."""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, both PEM."""

    certificate: str
    key: str


class ClientAuthority:
    """Signs certificates by an intermediate, as companies do."""

    def __init__(self, folder: Path, days: float = 900) -> None:
        self._root_key, self._key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = self._sign("Root", "Root", self._root_key.public_key(), self._root_key, authority=True)
        middle = self._sign(
            "Middle", "Root", self._key.public_key(), self._root_key, authority=True, days=days
        )
        self.intermediate = pem_of(middle)
        self.root = folder / "client-root.pem"
        self.root.write_text(pem_of(root))

    def issue(
        self,
        name: str = "dispatcher",
        *,
        days: float = 90,
        starts: float = -1,
        usages: tuple[x509.ObjectIdentifier, ...] = (CLIENT,),
        rsa_bits: int = 0,
        password: str = "",
    ) -> Pair:
        """A certificate for a client, with the intermediate, that starts and ends in so many days from now."""
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = ec.generate_private_key(ec.SECP256R1())
        if rsa_bits:
            key = rsa.generate_private_key(public_exponent=65537, key_size=rsa_bits)
        leaf = self._sign(
            name, "Middle", key.public_key(), self._key, days=days, starts=starts, usages=usages
        )
        how = (
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption()
        )
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
        return Pair(pem_of(leaf) + self.intermediate, secret.decode())

    def asking(self, server: ssl.SSLContext, *, tls13: bool = True) -> ssl.SSLContext:
        """A server's context, which from now on wants a certificate of this authority."""
        server.load_verify_locations(self.root)
        server.verify_mode = ssl.CERT_REQUIRED
        server.maximum_version = ssl.TLSVersion.TLSv1_3 if tls13 else ssl.TLSVersion.TLSv1_2
        return server

    def _sign(
        self,
        name: str,
        issuer: str,
        public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        signer: ec.EllipticCurvePrivateKey,
        *,
        authority: bool = False,
        days: float = 900,
        starts: float = -1,
        usages: tuple[x509.ObjectIdentifier, ...] = (),
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=starts))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return builder.sign(signer, hashes.SHA256())


def pem_of(certificate: x509.Certificate) -> str:
    """A certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
