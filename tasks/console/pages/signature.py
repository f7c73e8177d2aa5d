"""Why a customer's signature does not verify."""

from starlette.responses import Response

from dispatcher.errors import InvalidInput
from dispatcher.rules.signature_diagnosis import diagnose
from dispatcher.rules.subscription import DEFAULT
from dispatcher.store.subscriptions import found as of_name
from tasks.console.access import Role
from tasks.console.asking import Ask
from tasks.console.site import action, page

NAMES = ("webhook-id", "webhook-timestamp", "webhook-signature")
MOST_HEADERS = 100


@page("/signature", customers=True)
async def form(ask: Ask) -> Response:
    """The form."""
    return ask.page("signature.html", "Check a signature", given=ask.query, said=None, is_right=False)


@action("/signature", role=Role.VIEWER, customers=True, has_long_form=True)
async def check(ask: Ask) -> Response:
    """Tries the headers and the body with the given secret, or with those of a subscription. Keeps nothing."""
    store = await ask.store()
    headers = headers_of(ask.form.get("headers", ""))
    body = ask.form.get("body", "")
    secret, workspace = (
        ask.form.get("secret", "").strip(),
        ask.workspace(ask.form.get("workspace", "").strip()),
    )
    if not (secret or workspace):
        raise InvalidInput("give a workspace, whose secrets are tried, or a secret")
    now_ms = await store.installation.now_ms()
    secrets, others = ([secret] if secret else []), dict[str, str]()
    if workspace:
        known = await store.workspaces.require(workspace)
        for name in [DEFAULT, *known.subscriptions]:
            one = of_name(known, name)
            wanted = ask.form.get("subscription", "").strip() or DEFAULT
            live = [one.text for one in one.live_secrets(now_ms)]
            if name == wanted and not secret:
                secrets += live
            else:
                others |= {f"a secret of subscription {name} of {workspace}": text for text in live}
            ended = [s.text for s in one.secrets if s.text not in live]
            others |= {f"a secret of subscription {name} that has ended": text for text in ended}
    said = diagnose(headers, body.encode(), secrets, others=others, now=now_ms / 1000)
    given = {name: value for name, value in ask.form.items() if name != "secret"}
    return ask.page("signature.html", "Check a signature", given=given, said=said, is_right=said is None)


def headers_of(text: str) -> dict[str, str]:
    """Headers as people paste them: one on each line. Raises InvalidInput."""
    found: dict[str, str] = {}
    for line in text.splitlines()[:MOST_HEADERS]:
        name, colon, value = line.partition(":")
        if colon and name.strip():
            found[name.strip().lower()] = value.strip()
    if missing := [name for name in NAMES if name not in found]:
        raise InvalidInput(
            f"among the headers {', '.join(missing)} is missing; paste them as `name: value`, one on each line"
        )
    return found
