"""What the documents say, and how the house is built."""
