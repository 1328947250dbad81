"""HTML pages and their assets."""
