"""What has ended, outside Redis: SQLite on one machine, or PostgreSQL."""
