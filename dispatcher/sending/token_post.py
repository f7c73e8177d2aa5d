"""A POST with a token that may have to be fetched first."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from dispatcher.rules.authorization import ClientCredentials
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.sending.answer import Answer
from dispatcher.sending.echo import without_echo
from dispatcher.sending.failures import Failure
from dispatcher.sending.tokens import Token, Tokens

UNAUTHORIZED = 401


class Poster(Protocol):
    """What a sender needs from the transport."""

    async def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        workspace: str,
        *,
        deadline: float | None = None,
        certificate: ClientCertificate | None = None,
    ) -> Answer | Failure:
        """Makes one POST for a workspace, until `deadline` of the loop's clock; without it, within a time-out."""


async def post_with_token(
    transport: Poster,
    tokens: Tokens,
    credentials: ClientCredentials,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    workspace: str,
    certificate: ClientCertificate | None = None,
) -> Answer | Failure:
    """Makes one POST with a token, showing a certificate if there is one, and once more with a new one if the receiver answers 401 to one that is not new.

    All of it together stays within the attempt's time-out.
    """
    deadline = asyncio.get_running_loop().time() + tokens.timeout_seconds

    async def post(token: Token) -> Answer | Failure:
        with_token = {**headers, "Authorization": f"Bearer {token.text}"}
        answer = await transport.post(
            url, with_token, body, workspace, deadline=deadline, certificate=certificate
        )
        return without_echo(answer, [token.text]) if isinstance(answer, Answer) else answer

    token = await tokens.get(credentials, deadline, workspace)
    if not isinstance(token, Token):
        return token
    answer = await post(token)
    if not isinstance(answer, Answer) or answer.status != UNAUTHORIZED:
        return answer
    renewed = await tokens.renewed(credentials, token, deadline, workspace)
    if renewed is None:
        return answer
    return await post(renewed) if isinstance(renewed, Token) else renewed
