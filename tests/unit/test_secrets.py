"""How a workspace's secrets are kept."""

import base64

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.rules.subscription import Secret
from dispatcher.signing import key_of, new_secret
from dispatcher.store.sealing import SecretBox, generate_secret

OLD, NEW, OTHER = (base64.urlsafe_b64encode(letter * 32).decode() for letter in (b"o", b"n", b"x"))
RAW = new_secret(b"a" * 24).encode()
SECRETS = (
    Secret(new_secret(b"a" * 24), created_ms=1, expires_ms=2),
    Secret(new_secret(b"b" * 64), created_ms=1),
)


@pytest.mark.parametrize("raw", [b"", b"plain:", RAW])
@pytest.mark.parametrize("keys", [[], [NEW], [NEW, OLD]])
def test_what_is_sealed_can_be_opened(keys: list[str], raw: bytes) -> None:
    """What goes into the box comes out as it was, with and without keys."""
    box = SecretBox(keys)
    assert raw == box.open(box.seal(raw))


def test_with_keys_nothing_is_readable() -> None:
    """With SECRET_KEYS set no secret's text is in what Redis keeps; without, it is."""
    assert RAW in SecretBox().seal(RAW)
    assert RAW not in SecretBox([NEW]).seal(RAW)


def test_keys_can_be_rotated() -> None:
    """With the new key first, what the old key sealed still opens."""
    assert RAW == SecretBox([NEW, OLD]).open(SecretBox([OLD]).seal(RAW))


def test_the_newest_key_seals() -> None:
    """What a box with two keys seals, the new one opens alone and the old one does not."""
    sealed = SecretBox([NEW, OLD]).seal(RAW)
    assert RAW == SecretBox([NEW]).open(sealed)
    with pytest.raises(InvalidInput):
        SecretBox([OLD]).open(sealed)


def test_keys_can_be_introduced() -> None:
    """What was sealed before there were keys opens when there are."""
    assert RAW == SecretBox([NEW]).open(SecretBox().seal(RAW))


def test_another_key_does_not_open() -> None:
    """Where no key fits, the error names the setting."""
    with pytest.raises(
        InvalidInput, match=r"^no key in DISPATCHER_SECRET_KEYS opens the workspace's secrets$"
    ):
        SecretBox([OTHER]).open(SecretBox([NEW]).seal(RAW))


def test_a_changed_seal_does_not_open() -> None:
    """Sealed secrets that were tampered with are refused."""
    sealed = SecretBox([NEW]).seal(RAW)
    with pytest.raises(InvalidInput):
        SecretBox([NEW]).open(sealed[:-4] + b"AAAA")


def test_without_keys_nothing_sealed_opens() -> None:
    """Where the keys are not set any more, the error says so."""
    with pytest.raises(InvalidInput, match=r"encrypted, but DISPATCHER_SECRET_KEYS is not set$"):
        SecretBox().open(SecretBox([NEW]).seal(RAW))


@pytest.mark.parametrize("key", ["", "short", NEW[:-4], "ü" * 44, "*" * 44])
def test_a_malformed_key_is_refused(key: str) -> None:
    """A Fernet key in another form is an error that names the setting and does not show the key."""
    with pytest.raises(InvalidInput, match="DISPATCHER_SECRET_KEYS is no Fernet key") as caught:
        SecretBox([NEW, key])
    assert not key or key not in str(caught.value)


def test_repr_hides_the_text() -> None:
    """A secret that ends up in a log line or a traceback is not readable there."""
    assert "Secret(created_ms=1, expires_ms=2)" == repr(SECRETS[0])
    assert SECRETS[0].text not in f"{SECRETS[0]} {SECRETS} {SecretBox([NEW])!r}"


def test_a_secret_knows_its_key() -> None:
    """The HMAC key is the decoded text."""
    assert b"a" * 24 == SECRETS[0].key


def test_generated_secrets_are_new_and_well_formed() -> None:
    """A generated secret holds 32 bytes and is no other's."""
    first, second = generate_secret(), generate_secret()
    assert [32, 32] == [len(key_of(first)), len(key_of(second))]
    assert first != second
