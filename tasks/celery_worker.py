"""What `dispatcher worker` becomes: `celery -A tasks worker`, and quiet on Ctrl-C from its first import on."""

from importlib import import_module

from tasks import interrupt

if __name__ == "__main__":
    interrupt.end_at_once()
    import_module("celery.__main__").main()
