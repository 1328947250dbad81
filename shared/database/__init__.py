"""Connections to PostgreSQL: from an address to an answer, within a deadline."""
