"""From where a state change may come, and what production adds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.emulator import Emulator, running_emulator

PASSWORD = "correct horse battery staple"
SAME = "https://{host}"


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "anything"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": SAME}, False),
        ({"Origin": SAME}, True),
        ({"Origin": SAME.replace("https", "http")}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://["}, False),
        ({"Origin": "https://app.example.com"}, True),
        ({"Origin": "https://app.example.com", "Sec-Fetch-Site": "same-site"}, True),
        ({"Origin": "https://app.example.com.evil.example"}, False),
        ({"Origin": "https://app.example.com:444"}, False),
    ],
)
def test_a_state_change_comes_from_our_pages_an_allowed_origin_or_no_page(
    strict_emulator: Emulator, headers: dict[str, str], accepted: bool
) -> None:
    host = strict_emulator.url.removeprefix("http://")
    headers = {name: value.format(host=host) for name, value in headers.items()}
    with strict_emulator.client() as client:
        for path in ("/api/login", "/api/signup", "/api/logout"):
            response = client.post(path, headers=headers)
            assert (response.status_code != 403) == accepted
            allowed = headers.get("Origin") == "https://app.example.com"
            assert ("Access-Control-Allow-Origin" in response.headers) == allowed
        assert client.get("/api/user", headers=headers).status_code == 401


def test_a_preflight_is_answered_for_allowed_origins_only(strict_emulator: Emulator) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-evil"}
    with strict_emulator.client() as client:
        allowed = client.options("/api/login", headers={"Origin": "https://app.example.com"} | ask)
        assert allowed.status_code == 204
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
        assert allowed.headers["Access-Control-Allow-Credentials"] == "true"
        assert allowed.headers["Access-Control-Allow-Headers"] == "Content-Type"
        assert allowed.headers["Vary"] == "Origin"
        refused = client.options("/api/login", headers={"Origin": "https://evil.example"} | ask)
        assert refused.status_code == 405
        assert "Access-Control-Allow-Origin" not in refused.headers


def test_production_sends_hsts_and_a_host_bound_secure_cookie(
    strict_emulator: Emulator, address: str
) -> None:
    with strict_emulator.client() as client:
        response = client.post("/api/signup", json={"email": address, "password": PASSWORD})
        assert response.headers["Strict-Transport-Security"].startswith("max-age=31536000")
        set_to, cleared = (
            answer.headers["Set-Cookie"] for answer in (response, client.post("/api/logout"))
        )
    for cookie in (set_to, cleared):
        assert cookie.startswith("__Host-session=")
        attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= attributes
        assert not any(attribute.startswith("domain") for attribute in attributes)
    assert "Max-Age=2592000" in set_to
    assert "Max-Age=0" in cleared


@pytest.fixture(scope="module")
def strict_emulator(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An emulator under production's rules, with one allowed origin."""
    users_file = tmp_path_factory.mktemp("strict") / "users.json"
    with running_emulator(
        ENVIRONMENT="production",
        USE_DATABASE="false",
        USERS_FILE=str(users_file),
        BCRYPT_ROUNDS="10",
        ALLOWED_ORIGINS="https://app.example.com",
    ) as running:
        yield running
