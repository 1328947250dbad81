"""Who asks: the trusted end of X-Forwarded-For, and nothing that the caller wrote."""

from __future__ import annotations

import pytest

from shared.model import clients
from shared.model.clients import NOT_APPENDED, TOO_FEW, TOO_MANY, UNSET, Client

PEER = "192.0.2.1"
PROXIES = "198.51.100.7, 198.51.100.8"


@pytest.mark.parametrize(
    ("header", "trusted_proxies", "address"),
    [
        (None, 0, PEER),
        ("203.0.113.9", 0, PEER),
        (None, 1, PEER),
        ("", 1, PEER),
        ("203.0.113.9", 1, "203.0.113.9"),
        ("10.0.0.1, 203.0.113.9", 1, "203.0.113.9"),
        ("10.0.0.1,203.0.113.9", 1, "203.0.113.9"),
        ("10.0.0.1\t,\t203.0.113.9 ", 1, "203.0.113.9"),
        ("203.0.113.9", 2, PEER),
        ("203.0.113.9, 198.51.100.7", 2, "203.0.113.9"),
        ("10.0.0.1, 203.0.113.9, 198.51.100.7", 2, "203.0.113.9"),
        (f"10.0.0.1, 203.0.113.9, {PROXIES}", 3, "203.0.113.9"),
        (PROXIES, 3, PEER),
    ],
)
def test_the_address_is_as_many_elements_from_the_right_as_there_are_trusted_proxies(
    header: str | None, trusted_proxies: int, address: str
) -> None:
    assert clients.find(header, PEER, trusted_proxies) == Client(address)


@pytest.mark.parametrize(
    "written",
    [
        "",
        ",",
        "10.0.0.1",
        "10.0.0.1,,,,",
        "unknown",
        "_hidden",
        "for=10.0.0.1",
        '"[2001:db8::1]:80"',
        "\x00",
        "1" * 8000,
        ", ".join(["10.0.0.1"] * 10_000),
        "," * 10_000,
    ],
)
@pytest.mark.parametrize("trusted_proxies", [1, 2])
def test_nothing_that_the_caller_writes_moves_the_trusted_element(
    written: str, trusted_proxies: int
) -> None:
    appended = ", ".join(["203.0.113.9", "198.51.100.7"][:trusted_proxies])
    for header in (f"{written}, {appended}", f"{written},{appended}"):
        assert clients.find(header, PEER, trusted_proxies) == Client("203.0.113.9")


@pytest.mark.parametrize(
    "element",
    [
        "",
        " ",
        "unknown",
        "localhost",
        "203.0.113",
        "203.0.113.9.1",
        "203.0.113.256",
        "203.0.113.09",
        "0xcb.0.113.9",
        "3405803777",
        "٢٠٣.0.113.9",
        "203.0.113.9:port",
        "203.0.113.9:٨٠",
        "203.0.113.9:80:80",
        "203.0.113.9/24",
        "203.0.113.9 203.0.113.10",
        "for=203.0.113.9",
        "[203.0.113.9",
        "[]",
        "[]:80",
        "2001:db8::1]:80",
        "2001:db8:::1",
        ":80",
        "%eth0",
    ],
)
def test_what_is_no_address_gives_way_to_the_sockets(element: str) -> None:
    assert clients.find(element, PEER, 1) == Client(PEER)
    assert clients.find(f"203.0.113.9, {element}", PEER, 1) == Client(PEER)
    assert clients.find(f"{element}, 198.51.100.7", PEER, 2) == Client(PEER)


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("203.0.113.9:1234", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:0DB8:0::0001", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]:443", "fe80::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("::FFFF:cb00:7109", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:80", "203.0.113.9"),
    ],
)
def test_one_address_is_one_client_however_a_proxy_or_a_socket_writes_it(
    written: str, address: str
) -> None:
    assert clients.find(written, PEER, 1) == Client(address)
    assert clients.find(None, written, 0) == Client(address)


@pytest.mark.parametrize("peer", [None, "", "unix:", "@"])
def test_a_socket_without_an_address_is_one_client_like_another(peer: str | None) -> None:
    assert clients.find(None, peer, 1).coarse == "0.0.0.0/24"


@pytest.mark.parametrize(
    ("address", "network", "coarse"),
    [
        ("203.0.113.9", "203.0.113.9", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("::1", "::/64", "::/48"),
    ],
)
def test_networks_stand_for_an_address(address: str, network: str, coarse: str) -> None:
    client = Client(address)
    assert (client.network, client.coarse) == (network, coarse)


@pytest.mark.parametrize(
    ("header", "trusted_proxies", "is_proxied", "doubt"),
    [
        (None, None, False, None),
        ("1.1.1.1", None, False, UNSET),
        ("", None, False, UNSET),
        ("1.1.1.1", 0, True, None),
        (None, 0, True, None),
        (None, None, True, NOT_APPENDED),
        (None, 1, True, NOT_APPENDED),
        (None, 1, False, None),
        ("1.1.1.1", 1, True, None),
        ("10.0.0.1", 1, True, None),
        ("8.8.8.8, 1.1.1.1", 1, True, None),
        ("1.1.1.1, 10.0.0.2", 1, True, TOO_FEW),
        ("1.1.1.1, 100.64.0.2", 1, True, TOO_FEW),
        ("2606:4700::1111, [fd00::2]:443", 1, True, TOO_FEW),
        ("1.1.1.1, 10.0.0.2", 2, True, None),
        ("1.1.1.1", 2, True, TOO_MANY),
        ("", 1, True, TOO_MANY),
        ("unknown", 1, True, TOO_MANY),
        ("_hidden, 10.0.0.2", 2, True, TOO_MANY),
    ],
)
def test_a_number_of_proxies_that_makes_one_client_of_many_is_doubted(
    header: str | None, trusted_proxies: int | None, is_proxied: bool, doubt: str | None
) -> None:
    assert clients.doubt(header, trusted_proxies, is_proxied=is_proxied) == doubt
