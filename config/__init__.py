"""Settings, Celery's configuration and logging."""
