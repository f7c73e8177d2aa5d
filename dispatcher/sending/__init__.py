"""Posts callbacks over HTTP. Does not use Redis."""
