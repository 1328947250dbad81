"""What every store promises, and each of them alone."""
