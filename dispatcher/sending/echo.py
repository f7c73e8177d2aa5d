"""Answers that repeat what a request proved itself by: some error pages show the whole request."""

import base64
import binascii
import html
from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from dispatcher.sending.answer import ANSWER_BYTES, Answer

SHORTEST = 8
"""Characters; a shorter value is no secret, or one that a text may have by chance."""
IN_PLACE = b"(not kept: it repeats a header that we sent)"


def secrets_in(headers: Mapping[str, str], names: Iterable[str]) -> Iterator[str]:
    """What may be secret of some headers, of which Authorization is always one: their values, credentials and passwords."""
    for value in filter(None, map(headers.get, {"Authorization", *names})):
        yield value
        scheme, _, credentials = value.partition(" ")
        if credentials:
            yield credentials
        if scheme.lower() == "basic":
            try:
                yield base64.b64decode(credentials, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                continue


def without_echo(answer: Answer, secrets: Iterable[str]) -> Answer:
    """The answer; with words of ours in place of a body that has one of these in what is kept of it, or at the end of that.

    They are looked for as they are, and escaped as in JSON or HTML.
    """
    known = [one for one in secrets if len(one) >= SHORTEST]
    if not known:
        return answer
    seen = answer.body[: ANSWER_BYTES + 2 * max(map(len, known))].decode(errors="replace")
    texts = seen, seen.replace(r"\/", "/"), html.unescape(seen)
    if any(place < ANSWER_BYTES for one in known for text in texts if (place := text.find(one)) >= 0):
        return replace(answer, body=IN_PLACE)
    return answer
