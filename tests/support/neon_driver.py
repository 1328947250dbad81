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
_LEAST_NODE = 19
_DRIVER = FETCHED / "node_modules/@neondatabase/serverless/index.mjs"


def missing() -> str | None:
    """Say what is missing to run it, if something is."""
    version = _node_version()
    if version < _LEAST_NODE:
        found = f"it is {version}" if version else "it is not installed"
        return f"Neon's driver needs node {_LEAST_NODE} or newer: {found}"
    return None if _DRIVER.is_file() else "Neon's driver is not there: `make neon-driver`"


def _node_version() -> int:
    """Give the major version of node, or 0 where there is none."""
    if not (program := shutil.which("node")):
        return 0
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    return int(said.removeprefix("v").partition(".")[0])


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
