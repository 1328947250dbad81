"""The README's session, run as it stands there."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.support.emulator import ROOT, running_emulator

README = (ROOT / "README.md").read_text()


def _session() -> list[tuple[str, str]]:
    (block,) = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = block.splitlines()
    return [(lines[i].removeprefix("$ "), lines[i + 1]) for i in range(0, len(lines), 2)]


def _normal(text: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(text)
    for name in ("id", "request_id", "timestamp"):
        if name in body:
            body[name] = f"some {name}"
    return body


def test_the_readmes_curl_session_answers_as_written(tmp_path: Path, curl_program: str) -> None:
    settings = {"USERS_FILE": str(tmp_path / "users.json"), "ENVIRONMENT": "development"}
    with running_emulator(**settings) as emulator:
        for command, expected in _session():
            run = command.replace("http://", "").replace("localhost:8080", emulator.url)
            result = subprocess.run(
                ["bash", "-c", run], cwd=tmp_path, capture_output=True, text=True, check=True
            )
            assert _normal(result.stdout) == _normal(expected), command


def test_the_readmes_endpoints_are_the_routes() -> None:
    import main

    table = README.split("## Endpoints")[1].split("##")[0]
    assert set(re.findall(r"`(/[\w./-]+)`", table)) == set(main.ROUTES)
