"""Users, addresses, callers."""
