"""Warnings to the operator that are worth one line of a process, not one of each request."""

from __future__ import annotations

import threading
from collections import defaultdict

from shared.observe import log

MAX_SUBJECTS = 100
"""For which a warning is repeated: a caller can invent any number."""


class Notices:
    """What one process has warned of already. Thread-safe."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._telling = threading.Lock()
        self._told: defaultdict[str, set[str]] = defaultdict(set)

    def warn(self, sentence: str, subject: str = "", **fields: object) -> None:
        """Log the sentence once for each subject."""
        with self._telling:
            told = self._told[sentence]
            if subject in told or len(told) >= MAX_SUBJECTS:
                return
            told.add(subject)
        log.write("WARNING", sentence, **fields)
