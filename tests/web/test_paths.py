"""A path has one spelling and its methods, and everything else is a problem."""

from __future__ import annotations

import httpx
import pytest

from tests.support.emulator import Emulator
from tests.support.wire import exchange


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
    status = exchange(emulator, request).split(b" ", 2)[1]
    assert status == (b"400" if target.startswith("%") else b"404")


def test_a_target_that_is_no_path_is_404(emulator: Emulator) -> None:
    for line in (b"OPTIONS *", b"CONNECT x:80", b"CONNECT /api/user:80"):
        answer = exchange(emulator, line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
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
    assert exchange(emulator, request).startswith(b"HTTP/1.1 401 ")
