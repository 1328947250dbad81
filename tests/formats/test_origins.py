"""Origins have one spelling each, and what no page can have is refused in a sentence."""

from __future__ import annotations

import pytest

from shared.formats import origins
from shared.formats.origins import InvalidOrigin


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.COM", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("https://app.example.com:0443", "https://app.example.com"),
        ("https://app.example.com:", "https://app.example.com"),
        ("https://app.example.com.", "https://app.example.com"),
        ("https://app.example.com.:443", "https://app.example.com"),
        ("https://app.example.com:80", "https://app.example.com:80"),
        ("http://localhost:80", "http://localhost"),
        ("http://LOCALHOST:5173", "http://localhost:5173"),
        ("http://my_host.internal:8080", "http://my_host.internal:8080"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[::1]:80", "http://[::1]"),
        ("http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"),
        ("https://[2001:DB8::A]", "https://[2001:db8::a]"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://BÜCHER.example:443", "https://xn--bcher-kva.example"),
        ("https://XN--BCHER-KVA.example", "https://xn--bcher-kva.example"),
        ("https://straße.example", "https://xn--strae-oqa.example"),
        ("https://例え.jp:8443", "https://xn--r8jz45g.jp:8443"),
        ("https://app\u3002example", "https://app.example"),
    ],
)
def test_one_origin_is_read_from_each_of_its_spellings(written: str, canonical: str) -> None:
    assert str(origins.parse_written(written)) == canonical
    assert origins.parse(canonical) == origins.parse_written(written)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("*", "wildcard"),
        ("https://*.example.com", "wildcard"),
        ("null", "anybody"),
        ("app.example.com", "does not begin with"),
        ("//app.example.com", "does not begin with"),
        ("https:app.example.com", "does not begin with"),
        ("capacitor://localhost", "scheme"),
        ("file:///", "scheme"),
        ("[https://app.example.com]", "scheme"),
        ("https://user:pass@app.example.com", "user name"),
        ("https://app.example.com/", "ends after"),
        ("https://app.example.com/path", "ends after"),
        ("https://app.example.com?x", "ends after"),
        ("https://app.example.com#x", "ends after"),
        ("https://app.example.com\\", "ends after"),
        ("https://app.example.com:99999", "port"),
        ("https://app.example.com:65536", "port"),
        ("https://app.example.com:0", "port"),
        ("https://app.example.com:-1", "port"),
        ("https://app.example.com:http", "port"),
        ("https://app.example.com:٨٠", "port"),
        ("https://", "host"),
        ("https://:443", "host"),
        ("https://.", "host"),
        ("https://a..b", "host"),
        ("https://a%2eb", "host"),
        ("https://a b", "host"),
        ("https://a\0b", "host"),
        (f"https://{'a' * 64}.example", "host"),
        (f"https://{'a.' * 130}example", "host"),
        ("https://127.1", "IPv4"),
        ("https://0x7f.0.0.1", "IPv4"),
        ("https://256.0.0.1", "IPv4"),
        ("https://[::1", "host"),
        ("https://[::g]", "IPv6"),
        ("https://[fe80::1%eth0]", "zone"),
        ("https://☃.example", "ASCII"),
    ],
)
def test_what_no_page_has_is_refused_with_the_reason(written: str, reason: str) -> None:
    with pytest.raises(InvalidOrigin, match=reason) as refusal:
        origins.parse_written(written)
    assert written not in str(refusal.value)
