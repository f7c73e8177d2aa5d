"""What runs in a worker, one loop per file."""
