"""Logging in at an OpenID Connect provider: the authorization code flow with PKCE (OpenID Connect Core 1.0 §3.1)."""

import base64
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from config.settings import Settings
from dispatcher.errors import InvalidInput
from tasks.console.access import safe_path
from tasks.console.cookies import LOG_IN, drop_text, put_text, read_text
from tasks.console.oidc_provider import Provider
from tasks.console.oidc_token import UnknownKey, claims_of

BACK = "/login/oidc/back"
SECONDS = 600
"""How long a person may take at the provider."""
MOST_USED = 10_000
"""Log-ins that are remembered as used."""
MOST_PATH = 2000
"""The longest path (in bytes) that is kept while somebody is at the provider: browsers take cookies of up to 4096 bytes."""
MOST_NAME = 200


@dataclass(frozen=True)
class User:
    """Whom the provider vouches for."""

    subject: str
    name: str
    groups: Sequence[str]


@dataclass(frozen=True)
class Begun:
    """A log-in that has begun.

    The browser alone keeps it, in a cookie that scripts cannot read, so that beginning costs no memory here and may end at
    another process. What the provider sees of it are digests, from which the cookie cannot be found.
    """

    text: str
    """The cookie: when it began, a random part, and the path to go to."""

    @classmethod
    def new(cls, to: str, now: int) -> "Begun":
        """One that begins now."""
        raw = to.encode()
        path = base64.urlsafe_b64encode(raw if len(raw) <= MOST_PATH else b"/").decode()
        return cls(f"{now}.{secrets.token_urlsafe(32)}.{path.rstrip('=')}")

    def part(self, name: str) -> str:
        """Its `state`, `nonce` or `verifier`."""
        digest = sha256(f"{name} {self.text}".encode()).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def is_of(self, state: str, now: int) -> bool:
        """Whether an answer with this state ends it in time."""
        began = self.text.partition(".")[0]
        is_same = secrets.compare_digest(self.part("state").encode(), state.encode())
        return is_same and began.isdecimal() and len(began) < 20 and 0 <= now - int(began) <= SECONDS

    @property
    def to(self) -> str:
        """The path to go to."""
        path = self.text.rpartition(".")[2]
        try:
            return safe_path(base64.urlsafe_b64decode(path + "=" * (-len(path) % 4)).decode())
        except ValueError:
            return "/"


class Oidc:
    """One provider."""

    def __init__(
        self, settings: Settings, provider: Provider, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._provider = provider
        self._clock = clock
        self._client_id = settings.console_oidc_client_id
        self._back = f"{(settings.console_url or '').rstrip('/')}{BACK}"
        self._used: OrderedDict[str, None] = OrderedDict()

    async def begin(self, request: Request, to: str) -> Response:
        """Sends the browser to the provider; afterwards it goes to the path `to`. Raises InvalidInput."""
        document = await self._provider.document()
        begun = Begun.new(to, self._now())
        asked = prepare_grant_uri(
            document["authorization_endpoint"],
            self._client_id,
            "code",
            redirect_uri=self._back,
            scope=self._scope(document),
            state=begun.part("state"),
            nonce=begun.part("nonce"),
            code_challenge=create_s256_code_challenge(begun.part("verifier")),
            code_challenge_method="S256",
        )
        return put_text(RedirectResponse(asked, 303), self._settings, LOG_IN, begun.text, SECONDS)

    async def finish(self, request: Request) -> tuple[User, str]:
        """The user of the provider's answer, and where to go. Raises InvalidInput."""
        begun = self._begun(request)
        form = {
            "grant_type": "authorization_code",
            "code": _code(request.query_params, self._provider.issuer),
            "redirect_uri": self._back,
            "code_verifier": begun.part("verifier"),
        }
        secret = self._settings.console_oidc_client_secret
        text = await self._provider.id_token(
            form, self._client_id, secret.get_secret_value() if secret else ""
        )
        claims = await self._claims(text, begun.part("nonce"))
        return user_of(claims, self._settings.console_oidc_groups_claim), begun.to

    def forget(self, response: Response) -> Response:
        """Has the browser forget the log-in, which is over."""
        return drop_text(response, self._settings, LOG_IN)

    async def close(self) -> None:
        """Closes its connections."""
        await self._provider.close()

    def _now(self) -> int:
        return int(self._clock())

    def _scope(self, document: Mapping[str, Any]) -> str:
        """What is asked for: groups too, where the provider has a scope for them."""
        known, groups = document.get("scopes_supported"), self._settings.console_oidc_groups_claim
        extra = [groups] if isinstance(known, list) and groups in known else []
        return " ".join(dict.fromkeys(["openid", "email", "profile", *extra]))

    def _begun(self, request: Request) -> Begun:
        """The log-in of this browser that the answer ends: from now on it is used."""
        begun = Begun(read_text(request, self._settings, LOG_IN))
        state = request.query_params.get("state", "")
        if not begun.is_of(state, self._now()) or state in self._used:
            raise InvalidInput(
                f"this log-in was used, is older than {SECONDS // 60} minutes, or was not begun in this browser: "
                f"begin again at {self._back.removesuffix(BACK)}/login"
            )
        self._used[state] = None
        if len(self._used) > MOST_USED:
            self._used.popitem(last=False)
        return begun

    async def _claims(self, text: str, nonce: str) -> dict[str, Any]:
        """The claims of a token. Its key may be so new that the provider's keys have to be read again."""
        try:
            return await self._checked(text, nonce, anew=False)
        except UnknownKey:
            return await self._checked(text, nonce, anew=True)

    async def _checked(self, text: str, nonce: str, *, anew: bool) -> dict[str, Any]:
        keys = await self._provider.keys(anew=anew)
        issuer, client_id = self._provider.issuer, self._client_id
        return claims_of(text, keys, issuer=issuer, client_id=client_id, nonce=nonce, now=self._now())


def _code(answer: Mapping[str, str], issuer: str) -> str:
    """The code of the provider's answer. Raises InvalidInput."""
    if answer.get("iss", issuer) != issuer:  # RFC 9207 §2.4
        raise InvalidInput("this answer comes from another identity provider: begin the log-in again")
    if error := answer.get("error"):
        known = error if error.isascii() and error.isidentifier() and len(error) <= 64 else "an error"
        raise InvalidInput(f"the identity provider did not log you in: {known}")
    if not (code := answer.get("code")):
        raise InvalidInput("the identity provider's answer has no code: begin the log-in again")
    return code


def user_of(claims: Mapping[str, Any], groups_claim: str) -> User:
    """The user of checked claims: by the e-mail address if the provider says that it verified it, else by the subject.

    People choose their `preferred_username` themselves at some providers (OpenID Connect Core 1.0 §5.7).
    """
    subject = _word(claims.get("sub"))
    if not subject:
        raise InvalidInput("the identity provider's token names nobody that can be shown")
    email = _word(claims.get("email")) if claims.get("email_verified") in (True, "true") else ""
    groups = claims.get(groups_claim, [])
    listed = groups if isinstance(groups, list) else [groups]
    return User(
        subject,
        email or subject,
        tuple(one for one in listed if _word(one)),
    )


def _word(value: object) -> str:
    """A text that can be shown; empty for anything else."""
    return value if isinstance(value, str) and value.isprintable() and 0 < len(value) <= MOST_NAME else ""


def provider(settings: Settings) -> Oidc | None:
    """The provider that the settings name; None if there is none."""
    if settings.console_oidc_issuer is None:
        return None
    return Oidc(settings, Provider(settings.console_oidc_issuer.get_secret_value(), settings.ca_file))
