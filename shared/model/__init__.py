"""What the rooms talk about: users, addresses, callers, limits. Plain data."""
