"""Plain data that all rooms share: users, addresses, clients, limits."""
