"""The product's entry point for the emulator, which waits for Redis as long as it takes.

Where the time is not the subject: the product itself has no setting for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from main import api, applications
from shared.revocations import redis_list

__all__ = ["api", "applications"]

redis_list.SECONDS = 1.0
