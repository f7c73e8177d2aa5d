"""Finds out by trying why a callback does not verify, for people who debug a receiver. No I/O."""

from collections.abc import Callable, Mapping, Sequence

from dispatcher.errors import InvalidInput, SignatureInvalid
from dispatcher.model import decode_json, encode_json
from dispatcher.signing import check_secret, verify

_VARIANTS: Sequence[tuple[str, Callable[[bytes], bytes]]] = (
    ("line ends or blanks were added around it", bytes.strip),
    ("line ends were changed", lambda body: body.replace(b"\r\n", b"\n")),
    ("it was read as JSON and written again with blanks", lambda body: encode_json(decode_json(body))),
)


def diagnose(
    headers: Mapping[str, str],
    body: bytes,
    secrets: Sequence[str],
    *,
    others: Mapping[str, str] | None = None,
    now: float | None = None,
) -> str | None:
    """None if one of `secrets` verifies the callback, else the most likely reason.

    `others` maps a description to a secret that should not have been used, such as an expired one or another
    workspace's. It tries those, and typical modifications of the body.
    """
    problem = "there is no secret to verify with"
    malformed = [why for secret in secrets if (why := _malformed(secret))]
    for secret in secrets:
        if _malformed(secret):
            continue
        try:
            verify(headers, body, secret, now=now)
        except SignatureInvalid as error:
            problem = str(error)
        except InvalidInput as error:
            return f"the signature is right, but the body is no JSON: {error}"
        else:
            return None
    if malformed:
        return f"a secret to verify with is malformed: {malformed[0]}"
    if not problem.startswith("no signature matches"):
        return problem  # a header or the clock: no other secret or body would help
    return (
        _wrong_secret(headers, body, others or {}, now)
        or _changed_body(headers, body, secrets, now)
        or problem
    )


def _wrong_secret(
    headers: Mapping[str, str], body: bytes, others: Mapping[str, str], now: float | None
) -> str | None:
    found = next((what for what, secret in others.items() if _verifies(headers, body, secret, now)), None)
    return found and f"wrong secret: it is signed with {found}"


def _changed_body(
    headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float | None
) -> str | None:
    for what, change in _VARIANTS:
        try:
            original = change(body)
        except InvalidInput:
            continue
        if any(_verifies(headers, original, secret, now) for secret in secrets):
            return f"the body was changed on its way: {what}"
    return None


def _malformed(secret: str) -> str | None:
    """Why a secret is none; its text never contains the secret."""
    try:
        check_secret(secret)
    except InvalidInput as error:
        return str(error)
    return None


def _verifies(headers: Mapping[str, str], body: bytes, secret: str, now: float | None) -> bool:
    if _malformed(secret):
        return False
    try:
        verify(headers, body, secret, now=now)
    except SignatureInvalid:
        return False
    except InvalidInput:  # the body is no JSON
        return True
    return True
