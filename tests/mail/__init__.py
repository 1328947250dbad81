"""Mail: what it says."""
