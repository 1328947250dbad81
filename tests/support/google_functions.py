"""The product's entry point for the emulator, on the certificates of the tests' own providers.

The variables say where these are; the product itself has no setting for that.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from main import api, applications
from shared.credentials import id_tokens

__all__ = ["api", "applications"]

if url := os.environ.get("TEST_CERTIFICATES_URL"):
    id_tokens.GOOGLE = replace(id_tokens.GOOGLE, certificates_url=url)
if url := os.environ.get("TEST_FIREBASE_CERTIFICATES_URL"):
    id_tokens.FIREBASE_CERTIFICATES_URL = url
