"""The HTTP API: customers query the status of messages, backends enqueue status changes.

Each platform's API is one file; `app` combines them. The store keeps messages and API keys. Callbacks work without
this package.
"""
