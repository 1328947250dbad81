"""The list of what was revoked in the last ten minutes, which all instances share, in Redis."""
