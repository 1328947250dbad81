"""One file per endpoint: read the call, ask the rules, answer. `user_responses` is shared."""
