"""Neon's own driver, from npm, as a client of the stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.neon_proxy import NeonProxy
from tests.support.postgres import Server

FETCHED = Path(__file__).resolve().parents[2] / ".venv-neon"
"""Where `make neon-driver` puts it."""
_DRIVER = FETCHED / "node_modules/@neondatabase/serverless/index.mjs"


def missing() -> str | None:
    """Say what is missing to run it, if something is."""
    if not shutil.which("node"):
        return "node is not installed: on Debian, `apt-get install npm`"
    return None if _DRIVER.is_file() else "Neon's driver is not there: `make neon-driver`"


def ask(server: Server, proxy: NeonProxy, *calls: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask each in turn, with the endpoint and, where a call has none, the tests' own user."""
    common = {"endpoint": proxy.url, "url": server.url("postgres")}
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("neon_driver.mjs")), str(_DRIVER)],
        input=json.dumps([common | call for call in calls]),
        env={"PATH": os.environ["PATH"], "NODE_EXTRA_CA_CERTS": str(server.authority.certificate)},
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    outcomes: list[dict[str, Any]] = json.loads(done.stdout)
    return outcomes
