"""What no request may do: requirements on input, answers and logs, over real HTTP."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.observe import metrics
from tests.support.emulator import Emulator, running_emulator
from tests.support.in_process import served
from tests.support.waiting import until

JSON = {"Content-Type": "application/json"}
LIMIT = 16 * 1024
PASSWORD = "correct horse battery staple"


def _sound(client: httpx.Client) -> None:
    assert client.get("/api/livez").status_code == 200


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "cannot be parsed"),
        (b"{", "cannot be parsed"),
        (b"{} {}", "cannot be parsed"),
        (b"{'a': 1}", "cannot be parsed"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1, "a": 2}', "names a member twice"),
        (b'{"x": {"a": 1, "a": 2}}', "names a member twice"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "not in UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "cannot be parsed"),
        (b'{"a": "\xff"}', "not in UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not in UTF-8"),
        (b'{"email": "\\ud800", "password": "x"}', "half of a surrogate pair"),
        (b'{"x": [{"\\udc00": 1}]}', "half of a surrogate pair"),
        (b'{"email": "a\\u0000b", "password": "x"}', "NUL"),
        (b'{"a": "\x00"}', "cannot be parsed"),
        (b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
        (b'{"x": ' + b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"}", "nested too deeply"),
        (b'{"x": ' + b"9" * 5000 + b"}", "cannot be parsed"),
        (b'{"x": 1e999}', "too large"),
        (b"[]", "must be an object"),
        (b'"text"', "must be an object"),
        (b"null", "must be an object"),
        (b"true", "must be an object"),
    ],
)
def test_what_is_no_strict_json_object_is_400_with_a_sentence(
    emulator: Emulator, body: bytes, sentence: str
) -> None:
    with emulator.client() as client:
        response = client.post("/api/login", content=body, headers=JSON)
        assert response.status_code == 400
        problem = response.json()
        assert problem["code"] == "invalid_json"
        assert sentence in problem["error"]
        _sound(client)


def test_a_pair_of_surrogates_is_a_character(emulator: Emulator, address: str) -> None:
    body = b'{"email": "%s", "password": "\\ud83d\\ude00 horse battery"}' % address.encode()
    with emulator.client() as client:
        assert client.post("/api/signup", content=body, headers=JSON).status_code == 201
        credentials = {"email": address, "password": "😀 horse battery"}
        assert client.post("/api/login", json=credentials).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/problem+json"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_a_body_that_is_not_declared_as_plain_json_is_415(
    emulator: Emulator, headers: dict[str, str]
) -> None:
    with emulator.client() as client:
        for path in ("/api/login", "/api/signup", "/api/logout"):
            response = client.post(path, content=b"{}", headers=headers)
            assert response.status_code == 415
            assert response.json()["error"]


def _filled(size: int) -> bytes:
    frame = b'{"email": "a@example.com", "password": ""}'
    return frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]


def test_a_body_may_have_16_kib_and_not_a_byte_more(emulator: Emulator) -> None:
    with emulator.client() as client:
        fits = client.post("/api/login", content=_filled(LIMIT), headers=JSON)
        assert fits.status_code == 401
        for size in (LIMIT + 1, 1_000_000):
            response = client.post("/api/login", content=_filled(size), headers=JSON)
            assert response.status_code == 413
            assert response.json()["code"] == "body_too_large"
    # The server may have closed the connection instead of reading on.
    with emulator.client() as client:
        _sound(client)


def test_a_chunked_body_over_the_limit_is_413_as_well(emulator: Emulator) -> None:
    with emulator.client() as client:
        for size in (LIMIT + 1, 3_000_000):
            chunks = (b"x" * 1000 for _ in range(size // 1000 + 1))
            response = client.post("/api/login", content=chunks, headers=JSON)
            assert response.status_code == 413
    with emulator.client() as client:
        fits = client.post("/api/login", content=iter([_filled(LIMIT)]), headers=JSON)
        assert fits.status_code == 401
        _sound(client)


def test_a_body_where_none_belongs_is_bounded_too(emulator: Emulator) -> None:
    with emulator.client() as client:
        response = client.request("GET", "/api/user", content=b"x" * 1_000_000)
        assert response.status_code == 413


def test_a_body_that_ends_early_is_400_and_not_taken_for_a_whole_one(emulator: Emulator) -> None:
    body = b'{"email": "early@example.com", "password": "correct horse"}'
    head = (
        b"POST /api/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 200\r\n\r\n"
    )
    host, port = emulator.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head + body)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "redirection",
    [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>/dev/full", ">{pipe}"],
)
def test_what_cannot_be_logged_does_not_undo_a_request(tmp_path: Path, redirection: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with (
        running_emulator(
            redirection=redirection.format(pipe=pipe), USERS_FILE=str(tmp_path / "users.json")
        ) as mute,
        mute.client() as client,
    ):
        os.close(reader)
        credentials = {"email": "ada@example.com", "password": PASSWORD}
        assert client.post("/api/signup", json=credentials).status_code == 201
        assert client.get("/api/user").status_code == 200
        assert client.post("/api/login", json=credentials).status_code == 200
        assert client.get("/api/nothing").json()["code"] == "not_found"
    users = json.loads((tmp_path / "users.json").read_text())
    assert [user["email"] for user in users] == ["ada@example.com"]


@pytest.mark.parametrize("broken", ["Alerts.record", "Alerts.is_due", "listener"])
def test_what_cannot_be_counted_does_not_undo_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with served(USERS_FILE=str(tmp_path / "users.json")) as app:
        if broken == "listener":
            monkeypatch.setattr(metrics, "_listeners", [fail])
        else:
            monkeypatch.setattr(f"shared.observe.alerts.{broken}", fail)
        body = json.dumps({"email": "ada@example.com", "password": PASSWORD}).encode()
        answer = app.send("POST", "/api/signup", JSON.items(), body)
        assert answer.status_code == 201
        assert "ada@example.com" in app.stored_users()


def test_a_client_that_hangs_up_within_its_body_harms_nobody(emulator: Emulator) -> None:
    host, port = emulator.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
    with emulator.client() as client:
        _sound(client)
    assert not [line for line in emulator.log() if line.get("status") == 500]


def _exchange(emulator: Emulator, request: bytes) -> bytes:
    """Send bytes as they are, and give the first bytes of the answer."""
    host, port = emulator.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(65536)


@pytest.mark.parametrize("chunks", [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx", b"-1\r\n\r\n"])
def test_a_malformed_chunk_is_400(emulator: Emulator, chunks: bytes) -> None:
    head = (
        b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    assert _exchange(emulator, head + chunks).startswith(b"HTTP/1.1 400 ")
    other = head.replace(b"POST", b"PUT")
    assert _exchange(emulator, other + chunks).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"POST /api/login", b"413"),
        (b"PUT /api/login", b"405"),
        (b"POST /api/nothing", b"404"),
        (b"GET /robots.txt", b"404"),
    ],
)
def test_a_refused_request_is_answered_without_waiting_for_its_body(
    emulator: Emulator, line: bytes, status: bytes
) -> None:
    head = b" HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n"
    assert _exchange(emulator, line + head).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/login", {"POST"}),
        ("/api/signup", {"POST"}),
        ("/api/register", {"POST"}),
        ("/api/logout", {"POST"}),
        ("/api/user", {"GET", "HEAD"}),
        ("/api/session", {"GET", "HEAD"}),
        ("/api/health", {"GET", "HEAD"}),
        ("/api/livez", {"GET", "HEAD"}),
    ],
)
def test_other_methods_are_405_and_name_the_right_ones(
    emulator: Emulator, path: str, allowed: set[str]
) -> None:
    methods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"}
    with emulator.client() as client:
        for method in methods - allowed:
            response = client.request(method, path)
            assert response.status_code == 405, method
            assert set(response.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "path",
    [
        "/",  # the sign-in page, where SIGN_IN_PAGE asks for it
        "/sign-in.css",
        "/sign-in.js",
        "/api",
        "/api/",
        "/api/nothing",
        "/api/login/",
        "/api//login",
        "//evil.example/",
        "/robots.txt",
        "/favicon.ico",
        "/api/%00",
        "/api/user%0d%0aSet-Cookie:x",
        "/api/" + "x" * 5000,
    ],
)
def test_an_unknown_path_is_a_json_404_and_never_a_redirect(emulator: Emulator, path: str) -> None:
    with emulator.client() as client:
        for method in ("GET", "POST", "DELETE", "OPTIONS", "FOO"):
            response = client.request(method, httpx.URL(emulator.url + path))
            assert response.status_code == 404
            assert response.headers["Content-Type"] == "application/problem+json"
            assert response.json()["code"] == "not_found"


ALIASES = [
    "//api/user",
    "///api/user",
    "/api//user",
    "/api/user/",
    "/api/user//",
    "/api/./user",
    "/api/x/../user",
    "/./api/user",
    "/../api/user",
    "/api%2Fuser",
    "/api%2fuser",
    "/%61pi/user",
    "/api/use%72",
    "/api/user%00",
    "/api/user%20",
    "/api/user;x=y",
    "/api/user;",
    "/api/user#x",
    "/api/user%3F",
    "/api/user%23",
    "/api\\user",
    "/API/USER",
    "/Api/user",
    "/api/user.json",
    "http://x//api/user",
    "http://x/api%2Fuser",
    "http://x",
    "http://x?/api/user",
    "http:///x/api/user",
    "ftp://x/api/user",
    "x://api/user",
    "%2Fapi/user",
]


@pytest.mark.parametrize("target", ALIASES)
def test_a_path_has_one_spelling_and_every_other_is_404(emulator: Emulator, target: str) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    status = _exchange(emulator, request).split(b" ", 2)[1]
    assert status == (b"400" if target.startswith("%") else b"404")


def test_a_target_that_is_no_path_is_404(emulator: Emulator) -> None:
    for line in (b"OPTIONS *", b"CONNECT x:80", b"CONNECT /api/user:80"):
        answer = _exchange(emulator, line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "target",
    [
        "/api/user",
        "/api/user?",
        "/api/user?a=b%2F/..",
        "http://x/api/user",
        "HTTP://x:80/api/user?a",
    ],
)
def test_a_path_may_have_a_query_and_be_part_of_a_whole_url(
    emulator: Emulator, target: str
) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    assert _exchange(emulator, request).startswith(b"HTTP/1.1 401 ")


def test_every_problem_has_the_members_of_rfc_9457_and_the_old_pages_error(
    emulator: Emulator,
) -> None:
    with emulator.client() as client:
        answers = [
            client.get("/api/user"),
            client.get("/api/nothing"),
            client.get("/robots.txt"),
            client.get("/api/login"),
            client.post("/api/login", content=b"{", headers=JSON),
            client.post("/api/login", json={}),
            client.post("/api/login", json={"email": "a@example.com", "password": "x"}),
            client.post("/api/login", content=_filled(LIMIT + 1), headers=JSON),
            client.post("/api/logout", headers={"Origin": "https://evil.example"}),
        ]
    for response in answers:
        problem = response.json()
        assert response.headers["Content-Type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "code", "request_id", "error"} <= set(problem)
        assert problem["status"] == response.status_code
        assert problem["request_id"] == response.headers["X-Request-Id"]
        assert problem["error"] == problem["detail"] != ""


def test_every_answer_carries_the_security_headers(emulator: Emulator, address: str) -> None:
    with emulator.client() as client:
        answers = [
            client.post("/api/signup", json={"email": address, "password": PASSWORD}),
            client.get("/api/user"),
            client.get("/api/health"),
            client.post("/api/logout"),
            client.get("/api/user"),
            client.get("/api/nothing"),
            client.get("/robots.txt"),
            client.post("/api/login", content=_filled(LIMIT + 1), headers=JSON),
        ]
    for response in answers:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Request-Id"]
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Strict-Transport-Security" not in response.headers  # plain HTTP, in a test


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


def test_an_unforeseen_error_is_a_bare_500_and_its_cause_only_in_the_log(
    make_broken_emulator: Emulator,
) -> None:
    with make_broken_emulator.client() as client:
        response = client.post(
            "/api/signup", json={"email": "ada@example.com", "password": "hunter2hunter2"}
        )
    assert response.status_code == 500
    problem = response.json()
    assert problem["code"] == "internal_error"
    assert "users" not in response.text
    assert "42P10" not in response.text
    (line,) = [line for line in make_broken_emulator.log() if line.get("status") == 500]
    assert line["request_id"] == problem["request_id"]
    assert line["severity"] == "ERROR"
    assert line["cause"].startswith("42P10")
    assert line["stack"]


@pytest.fixture
def make_broken_emulator(postgres: Any, database: str) -> Any:
    """An emulator whose unique index is dropped behind its back."""
    with running_emulator(DATABASE_URL=postgres.url(database)) as running:
        with running.client() as client:
            assert client.get("/api/health").json()["database"]["status"] == "connected"
        postgres.run("DROP INDEX idx_users_email_key", database)
        yield running


def test_each_request_is_one_json_line_without_secrets(tmp_path: Any) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    users_file = str(tmp_path / "users.json")
    with running_emulator(USERS_FILE=users_file, GOOGLE_CLOUD_PROJECT="my-project") as emulator:
        with emulator.client(headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"}) as client:
            client.post(
                "/api/signup", json={"email": "canary@example.com", "password": "canary-password"}
            )
            token = client.cookies["session"]
            client.get("/api/user?canary=query")
            client.post("/api/login", json={"email": "canary@example.com", "password": "canary-2"})
            client.post("/api/login", content=b'{"canary', headers=JSON)
            client.get("/api/canary%0A%7B%7D")
        until(lambda: len(emulator.log()) >= 5)
        output = emulator.output()
        lines = [json.loads(line) for line in output.splitlines()]
    assert [line["message"] for line in lines[-5:]] == [
        "signup 201",
        "session 200",
        "login 401",
        "login 400",
        "none 404",
    ]
    for line in lines[-5:]:
        assert {"severity", "time", "request_id", "method", "status", "milliseconds"} <= set(line)
        assert line["logging.googleapis.com/trace"] == f"projects/my-project/traces/{trace}"
    assert "canary" not in output
    assert token not in output
    assert "$2b$" not in output
