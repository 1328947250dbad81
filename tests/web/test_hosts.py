"""Which host a request calls, however it says so."""

from __future__ import annotations

import pytest

from shared.web import hosts


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({"HTTP_HOST": "shop.example.com:8443"}, "shop.example.com:8443"),
        ({}, None),
        # RFC 9112, section 3.2.2: the host of a target that is a whole URL is the one.
        ({"RAW_URI": "http://a.example/api?x=://b", "HTTP_HOST": "b.example"}, "a.example"),
        ({"RAW_URI": "HTTPS://a.example:444", "HTTP_HOST": "b.example"}, "a.example:444"),
        ({"RAW_URI": "/x?u=http://a.example/", "HTTP_HOST": "b.example"}, "b.example"),
        ({"RAW_URI": "ftp://a.example/", "HTTP_HOST": "b.example"}, "b.example"),
        ({"HTTP_X_FORWARDED_HOST": "a.example", "HTTP_HOST": "b.example"}, "b.example"),
    ],
)
def test_the_host_is_that_of_the_target_or_of_the_header(
    environ: dict[str, str], host: str | None
) -> None:
    assert hosts.called(environ, trusts_forwarded=False) == host


@pytest.mark.parametrize(
    ("forwarded", "host"),
    [("a.example", "a.example"), ("evil.example, a.example:8443", "a.example:8443"), ("", "b")],
)
def test_a_proxy_that_is_trusted_tells_the_host_and_its_word_is_the_last(
    forwarded: str, host: str
) -> None:
    environ = {"HTTP_X_FORWARDED_HOST": forwarded, "HTTP_HOST": "b", "RAW_URI": "/"}
    assert hosts.called(environ, trusts_forwarded=True) == host


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Shop.Example.COM.", "shop.example.com"),
        ("shop.example.com:8443", "shop.example.com"),
        ("[2001:DB8::1]:80", "[2001:db8::1]"),
        ("", None),
        (None, None),
        ("shop.example.com@evil.example", None),
        ("shop.example.com/evil", None),
        ("shop.example.com evil", None),
        ("shop.example.com:80:80", None),
        ("käse.example", None),
        ("*", None),
        ("a" * 300, None),
    ],
)
def test_a_host_has_one_spelling_or_is_none(host: str | None, name: str | None) -> None:
    assert hosts.name(host) == name
