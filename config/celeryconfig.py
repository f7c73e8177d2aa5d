"""Celery's settings. Messages are only hints, so nothing here needs to be durable, only fast and robust."""

from config.broker import of as _broker
from config.broker import transport_options as _transport_options
from config.settings import load_or_exit
from config.settings import refusal as _refusal
from dispatcher.errors import InvalidInput

_settings = load_or_exit()
try:
    broker_url, broker_use_ssl, _options = _broker(_settings.celery_url, _settings.redis_ca_file)
except InvalidInput as error:
    raise _refusal(str(error)) from None
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # a worker waits for Redis without limit
broker_channel_error_retry = True  # otherwise a READONLY reply ends the worker
broker_transport_options = _transport_options(_settings.key_prefix, _options)

imports = ("tasks.deliver",)
task_default_queue = "dispatcher"
task_serializer = "json"
accept_content = ["json"]
task_ignore_result = True
task_acks_late = False  # the waker sends a lost hint again
task_publish_retry = False  # an engine that cannot publish a hint serves the endpoint itself

worker_pool = "threads"
worker_concurrency = 4
worker_prefetch_multiplier = 1
worker_hijack_root_logger = False
worker_cancel_long_running_tasks_on_connection_loss = False
worker_send_task_events = False
worker_enable_remote_control = _settings.remote_control
