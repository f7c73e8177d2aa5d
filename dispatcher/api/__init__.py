"""What is known of each message, and the HTTP API by which customers ask for it and backends enqueue.

`record` keeps, `messages` reads, `api_keys` says who asks; `app` puts the platforms' APIs (one file each) together.
Callbacks need none of it.
"""
