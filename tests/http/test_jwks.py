"""Public keys at /.well-known/jwks.json: asked without an API key, on a real Redis."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from fastapi import HTTPException

from dispatcher import ed25519
from dispatcher.api import jwks
from dispatcher.rules.subscription import SigningKey
from dispatcher.store.sealing import SecretBox
from dispatcher.store.subscriptions import Subscriptions, found
from tests.http.api import AT, Api

PATH = jwks.PATH


@pytest.fixture
def api(redis_url: str) -> Iterator[Api]:
    """The application with acme-zeckta, whose subscription crm is signed with Ed25519."""
    api = Api(redis_url)
    api.run(
        subscriptions(api).add("acme-zeckta", "crm", "https://crm.example/", now_ms=AT, signature="ed25519")
    )
    yield api
    api.close()


def subscriptions(api: Api) -> Subscriptions:
    """Changes them."""
    return Subscriptions(api.parts.workspaces)


def ask(api: Api, query: str, method: str = "GET") -> httpx.Response:
    """The answer to a query, without a key."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(api.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.request(method, PATH + query)

    return api.run(send())


def keys(api: Api, query: str) -> list[dict[str, Any]]:
    """The keys in the answer."""
    answer = ask(api, query)
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["keys"]
    return listed


def signing_keys(api: Api) -> tuple[SigningKey, ...]:
    """Those of crm."""
    return found(api.run(api.parts.workspaces.require("acme-zeckta")), "crm").signing_keys


CRM = "?workspace=acme-zeckta&subscription=crm"


def test_a_subscriptions_keys(api: Api) -> None:
    """The live ones, newest first, as JWKs; no name of a customer, and never the private half."""
    [old] = signing_keys(api)
    api.run(subscriptions(api).rotate_secret("acme-zeckta", "crm", now_ms=api.now, grace_ms=1000))
    answer = ask(api, CRM)
    assert answer.headers["Content-Type"] == "application/jwk-set+json"
    assert answer.json() == {"keys": [ed25519.as_jwk(key.public) for key in reversed(signing_keys(api))]}
    assert [key["kid"] for key in answer.json()["keys"]][1] == ed25519.thumbprint(old.public)
    assert {name for key in answer.json()["keys"] for name in key} == {"kty", "crv", "x", "kid", "use", "alg"}
    assert "acme" not in answer.text


def test_a_key_that_ended_is_not_listed(api: Api) -> None:
    """After its grace time the old one is gone."""
    api.run(subscriptions(api).rotate_secret("acme-zeckta", "crm", now_ms=api.now, grace_ms=1000))
    api.now += 1000
    assert [key["kid"] for key in keys(api, CRM)] == [ed25519.thumbprint(signing_keys(api)[-1].public)]


@pytest.mark.parametrize(
    "query",
    [
        "?workspace=acme-zeckta",
        "?workspace=acme-zeckta&subscription=default",
        "?workspace=acme-zeckta&subscription=cmr",
        "?workspace=nobody",
        "?workspace=rival-zeckta&subscription=crm",
    ],
)
def test_what_is_not_there_looks_like_what_has_no_keys(api: Api, query: str) -> None:
    """So that nobody learns by it whether a customer exists."""
    answer = ask(api, query)
    assert (answer.status_code, answer.json()) == (200, {"keys": []})


@pytest.mark.parametrize(
    "query", ["", "?workspace=", "?workspace=a%20b", "?workspace=*", "?workspace=" + "a" * 65, CRM + "%0A"]
)
def test_a_malformed_question(api: Api, query: str) -> None:
    """The error says how to ask."""
    answer = ask(api, query)
    assert answer.status_code == 400
    assert "?workspace=acme" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


def test_others_may_keep_it_for_a_minute(api: Api) -> None:
    """So does the process: a second question reads nothing, and after a minute it is read again."""
    clock = [100.0]
    api.app.state.kept_keys = jwks.KeptKeys(lambda: clock[0])
    assert ask(api, CRM).headers["Cache-Control"] == "public, max-age=60"
    before = keys(api, CRM)
    api.run(subscriptions(api).update("acme-zeckta", "crm", signature="hmac"))
    clock[0] += 59.9
    assert keys(api, CRM) == before
    clock[0] += 0.1
    assert keys(api, CRM) == []


def test_its_costs_are_bounded(api: Api) -> None:
    """Who asks for one name after another is told to wait; what is kept is answered all the same, and so is the next second."""
    clock = [100.0]
    api.app.state.kept_keys = jwks.KeptKeys(lambda: clock[0])
    assert len(keys(api, CRM)) == 1
    said = [ask(api, f"?workspace=w{number}").status_code for number in range(jwks.READS_A_SECOND + 5)]
    assert said == [200] * (jwks.READS_A_SECOND - 1) + [503] * 6
    assert ask(api, "?workspace=another").headers["Retry-After"] == "1"
    assert len(keys(api, CRM)) == 1
    clock[0] += 1
    assert keys(api, "?workspace=another") == []


def test_guesses_do_not_delay_a_name_with_keys(api: Api) -> None:
    """It is read again after its minute, also in a second in which others have used up theirs, and is not pushed out."""
    clock = [100.0]
    api.app.state.kept_keys = jwks.KeptKeys(lambda: clock[0])
    assert len(keys(api, CRM)) == 1
    for second in range(1, 25):
        clock[0] = 100.0 + second
        said = [ask(api, f"?workspace=w{second}-{n}").status_code for n in range(jwks.READS_A_SECOND + 1)]
        assert said[-1] == 503
    clock[0] = 161.0
    said = [ask(api, f"?workspace=v{n}").status_code for n in range(jwks.READS_A_SECOND + 1)]
    assert said[-1] == 503
    assert len(keys(api, CRM)) == 1
    api.run(subscriptions(api).update("acme-zeckta", "crm", signature="hmac"))
    clock[0] = 222.0
    assert keys(api, CRM) == []
    clock[0] = 283.0
    said = [ask(api, f"?workspace=u{n}").status_code for n in range(jwks.READS_A_SECOND + 1)]
    assert ask(api, CRM).status_code == 503, "it has none any more, and is one of all the others"


def test_many_at_once_are_one_read() -> None:
    """Whoever asks for a name while it is being read gets the same answer, or the same failure; later ones read again."""
    kept, reads = jwks.KeptKeys(lambda: 0.0), list[int]()

    async def read() -> bytes:
        reads.append(1)
        await asyncio.sleep(0)
        if len(reads) > 1:
            raise ValueError("away")
        return b"x"

    async def ask_often() -> list[bytes | BaseException | None]:
        asked = [kept.shared(("w", "crm"), read) for _ in range(100)]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert asyncio.run(ask_often()) == [b"x"] * 100
    assert {str(one) for one in asyncio.run(ask_often())} == {"away"}
    assert len(reads) == 2


def test_only_so_many_are_kept() -> None:
    """The one that was read first is forgotten."""
    kept = jwks.KeptKeys(lambda: 0.0)
    for number in range(jwks.MAX_KEPT + 1):
        kept.keep(("w", str(number)), b"x", has_keys=False)
    assert (kept.get(("w", "0")), kept.get(("w", "1"))) == (None, b"x")


def test_keys_that_cannot_be_unsealed(api: Api) -> None:
    """They are not answered as none: who trusts the list would trust nothing any more."""
    sealed = SecretBox([Fernet.generate_key().decode()]).seal(b"[]")
    api.run(api.client.hset(api.keys.workspace("acme-zeckta"), "signing_keys:crm", sealed))
    assert ask(api, CRM).status_code == 503
    assert keys(api, "?workspace=acme-zeckta") == []


def test_a_damaged_workspace(api: Api) -> None:
    """Its keys are not answered as none either, of no subscription."""
    api.run(api.client.hset(api.keys.workspace("acme-zeckta"), "max_concurrency", "x"))
    for query in (CRM, "?workspace=acme-zeckta"):
        answer = ask(api, query)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")


def test_redis_is_away(redis_url: str) -> None:
    """It is answered 503, as all else."""
    away = Api(redis_url, redis_away=True)
    assert ask(away, CRM).status_code == 503
    away.close()


def test_it_only_answers_get(api: Api) -> None:
    """And takes no body."""
    assert {ask(api, CRM, method).status_code for method in ("POST", "PUT", "DELETE")} == {405}
    assert re.search("json", ask(api, CRM).headers["Content-Type"])


def test_one_that_cannot_be_unsealed_uses_up_no_reads_of_others() -> None:
    """Once it has failed it is no name with keys any more, however often it is asked for."""
    now = 0.0
    kept = jwks.KeptKeys(lambda: now)
    for name in ("broken", "fine"):
        kept.keep(("acme", name), b"{}", has_keys=True)
    now = 61.0

    async def fails() -> bytes:
        raise HTTPException(503)

    async def reads() -> bytes:
        return b"keys"

    async def work() -> None:
        for _ in range(jwks.READS_A_SECOND):
            with pytest.raises(HTTPException):
                await kept.shared(("acme", "broken"), fails)
        assert await kept.shared(("acme", "fine"), reads) == b"keys"

    asyncio.run(work())
