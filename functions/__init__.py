"""One file per endpoint: read the call, call one rule, answer."""
