"""Google's certificates, as the doctor fetches them from servers that speak TLS."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.doctor import look, told
from tests.support.google import Providers
from tests.support.postgres import free_port

NAMES = ("GOOGLE_CLIENT_ID", "FIREBASE_PROJECT_ID")


def test_without_google_nothing_is_fetched() -> None:
    assert look("google") == []


def test_certificates_that_can_be_fetched_are_told_for_each_provider(
    providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers.serve_this_process(monkeypatch)
    settings: dict[str, Any] = {name: providers.settings[name] for name in NAMES}
    found = look("google", **settings)
    assert [it.verdict for it in found] == ["ok", "ok"]
    assert providers.google.url in found[0].sentence
    assert providers.firebase.url in found[1].sentence


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_server_that_is_away_or_is_somebody_else_is_a_problem(
    providers: Providers, monkeypatch: pytest.MonkeyPatch, *, is_trusted: bool
) -> None:
    providers.serve_this_process(monkeypatch)
    if is_trusted:
        url = f"https://localhost:{free_port()}/"
        monkeypatch.setattr("shared.credentials.id_tokens.FIREBASE_CERTIFICATES_URL", url)
    else:
        monkeypatch.delenv("SSL_CERT_FILE")
    project = providers.settings["FIREBASE_PROJECT_ID"]
    (problem,) = told(look("google", FIREBASE_PROJECT_ID=project), "problem")
    assert ("Connection refused" if is_trusted else "certificate verify failed") in problem
    assert "by HTTPS, directly" in problem
