"""Exports that nobody wrote by hand: the system itself has made the users and the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from shared.transfer.adapters.person import UNPROVED_GOOGLE
from tests.support.commands import run
from tests.support.django_dump import HASHERS, PASSWORD
from tests.support.emulator import ROOT
from tests.support.in_process import served
from tests.support.transfers import Target


def test_who_signed_up_with_better_auth_logs_in_here(target: Target, tmp_path: Path) -> None:
    file = tmp_path / "better-auth.json"
    file.write_bytes((ROOT / "tests" / "data" / "better-auth-recorded.json").read_bytes())
    url = target.server.url(target.name)
    planned = run(url, file, "plan", "--json")
    assert "taken for better-auth's" in json.loads(planned.output.splitlines()[0])["sentence"]
    applied = run(url, file, "apply", "--yes", "--json")
    result = json.loads(applied.output.splitlines()[-1])
    # Google's account is that of a user who has not proved the address.
    assert (result["counts"]["new"], set(result["left_behind"])) == (4, {UNPROVED_GOOGLE})
    with served(DATABASE_URL=url) as service:
        for name, password, status in (
            ("ada", PASSWORD, 200),
            ("cat", PASSWORD, 200),
            ("bob", PASSWORD, 401),  # Banned.
            ("unicode", "\ufb01ne p\u00e4ssword \u00bd", 200),
            ("ada", f"{PASSWORD} ", 401),
        ):
            body = {"email": f"{name}@example.com", "password": password}
            assert service.post("/api/login", body).status_code == status, name
    assert not [row for row in target.identities() if row[0] == "https://accounts.google.com"]
    claims = {row["email"]: row["claims"] for row in json.loads(target.export())}
    assert claims["ada@example.com"] == {"role": "admin"}


def test_who_signed_up_in_django_logs_in_here(target: Target, tmp_path: Path) -> None:
    file = tmp_path / "django.json"
    subprocess.run(
        [sys.executable, "-m", "tests.support.django_dump", str(file)], cwd=ROOT, check=True
    )
    url = target.server.url(target.name)
    planned = run(url, file, "plan", "--json")
    assert "taken for Django's" in json.loads(planned.output.splitlines()[0])["sentence"]
    applied = run(url, file, "apply", "--yes", "--json")
    result = json.loads(applied.output.splitlines()[-1])
    assert result["left_behind"]["no address"]["rows"] == 1
    assert (result["counts"]["new"], result["without_password"]) == (len(HASHERS) + 3, 1)
    with served(DATABASE_URL=url) as service:
        for name in [*HASHERS, "root"]:
            body = {"email": f"{name.lower()}@example.com", "password": PASSWORD}
            assert service.post("/api/login", body).status_code == 200, name
        body = {"email": "away@example.com", "password": PASSWORD}
        assert service.post("/api/login", body).status_code == 401
    claims = {json.dumps(row.get("claims")) for row in json.loads(target.export())}
    assert claims == {"null", '{"groups": ["editors"]}', '{"is_staff": true, "is_superuser": true}'}
