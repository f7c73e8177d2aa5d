"""Callbacks that are not POSTed because of what they are, whatever their receiver does."""

from dispatcher.rules.callback import Claimed
from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.unrendered import MARK, why_unrendered

HTTP = "its callback URL is http://, and DISPATCHER_ALLOW_HTTP is off"


def not_sent(callback: Claimed, now_ms: int, *, allow_http: bool) -> Attempt | None:
    """The attempt that ends such a callback, with the reason in place of an answer; None: it can be sent."""
    url = callback.url
    if not allow_http and not url.startswith("https:") and url[:5].lower() == "http:":
        return _refused(now_ms, "blocked_address", HTTP)  # accepted while it was on, or for one of several
    if callback.body and callback.body.startswith(MARK):
        return _refused(now_ms, "not_rendered", why_unrendered(callback.body))
    return None


def _refused(now_ms: int, error: str, why: str) -> Attempt:
    return Attempt(now_ms, 0, error=error, answer=why.encode(), detail=why)
