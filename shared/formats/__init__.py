"""Text formats: strict JSON, times, normal forms of Unicode."""
