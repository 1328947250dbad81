"""The product's entry point for the emulator, whose alerts are looked at many times a second."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from main import api
from shared.observe import alerts

__all__ = ["api"]

alerts.CHECK_SECONDS = 0.1
