"""Celery's settings: messages are hints, so nothing here has to be durable, only quick and steady."""

from config.settings import load
from dispatcher.errors import InvalidInput

try:
    _settings = load()
except InvalidInput as error:
    raise SystemExit(f"error: {error}") from None
_redis_url = (_settings.broker_url or _settings.redis_url).get_secret_value()

broker_url = _redis_url.replace("unix://", "redis+socket://", 1)
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # a worker waits for Redis as long as it takes
broker_channel_error_retry = True  # else a READONLY reply ends the worker
broker_transport_options = {
    "global_keyprefix": f"{_settings.key_prefix}:celery:",
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
}

imports = ("tasks.deliver",)
task_default_queue = "dispatcher"
task_serializer = "json"
accept_content = ["json"]
task_ignore_result = True
task_acks_late = False  # a lost hint is made again by the waker
task_publish_retry = False  # an engine that cannot publish a hint serves the endpoint itself

worker_pool = "threads"
worker_concurrency = 4
worker_prefetch_multiplier = 1
worker_hijack_root_logger = False
worker_cancel_long_running_tasks_on_connection_loss = False
worker_send_task_events = False
worker_enable_remote_control = _settings.remote_control
