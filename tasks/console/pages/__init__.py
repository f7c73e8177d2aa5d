"""The pages, one file for each subject. Importing this package fills the table in `site.py`."""

from tasks.console.pages import (
    account,
    actions_log,
    callback,
    callbacks,
    endpoints,
    live,
    overview,
    portal,
    rejected,
    search,
    signature,
    subscriptions,
    work,
    workspaces,
)

ALL = (
    account, actions_log, callback, callbacks, endpoints, live, overview, portal, rejected, search, signature, subscriptions, work, workspaces,
)  # fmt: skip
