"""Entry points for the emulator of an instance whose clock is wrong by TEST_CLOCK seconds."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import main

_time, _wrong_by = time.time, float(os.environ["TEST_CLOCK"])
time.time = lambda: _time() + _wrong_by
api = main.api
