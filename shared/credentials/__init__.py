"""Proofs of identity: passwords, session tokens, ID tokens and their keys."""
