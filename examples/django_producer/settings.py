"""Django's settings: a database, one app, no pages."""

import os
from pathlib import Path

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "for this example only")
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["sms"]
ROOT_URLCONF = "urls"
TIME_ZONE = "UTC"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE_FILE", Path(__file__).with_name("producer.sqlite3")),
        # A transaction that reads first and writes later would fail where another one writes in between.
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},
    }
}
DISPATCHER_REDIS_URL = os.environ.get("DISPATCHER_REDIS_URL", "")
