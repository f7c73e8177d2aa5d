"""Decides. No I/O: time and chance are arguments."""
