"""`dispatcher subscription ping`: sends a signed test callback to a subscription."""

from typing import Any

from dispatcher.errors import InvalidInput
from dispatcher.rules.subscription import Subscription
from dispatcher.store.subscriptions import found
from tasks import terminal, wiring
from tasks.actions.ping import ping_url
from tasks.commands.ping import answered
from tasks.commands.subscription import Json, Name, WorkspaceName


def ping(workspace: WorkspaceName, name: Name, as_json: Json = False) -> None:
    """Send a signed test callback to a subscription from here, now, and show the result.

    It is sent as by `dispatcher workspace ping`. Exit code 1 if the answer is not 2xx.
    """
    settings = terminal.settings()

    async def work() -> dict[str, Any]:
        async with wiring.store(settings) as store:
            known, now_ms = await store.workspaces.require(workspace), await store.installation.now_ms()
            one = found(known, name)
            if not one.callback_url:
                raise InvalidInput(
                    f"subscription {name} of workspace {workspace} has no callback URL: "
                    "`dispatcher subscription update --callback-url` sets one"
                )
            subscription = one.name if isinstance(one, Subscription) else ""
            return await ping_url(settings, known, now_ms, one.callback_url, subscription)

    answered(terminal.run(work()), as_json)
