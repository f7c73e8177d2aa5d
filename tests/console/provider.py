"""A small OpenID provider on a socket: it checks what a client sends, and answers wrongly where a test wants it to."""

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote_plus, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT, SECRET = "dispatcher console", "s3cret:of/the client"
JANE = {"sub": "u-1", "email": "jane@example.com", "email_verified": True, "groups": ["staff", "on-call"]}

Tampering = Callable[[dict[str, Any]], None]


def b64(raw: bytes) -> str:
    """base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Key:
    """A key that signs tokens."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._private = rsa.generate_private_key(65537, 2048)

    @property
    def public(self) -> dict[str, str]:
        """As JWKS has it."""
        numbers = self._private.public_key().public_numbers()
        exponent, modulus = (b64(one.to_bytes((one.bit_length() + 7) // 8)) for one in (numbers.e, numbers.n))
        return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "e": exponent, "n": modulus}

    def token(self, claims: dict[str, Any], **header: Any) -> str:
        """A signed token."""
        head = {"alg": "RS256", "typ": "JWT", "kid": self.kid} | header
        signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
        signature = self._private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{b64(signature)}"


class OpenIdProvider:
    """One provider, whose only user may be anybody."""

    def __init__(self, host: str = "localhost") -> None:
        self.key = Key("first")
        self.published = [self.key]
        self.user: dict[str, Any] = dict(JANE)
        self.claims: dict[str, Any] = {}
        """In place of what the next tokens would claim; None leaves a claim out."""
        self.token: Callable[[dict[str, Any]], str] | None = None
        """Makes the next tokens from their claims."""
        self.document: dict[str, Any] = {}
        """In place of what the discovery document would say."""
        self.keys: Any = None
        """In place of its JWKS document."""
        self.secret: str | None = SECRET
        self.asked: Counter[str] = Counter()
        self.problems: list[str] = []
        """What clients did wrong."""
        self._codes: dict[str, dict[str, str]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.issuer = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self) -> None:
        """Behaves again, towards JANE."""
        self.user, self.claims, self.token, self.document = dict(JANE), {}, None, {}
        self.key = self.published[0]

    def code_for(self, asked: dict[str, str]) -> str:
        """A code for an authorization request, whose user has logged in."""
        code = f"code-{len(self._codes)}-{time.monotonic_ns()}"
        self._codes[code] = asked
        return code

    def back(self, asked: dict[str, str]) -> str:
        """Where the browser goes once the user has logged in."""
        answer = {"code": self.code_for(asked), "state": asked["state"], "iss": self.issuer}
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?realm=staff",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "scopes_supported": ["openid", "email", "groups"],
        } | self.document

    def _check_authorization(self, asked: dict[str, str]) -> None:
        wanted = {
            "client_id": CLIENT,
            "response_type": "code",
            "code_challenge_method": "S256",
            "realm": "staff",
        }
        for name, value in wanted.items():
            if asked.get(name) != value:
                self.problems.append(f"authorize: {name}={asked.get(name)}")
        if missing := {"state", "nonce", "code_challenge", "redirect_uri"} - set(asked):
            self.problems.append(f"authorize: no {missing}")
        if not {"openid", "email", "groups"} <= set(asked.get("scope", "").split()):
            self.problems.append(f"authorize: scope={asked.get('scope')}")

    def _token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        asked = self._codes.pop(form.get("code", ""), None)
        proof = base64.b64encode(f"{quote_plus(CLIENT)}:{quote_plus(self.secret or '')}".encode()).decode()
        is_client = authorization == f"Basic {proof}" if self.secret else form.get("client_id") == CLIENT
        if not is_client:
            return 401, {"error": "invalid_client", "error_description": f"not {self.secret}"}
        challenge = b64(sha256(form.get("code_verifier", "").encode()).digest())
        if (
            asked is None
            or challenge != asked["code_challenge"]
            or form["redirect_uri"] != asked["redirect_uri"]
        ):
            return 400, {"error": "invalid_grant"}
        return 200, {
            "token_type": "Bearer",
            "access_token": "unused",
            "id_token": self._id_token(asked["nonce"]),
        }

    def _id_token(self, nonce: str) -> str:
        now = int(time.time())
        times = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": nonce}
        claims = times | self.user | self.claims
        kept = {name: value for name, value in claims.items() if value is not None}
        return self.token(kept) if self.token else self.key.token(kept)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                provider.asked[url.path] += 1
                match url.path:
                    case "/.well-known/openid-configuration":
                        self._say(200, provider._discovery())
                    case "/keys":
                        self._say(200, provider.keys or {"keys": [key.public for key in provider.published]})
                    case "/authorize":
                        asked = dict(parse_qsl(url.query))
                        provider._check_authorization(asked)
                        link = provider.back(asked).replace("&", "&amp;")
                        self._say(
                            200, f'<!doctype html><title>Provider</title><a href="{link}">I am jane</a>'
                        )
                    case _:
                        self._say(204, "")

            def do_POST(self) -> None:
                provider.asked[self.path] += 1
                raw = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: values[0] for name, values in parse_qs(raw).items()}
                self._say(*provider._token(form, self.headers.get("Authorization", "")))

            def _say(self, status: int, what: Any) -> None:
                body = what if isinstance(what, str) else json.dumps(what)
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if isinstance(what, str) else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

        return Handler


@contextmanager
def running_provider() -> Iterator[OpenIdProvider]:
    """A provider for as long as the block."""
    found = OpenIdProvider()
    try:
        yield found
    finally:
        found.close()
