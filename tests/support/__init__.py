"""Real servers for the tests to talk to, and the relay that watches them talk."""
