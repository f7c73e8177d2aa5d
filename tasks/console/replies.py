"""What a replay came to, as pages say it."""

from tasks.actions import replay

SAID = {
    replay.REPLAYED: "It is sent again, with fresh attempts.",
    "not_ended": "It has not ended: it is sent without a replay.",
    "ended_again": "It was replayed since it was counted, and has ended again.",
    "fanned_out": "The default subscription does not want it; its other callbacks have pages of their own.",
    "superseded": "A newer status of its message took its place.",
    "busy": "Another callback of its message is on its way: try again when that has ended.",
    "no_body": "Its body is not kept any more: it cannot be sent again.",
    "full": "Too many callbacks wait for its endpoint: it was not sent again.",
    replay.UNKNOWN: "Nothing is known of it any more.",
    replay.NOT_RENDERED: "It has no body, so it cannot be sent.",
    replay.WORKSPACE_REMOVED: "Its workspace is gone, so it cannot be sent.",
    replay.SUBSCRIPTION_REMOVED: "Its subscription is gone, so it cannot be sent.",
}
"""By the ledger's word, and those of the action."""
