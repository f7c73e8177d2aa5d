"""What the dispatcher survives: each fault of the catalogue, done to real processes, and counted."""
