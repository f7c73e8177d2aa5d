"""Answers that repeat what a request proved itself by: some error pages show the whole request."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from dispatcher.sending.answer import Answer

SHORTEST = 12
"""Characters; a shorter word of a header is no secret, or one that a text may have by chance."""
IN_PLACE = b"(not kept: it repeats a header that we sent)"


def secrets_in(headers: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """The words of some headers, of which Authorization is always one."""
    values = [value for name in {"Authorization", *names} if (value := headers.get(name))]
    return [word for value in values for word in value.split()]


def without_echo(answer: Answer, secrets: Iterable[str]) -> Answer:
    """The answer; with words of ours in place of a body that has one of these in it, also with the slashes escaped as in JSON."""
    body = answer.body.replace(rb"\/", b"/")
    if any(len(one) >= SHORTEST and one.encode() in body for one in secrets):
        return replace(answer, body=IN_PLACE)
    return answer
