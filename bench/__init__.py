"""What the dispatcher costs, beside what else one could run: real processes, real sockets, one machine."""
