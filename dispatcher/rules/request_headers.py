"""The headers of a callback's request: those of all requests, the workspace's own, the dialect's, Standard Webhooks'."""

from dispatcher.rules.callback import Claimed
from dispatcher.rules.dialects import Signing, dialect_of
from dispatcher.rules.workspace import Workspace
from dispatcher.signing import webhook_headers

COMMON = {"Content-Type": "application/json", "Accept": "*/*"}
"""Of all callbacks of all workspaces. `workspace_headers.RESERVED` keeps workspaces from setting the same."""


def request_headers(
    callback: Claimed, body: bytes, workspace: Workspace, now_ms: int, user_agent: str
) -> dict[str, str]:
    """The headers of one attempt, signed with the secrets that are live at `now_ms`.

    Raises InvalidInput for a workspace that has no such secret.
    """
    timestamp = now_ms // 1000
    secrets = workspace.live_secrets(now_ms)
    signing = Signing(callback.event_id, body, [s.text for s in secrets], timestamp, callback.attempt)
    return {
        **COMMON,
        "User-Agent": user_agent,
        **workspace.headers,
        **dialect_of(workspace.dialect).headers(signing),
        **webhook_headers([s.key for s in secrets], callback.event_id, timestamp, body),
    }
