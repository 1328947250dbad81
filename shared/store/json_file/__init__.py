"""Users in one JSON file."""
