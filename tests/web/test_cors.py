"""From where a state change may come, and what production adds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from shared.observe.notices import MAX_SUBJECTS
from shared.web import cors
from shared.web.cookies import CROSS_SITE, NOT_SECURE
from tests.support.browser import front_end
from tests.support.emulator import Emulator, running_emulator
from tests.support.in_process import Served
from tests.support.in_process import served as running

ALLOWED = "https://app.example.com"
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
        ({"Origin": "https://APP.example.com.:443"}, True),
        ({"Origin": "HTTPS://api_2.example.com", "Host": "API_2.Example.com.:443"}, True),
        ({"Origin": "https://api.example.com:443", "Host": "api.example.com"}, True),
        ({"Origin": "https://[::1]", "Host": "[0::1]:443"}, True),
        ({"Origin": "https://xn--bcher-kva.example", "Host": "XN--BCHER-KVA.example"}, True),
        ({"Origin": "https://api.example.com", "Host": "api.example.com:80"}, False),
        ({"Origin": "https://api.example.com", "Host": "api.example.com:8443"}, False),
        ({"Origin": "https://api.example.com", "Host": "api.example.com@evil.example"}, False),
        ({"Origin": "https://api.example.com", "Host": ""}, False),
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
            allowed = (
                headers.get("Origin", "").lower().startswith("https://app.example.com") and accepted
            )
            assert ("Access-Control-Allow-Origin" in response.headers) == allowed
        assert client.get("/api/user", headers=headers).status_code == 401


def test_a_preflight_is_answered_for_allowed_origins_only(strict_emulator: Emulator) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-evil"}
    with strict_emulator.client() as client:
        allowed = client.options("/api/login", headers={"Origin": "https://app.example.com"} | ask)
        assert allowed.status_code == 204
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
        assert allowed.headers["Access-Control-Allow-Credentials"] == "true"
        assert "x-evil" not in allowed.headers["Access-Control-Allow-Headers"].lower()
        assert allowed.headers["Vary"] == "Origin"
        refused = client.options("/api/login", headers={"Origin": "https://evil.example"} | ask)
        assert refused.status_code == 405
        assert "Access-Control-Allow-Origin" not in refused.headers


@pytest.mark.parametrize(
    "asked",
    [
        "content-type",
        "content-type,traceparent,tracestate,baggage,sentry-trace",
        "b3,content-type,x-b3-parentspanid,x-b3-sampled,x-b3-spanid,x-b3-traceid",
        "content-type,x-request-id,x-correlation-id",
        "x-datadog-origin,x-datadog-parent-id,x-datadog-sampling-priority,x-datadog-trace-id",
        "newrelic,request-id,request-context,traceparent",
        "cache-control,content-type,pragma,x-csrf-token,x-xsrf-token",
        "content-type,sw8,x-instana-l,x-instana-s,x-instana-t",
        "x-requested-with",
    ],
)
def test_a_preflight_allows_what_libraries_and_tracing_send(served: Served, asked: str) -> None:
    headers = {
        "Origin": ALLOWED,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": asked,
    }
    answer = served.send("OPTIONS", "/api/login", headers.items())
    assert answer.status_code == 204
    given = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert set(asked.split(",")) <= set(given)


def test_a_preflight_does_not_allow_what_could_prove_or_change_more(served: Served) -> None:
    headers = {"Origin": ALLOWED, "Access-Control-Request-Method": "POST"}
    answer = served.send("OPTIONS", "/api/login", headers.items())
    given = set(answer.headers["Access-Control-Allow-Headers"].lower().split(", "))
    assert not given & {"*", "authorization", "cookie", "x-http-method-override"}


def test_a_page_of_a_listed_origin_can_read_when_to_try_again(served: Served) -> None:
    body = {"email": "ada@example.com", "password": "wrong"}
    for _ in range(3):
        answer = served.post("/api/login", body, ("Origin", ALLOWED))
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"Retry-After", "X-Request-Id"} <= set(exposed)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


def test_an_origin_that_is_not_listed_is_named_in_the_log_once(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(method: str, origin: str, **headers: str) -> list[tuple[str, str]]:
        given = {"Origin": origin, "Host": "api.example.com"} | headers
        served.send(method, "/api/login", given.items())
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [(line["message"], line["origin"]) for line in lines if "origin" in line]

    for method, origin in (("POST", "https://one.example"), ("OPTIONS", "http://two.example:81")):
        ((sentence, named),) = told(method, origin)
        assert "ALLOWED_ORIGINS" in sentence
        assert named == origin
        assert told(method, origin) == told("GET", f"{origin.upper()}") == []
    assert told("POST", "null") == [(cors.UNNAMED, "null")]
    assert told("POST", "capacitor://localhost") == [(cors.UNNAMED, "not an origin")]
    assert told("POST", "x" * 5000) == told("POST", "y\x00") == []
    assert told("POST", "http://api.example.com") == [(cors.NOT_HTTPS, "http://api.example.com")]
    assert told("POST", ALLOWED) == told("POST", "https://api.example.com") == []
    for number in range(2 * MAX_SUBJECTS):
        told("POST", f"https://{number}.example")
    assert told("POST", "https://one.more.example") == []


@pytest.mark.parametrize(
    ("headers", "environment", "loss"),
    [
        ({"Origin": "http://localhost:5173", "Sec-Fetch-Site": "cross-site"}, "test", CROSS_SITE),
        ({"Origin": "http://localhost:5173"}, "test", CROSS_SITE),
        ({"Origin": "http://localhost:5173", "Host": "localhost:8080"}, "test", None),
        (
            {"Origin": "http://localhost:5173", "Host": "localhost", "Sec-Fetch-Site": "same-site"},
            "test",
            None,
        ),
        ({"Origin": "http://127.0.0.1:8080"}, "test", None),
        ({}, "test", None),
        ({"X-Forwarded-Proto": "http"}, "test", None),
        ({"Host": "api.example.com", "X-Forwarded-Proto": "http"}, "production", NOT_SECURE),
        ({"Host": "api.example.com", "X-Forwarded-Proto": "https"}, "production", None),
        ({"X-Forwarded-Proto": "http"}, "production", None),
        (
            {
                "Origin": "https://app.other.example",
                "Host": "api.example.com",
                "Sec-Fetch-Site": "cross-site",
            },
            "production",
            CROSS_SITE,
        ),
        ({"Origin": "https://app.other.example", "Host": "192.0.2.1"}, "production", CROSS_SITE),
        ({"Origin": "https://app.other.example", "Host": "api.other.example"}, "production", None),
    ],
)
def test_a_cookie_that_the_browser_will_drop_is_told_in_the_log_once(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    headers: dict[str, str],
    environment: str,
    loss: str | None,
) -> None:
    settings = {"USE_DATABASE": "false", "BCRYPT_ROUNDS": "10", "ENVIRONMENT": environment}
    origins = "http://localhost:5173 https://app.other.example"
    given = {"Host": "127.0.0.1:8080"} | headers
    with running(USERS_FILE=str(tmp_path / "u.json"), ALLOWED_ORIGINS=origins, **settings) as app:
        for name in ("ada", "bob"):
            body = {"email": f"{name}@example.com", "password": PASSWORD}
            answer = app.post("/api/signup", body, *given.items())
            assert answer.status_code == 201
    told = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]
    assert [line for line in told if line in (CROSS_SITE, NOT_SECURE)] == [loss] * bool(loss)


def test_a_browser_reads_a_refusal_and_keeps_the_cookie_on_one_site_only(
    browser: Browser, tmp_path: Path
) -> None:
    settings = {"USERS_FILE": str(tmp_path / "users.json"), "MAX_SIGNUPS": "1"}
    call = """async ([url, method, body]) => {
        const headers = { "Content-Type": "application/json", traceparent: "00-1", baggage: "a=1" };
        const response = await fetch(url, { method, headers, body, credentials: "include" });
        return [response.status, response.headers.get("Retry-After")];
    }"""
    with (
        front_end(tmp_path) as origin,
        running_emulator(ALLOWED_ORIGINS=origin, **settings) as emulator,
        browser.new_context() as context,
    ):
        page = context.new_page()
        page.goto(origin)
        found = {}
        for host in ("127.0.0.1", "localhost"):
            api = emulator.url.replace("127.0.0.1", host)
            body = json.dumps({"email": f"{host}@example.com", "password": PASSWORD})
            found[host] = [
                page.evaluate(call, [f"{api}/api/signup", "POST", body]),
                page.evaluate(call, [f"{api}/api/user", "GET", None])[0],
            ]
            assert emulator.output().count(CROSS_SITE) == 1
        assert found["127.0.0.1"] == [[201, None], 401]
        (status, retry_after), _ = found["localhost"]
        assert (status, retry_after) == (429, "900")
        login = json.dumps({"email": "127.0.0.1@example.com", "password": PASSWORD})
        assert page.evaluate(call, [f"{api}/api/login", "POST", login])[0] == 200
        assert page.evaluate(call, [f"{api}/api/user", "GET", None])[0] == 200


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


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """The functions under production's rules, with one allowed origin."""
    with running(
        ENVIRONMENT="production",
        USE_DATABASE="false",
        USERS_FILE=str(tmp_path / "users.json"),
        BCRYPT_ROUNDS="10",
        ALLOWED_ORIGINS=ALLOWED,
        MAX_CLIENT_ATTEMPTS="2",
    ) as app:
        yield app


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
