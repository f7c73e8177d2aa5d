"""Posts callbacks. Knows no Redis."""
