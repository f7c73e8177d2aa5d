"""Checks a client certificate and its key, as an operator gives them. No I/O; imported where one is set, for its cryptography."""

import datetime
import re
from hashlib import sha256
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from dispatcher.errors import InvalidInput
from dispatcher.rules.client_certificate import ClientCertificate

MAX_CHARACTERS = 65_536
"""Longest certificate with its intermediates, and longest key, in PEM."""

MAX_SUBJECT = 200
"""How much of the subject is kept to be shown."""

_PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


def client_certificate(chain: str, key: str, now_ms: int) -> ClientCertificate:
    """Checks a certificate with its intermediates, and its key, both PEM; either may hold the other too.

    Raises InvalidInput, which never shows the key, if they cannot be read, do not belong together, or are not valid at
    `now_ms`.
    """
    private = _private_key(key)
    try:
        return _checked(_certificates(chain), private, now_ms)
    except InvalidInput:
        raise
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm):
        raise InvalidInput("the client certificate breaks the rules of X.509, so it cannot be read") from None


def _checked(
    certificates: list[x509.Certificate], private: PrivateKeyTypes, now_ms: int
) -> ClientCertificate:
    leaf = certificates[0]
    _check_fits(leaf, private)
    _check_chain(certificates)
    for one in certificates:
        _check_dates(one, now_ms)
    _check_usage(leaf)
    encoded = "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)
    plain = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    ends = min(one.not_valid_after_utc for one in certificates)
    return ClientCertificate(
        encoded,
        plain,
        sha256(encoded.encode()).hexdigest(),
        _subject(leaf),
        round(ends.timestamp() * 1000),
    )


def _certificates(chain: str) -> list[x509.Certificate]:
    if len(chain) > MAX_CHARACTERS:
        raise InvalidInput(
            f"a client certificate is at most {MAX_CHARACTERS} characters, intermediates included"
        )
    try:
        return x509.load_pem_x509_certificates(chain.encode())
    except ValueError:
        raise InvalidInput(
            "there is no readable client certificate: it is PEM, and begins with -----BEGIN CERTIFICATE-----"
        ) from None


def _private_key(key: str) -> PrivateKeyTypes:
    if len(key) > MAX_CHARACTERS:
        raise InvalidInput(f"a client key is at most {MAX_CHARACTERS} characters")
    found = [one[0] for one in _PRIVATE_KEY.finditer(key)]
    if len(found) > 1:
        raise InvalidInput(f"there are {len(found)} private keys; the client certificate has one")
    try:
        return serialization.load_pem_private_key("".join(found).encode(), password=None)
    except TypeError:
        raise InvalidInput(
            "the client key is encrypted with a password: `openssl pkey -in FILE` writes it without one"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput(
            "there is no readable client key: it is PEM, and begins with -----BEGIN PRIVATE KEY----- or the like"
        ) from None


def _check_fits(leaf: x509.Certificate, key: PrivateKeyTypes) -> None:
    if leaf.public_key() == key.public_key():
        return
    raise InvalidInput(
        "the client key does not fit the client certificate, which has another public key (a chain begins with the "
        "certificate itself, its intermediates follow)"
    )


def _check_chain(certificates: list[x509.Certificate]) -> None:
    """Raises InvalidInput if one is not issued by the next: servers take a chain in this order (RFC 8446 §4.4.2)."""
    for number, (one, issuer) in enumerate(pairwise(certificates), 2):
        try:
            one.verify_directly_issued_by(issuer)
        except (InvalidSignature, TypeError, ValueError):
            raise InvalidInput(
                f"certificate {number} in the file has not issued the one before it: first comes the client certificate, "
                "then what issued it, and so on"
            ) from None


def _check_dates(certificate: x509.Certificate, now_ms: int) -> None:
    now = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    whose = f"the client certificate of {_subject(certificate)}"
    if now >= ends:
        raise InvalidInput(f"{whose} has expired: it ended at {ends:%Y-%m-%dT%H:%M:%SZ}")
    if now < starts:
        raise InvalidInput(f"{whose} is not valid yet: it starts at {starts:%Y-%m-%dT%H:%M:%SZ}")


def _check_usage(leaf: x509.Certificate) -> None:
    """Raises InvalidInput if it says what it is for, and that is no client (RFC 5280 §4.2.1.12): servers refuse it."""
    try:
        usages = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return
    if not usages & {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}:
        raise InvalidInput(
            "this certificate is not for clients: its extended key usage lacks clientAuth, so servers refuse it"
        )


def _subject(certificate: x509.Certificate) -> str:
    """Whom a certificate names, on one line of visible characters."""
    text = certificate.subject.rfc4514_string() or "nobody"
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_SUBJECT]
