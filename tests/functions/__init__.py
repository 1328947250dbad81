"""The endpoints over HTTP."""
