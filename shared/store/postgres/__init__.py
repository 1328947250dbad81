"""Users in PostgreSQL."""
