"""What the functions share: rules, stores, tokens, and the edge to HTTP."""
