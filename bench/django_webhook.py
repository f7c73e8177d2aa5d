"""A contender: django-webhook, a package that sends webhooks by Celery, with its table of sent events turned off.

A task reads the webhook and its secrets from the database (SQLite here), signs, and posts by `requests`. It has no
ledger: an event enqueued twice is posted twice.
"""

import json
import os
import sys

import django
from celery import Celery
from django.conf import settings
from django.core.management import call_command

settings.configure(
    SECRET_KEY="benchmark",
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["PEER_DATABASE"]}},
    INSTALLED_APPS=["django_webhook"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DJANGO_WEBHOOK={"MODELS": [], "STORE_EVENTS": False},
)
app = Celery("peer", broker=os.environ["PLAIN_REDIS_URL"])
app.conf.update(
    task_ignore_result=True, broker_connection_retry_on_startup=True, imports=["django_webhook.tasks"]
)
app.set_default()
django.setup()


def main() -> None:
    """Creates the database, with a webhook for each URL on stdin (a JSON list); ids count from 1."""
    from django_webhook.models import Webhook

    call_command("migrate", verbosity=0)
    for url in json.load(sys.stdin):
        webhook = Webhook.objects.create(url=url)
        webhook.secrets.create(token="benchmark-secret")


if __name__ == "__main__":
    main()
