"""Benchmarks: what the dispatcher costs, compared with the alternatives. Real processes and sockets, one machine."""
