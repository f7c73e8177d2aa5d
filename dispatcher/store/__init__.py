"""Stores everything in Redis. No other package knows Redis."""
