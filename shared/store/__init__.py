"""Where users are kept: a contract, and a folder or a file an implementation."""
