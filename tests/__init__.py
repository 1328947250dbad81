"""The tests. Each says in a sentence what must hold."""
