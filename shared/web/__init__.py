"""The HTTP edge: server, requests, responses and problems."""
