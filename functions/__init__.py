"""One file an endpoint: read the call, do one thing in `shared`, answer."""
