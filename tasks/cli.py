"""`dispatcher`: the table of its commands. Imports none of them: `tasks/lazy.py` loads the one that runs."""

from typing import NamedTuple


class Entry(NamedTuple):
    """A command or a group of commands, and where it is defined."""

    path: str
    """Its name as typed, without `dispatcher`."""
    where: str
    """`module:name`: a function is a command, a typer.Typer a group. Empty if the table has all of a group's commands."""
    help: str
    """The first line of its help; a test compares the two."""


ABOUT = "Turns message status changes on a Redis queue into signed HTTP callbacks."

COMMANDS = (
    Entry(
        "demo", "tasks.commands.demo:demo", "Run the main job here, on a private Redis, worker and receivers."
    ),
    Entry("worker", "tasks.commands.worker:worker", "Run a worker; further options are Celery's."),
    Entry("enqueue", "tasks.commands.enqueue:enqueue", "Put status changes from a file on the queue."),
    Entry(
        "partition",
        "tasks.commands.partition:partition",
        "Show the partition of a workspace: its number, tag and slot, and the key of its queue.",
    ),
    Entry(
        "grow",
        "tasks.commands.grow:grow",
        "Copy workspaces and API keys of the one Redis before into the partitions, so that workers can lead them.",
    ),
    Entry(
        "archiver",
        "tasks.commands.archiver:archiver",
        "Take what has ended to the archive, in place of workers, until Ctrl-C.",
    ),
    Entry("archive", "", "The archive of what has ended."),
    Entry(
        "archive migrate",
        "tasks.commands.archive:migrate",
        "Make the archive's tables, or bring them to this version; workers do so too.",
    ),
    Entry(
        "archive end",
        "tasks.commands.archive:end",
        "Let this installation do without its archive again, once Redis has forgotten what only that knows.",
    ),
    Entry(
        "history",
        "tasks.commands.history:history",
        "Export what is in the archive, as JSON lines, CSV or Parquet.",
    ),
    Entry("workspace", "", "Customers: dialect, callback URL, secrets, limits."),
    Entry(
        "workspace add",
        "tasks.commands.workspace_change:add",
        "Create a workspace; its secret is shown only now.",
    ),
    Entry(
        "workspace rotate-secret",
        "tasks.commands.workspace:rotate_secret",
        "Give a workspace a new secret; the old one goes on signing for a grace period.",
    ),
    Entry(
        "workspace rotate-encryption",
        "tasks.commands.workspace:rotate_encryption",
        "Re-encrypt all secrets with the newest of DISPATCHER_SECRET_KEYS.",
    ),
    Entry("workspace list", "tasks.commands.workspace:list_", "List all workspaces."),
    Entry("workspace show", "tasks.commands.workspace:show", "Show a workspace, never its secrets."),
    Entry(
        "workspace update",
        "tasks.commands.workspace_change:update",
        "Change a workspace: a new URL is for later status changes, the rest applies at once.",
    ),
    Entry(
        "workspace remove",
        "tasks.commands.workspace:remove",
        "Remove a workspace that has no waiting callbacks.",
    ),
    Entry(
        "workspace ping",
        "tasks.commands.ping:ping",
        "Send a signed test callback from here, now, and show the result.",
    ),
    Entry(
        "workspace api-key",
        "tasks.commands.api_key:of_workspaces",
        "API keys of a workspace, for its customer's queries.",
    ),
    Entry(
        "subscription",
        "tasks.commands.subscription:commands",
        "Several receivers for one customer, each on its own terms.",
    ),
    Entry(
        "subscription add",
        "tasks.commands.subscription_change:add",
        "Add a subscription: later status changes become a callback for it too. Its secret is shown only now.",
    ),
    Entry(
        "subscription update",
        "tasks.commands.subscription_change:update",
        "Change a subscription: URL, events, channels, fields and dialect are for later status changes, the rest applies at once.",
    ),
    Entry(
        "subscription ping",
        "tasks.commands.subscription_ping:ping",
        "Send a signed test callback to a subscription from here, now, and show the result.",
    ),
    Entry(
        "producer-key",
        "tasks.commands.api_key:of_producers",
        "API keys of backends, for POST /v1/status-changes.",
    ),
    Entry(
        "event", "tasks.commands.event:commands", "Show what became of a status change; send it once more."
    ),
    Entry(
        "event replay",
        "tasks.commands.replay:replay",
        "Send an ended event once more, or many by filter; without --yes these are only counted.",
    ),
    Entry(
        "endpoint",
        "tasks.commands.endpoint:commands",
        "Where callbacks go: what waits, what is paused, and why.",
    ),
    Entry(
        "endpoint retry",
        "tasks.commands.endpoint_retry:retry",
        "Retry an endpoint now, or many, for example after a repair.",
    ),
    Entry(
        "endpoint ping",
        "tasks.commands.endpoint_ping:ping",
        "Send a signed test callback to an endpoint, as its deliveries are sent, and show the result.",
    ),
    Entry("rejected", "tasks.commands.rejected:commands", "Queue entries that could not be used, and why."),
    Entry("purge", "tasks.commands.purge:commands", "Remove callbacks or rejected entries, after asking."),
    Entry(
        "erase",
        "tasks.commands.erase:commands",
        "Erase what is known of a person, after asking; the same status change does not happen again.",
    ),
    Entry("audit", "tasks.commands.audit:commands", "Who changed what, by the API or by a command."),
    Entry(
        "stats",
        "tasks.commands.stats:stats",
        "Show what was accepted, delivered and given up: this hour, 24 hours, 7 days; and what waits now.",
    ),
    Entry(
        "tail",
        "tasks.commands.tail:tail",
        "Watch the attempts of all workers live, until Ctrl-C.",
    ),
    Entry("listen", "tasks.commands.listen:listen", "Receive, verify and print callbacks, until Ctrl-C."),
    Entry(
        "check",
        "tasks.commands.check:check",
        "Check for what would lose data, or with --live for what stops callbacks.",
    ),
    Entry(
        "exporter",
        "tasks.commands.exporter:exporter",
        "Export metrics of queue, endpoints and Redis to Prometheus, read at each scrape.",
    ),
    Entry(
        "api",
        "tasks.commands.api:api",
        "Serve the status API and the HTTP intake; put a TLS proxy in front of it.",
    ),
    Entry(
        "console",
        "tasks.commands.console:console",
        "Serve the console: what waits, what failed and why, live attempts, and what to do about it.",
    ),
    Entry("console-key", "tasks.commands.api_key:of_operators", "Keys that log operators in to the console."),
    Entry("config", "tasks.commands.config:config", "Show the settings in force; secrets are hidden."),
)

EXAMPLES = """
Examples:

  dispatcher demo                            see it work, on a private Redis
  dispatcher workspace add acme --dialect zeckta \\
      --callback-url https://example.com/hooks
  dispatcher enqueue status-changes.jsonl    put status changes on the queue
  dispatcher worker                          deliver them
  dispatcher workspace ping acme             a signed test callback, now
  dispatcher subscription add acme crm --callback-url https://crm.example/sms
                                             a second receiver of one customer
  dispatcher event list --message 0b6b0c4e-6f2d-4d3a-9a39-0d7a2a1f8f11
                                             what became of its callbacks
  dispatcher event list --state failed --since 6h    what was given up
  dispatcher event replay evt_1 --workspace acme     send it once more
  dispatcher stats                           rates, ends, latency
  dispatcher tail                            attempts as they are made
  dispatcher endpoint list                   what waits where, and why
  dispatcher audit list                      who changed what
  dispatcher check                           would this lose data?
  dispatcher exporter                        figures for Prometheus
  dispatcher api                             status of messages over HTTP
  dispatcher console                         pages that show all this

Settings come from the environment (DISPATCHER_…) and .env; `dispatcher config`
shows them.
Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 Redis not reachable,
130 Ctrl-C.
"""
