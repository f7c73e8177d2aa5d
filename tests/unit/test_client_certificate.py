"""What is checked of a client certificate when it is set, and what is told of it."""

import base64
import textwrap
import time
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from dispatcher.errors import InvalidInput
from dispatcher.rules.certificate_check import MAX_CHARACTERS, client_certificate
from dispatcher.rules.client_certificate import ClientCertificate
from tests.client_certificates import CLIENT, SERVER, ClientAuthority, Pair

DAY_MS = 86_400_000


def now_ms() -> int:
    """Certificates are made when a test runs, so this is no constant."""
    return round(time.time() * 1000)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> ClientAuthority:
    """One authority for all tests."""
    return ClientAuthority(tmp_path_factory.mktemp("authority"))


def checked(pair: Pair) -> ClientCertificate:
    """A pair as it is stored."""
    return client_certificate(pair.certificate, pair.key, now_ms())


@pytest.mark.parametrize("rsa_bits", [0, 2048], ids=["EC", "RSA"])
def test_what_is_kept(authority: ClientAuthority, rsa_bits: int) -> None:
    """Certificate, intermediates and key; whom it names and when the first of them ends."""
    pair = authority.issue("acme dispatcher", days=30, rsa_bits=rsa_bits)
    kept = checked(pair)
    assert kept.chain == pair.certificate
    assert kept.key == pair.key
    assert kept.subject == "CN=acme dispatcher"
    assert abs(kept.ends_ms - now_ms() - 30 * DAY_MS) < 60_000
    assert kept == checked(pair)
    assert kept.fingerprint != checked(authority.issue("acme dispatcher")).fingerprint
    assert kept == msgspec.json.decode(msgspec.json.encode(kept), type=ClientCertificate)


def test_both_in_one_file(authority: ClientAuthority) -> None:
    """In any order, and with text between them, as `openssl` writes it."""
    pair = authority.issue()
    for one in (
        f"{pair.key}subject=dispatcher\n{pair.certificate}",
        f"{pair.certificate}\nKey Attributes: none\n{pair.key}",
    ):
        assert client_certificate(one, one, now_ms()) == checked(pair)


def test_nothing_shows_the_key(authority: ClientAuthority) -> None:
    """Its repr names the certificate, and no PEM."""
    kept = checked(authority.issue())
    assert repr(kept) == f"ClientCertificate({kept.fingerprint[:16]})"
    assert "PRIVATE" not in str(kept.__rich_repr__())


def test_refusals(authority: ClientAuthority) -> None:
    """Each says what is wrong, and shows no key."""
    good, other = authority.issue(), authority.issue()
    one_line = good.key.replace("\n", "")
    cases = {
        ("", good.key): "no readable client certificate: it is PEM",
        ("x" * 100, good.key): "no readable client certificate",
        (good.certificate[:200], good.key): "no readable client certificate",
        (good.certificate, ""): "no readable client key: it is PEM",
        (good.certificate, good.certificate): "no readable client key",
        (good.certificate, one_line[:80]): "no readable client key",
        (good.certificate, good.key.replace("M", "N")): "no readable client key",
        (good.certificate, other.key): "does not fit the client certificate, which has another public key",
        (authority.intermediate + good.certificate, good.key): "a chain begins with the certificate itself",
        (good.certificate + "x" * MAX_CHARACTERS, good.key): "at most 65536 characters, intermediates",
        (good.certificate, good.key + "x" * MAX_CHARACTERS): "a client key is at most 65536 characters",
    }
    for pair, says in {
        authority.issue(
            password="open sesame"
        ): "encrypted with a password: `openssl pkey -in FILE` writes it",
        authority.issue(days=-0.5): "of CN=dispatcher has expired: it ended at 20",
        authority.issue(starts=1): "of CN=dispatcher is not valid yet: it starts at 20",
        authority.issue(usages=(SERVER,)): "is not for clients: its extended key usage lacks clientAuth",
    }.items():
        cases[pair.certificate, pair.key] = says
    for (certificate, key), says in cases.items():
        with pytest.raises(InvalidInput) as refused:
            client_certificate(certificate, key, now_ms())
        assert says in str(refused.value)
        assert "\n" not in str(refused.value)
        assert not key.strip() or key.splitlines()[min(1, key.count("\n"))][:40] not in str(refused.value)


def test_certificates_that_break_the_rules(authority: ClientAuthority) -> None:
    """An unknown version, an extension twice, a name that is no text: what the library says of each becomes one line."""
    good = authority.issue()
    [leaf, _] = x509.load_pem_x509_certificates(good.certificate.encode())
    der = leaf.public_bytes(serialization.Encoding.DER)
    version, name = der.index(b"\xa0\x03\x02\x01\x02") + 4, der.rindex(b"dispatcher")
    broken = [
        der[:version] + b"\x09" + der[version + 1 :],
        der.replace(b"\x55\x1d\x25", b"\x55\x1d\x13"),
        der[:name] + b"\xff" + der[name + 1 :],
    ]
    for one in broken:
        lines = textwrap.wrap(base64.b64encode(one).decode(), 64)
        pem = "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
        with pytest.raises(InvalidInput, match="client certificate"):
            client_certificate(pem, good.key, now_ms())


def test_for_clients_and_servers(authority: ClientAuthority) -> None:
    """A certificate without a purpose, or with several, is taken."""
    for usages in ((), (SERVER, CLIENT)):
        assert checked(authority.issue(usages=usages)).subject == "CN=dispatcher"


def test_an_intermediate_that_ends_first(tmp_path: Path) -> None:
    """Servers refuse the chain from then on, so that is its end."""
    kept = checked(ClientAuthority(tmp_path, days=10).issue(days=90))
    assert abs(kept.ends_ms - now_ms() - 10 * DAY_MS) < 60_000


def test_what_is_no_chain(authority: ClientAuthority, tmp_path: Path) -> None:
    """A certificate of somebody else's between or behind, and several keys."""
    good, other = authority.issue(), ClientAuthority(tmp_path).issue()
    with pytest.raises(InvalidInput, match="certificate 3 in the file has not issued the one before it"):
        client_certificate(good.certificate + other.certificate, good.key, now_ms())
    with pytest.raises(InvalidInput, match="there are 2 private keys"):
        client_certificate(good.certificate, good.key + other.key, now_ms())
