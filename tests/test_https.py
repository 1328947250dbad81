"""Requests to other hosts from a network that only a proxy leaves."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared import https
from shared.environment import InvalidSettings
from shared.settings import Settings
from tests.support.connect_proxy import ConnectProxy
from tests.support.google import CertificateServer, Key, certificate_server

KEY = Key("key-1")


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CertificateServer]:
    """A server of certificates that this process trusts."""
    with certificate_server(tmp_path, KEY) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.authority.certificate))
        yield server


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    """A proxy that wants a password."""
    with ConnectProxy("p@ss/word").running() as running:
        yield running


def _get(url: str) -> bytes:
    return https.send(url, headers={}, timeout=5)[0]


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize("scheme", ["http://", "HTTP://", ""])
def test_a_request_passes_the_proxy_which_looks_up_the_host(
    google: CertificateServer,
    proxy: ConnectProxy,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    scheme: str,
) -> None:
    def look_up(host: str, *rest: Any) -> Any:
        assert host == "127.0.0.1"
        return original(host, *rest)

    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv(name, f"{scheme}me:p%40ss%2Fword@{proxy.address}")
    assert b"key-1" in _get(google.url)
    assert proxy.asked == [f"localhost:{google.port}"]


@pytest.mark.parametrize(
    ("no_proxy", "is_direct"),
    [
        ("localhost", True),
        ("example.com, .LOCALHOST", True),
        ("*", True),
        ("ocalhost", False),
        ("", False),
    ],
)
def test_hosts_of_no_proxy_are_called_directly(
    google: CertificateServer,
    proxy: ConnectProxy,
    monkeypatch: pytest.MonkeyPatch,
    no_proxy: str,
    is_direct: bool,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss%2Fword@{proxy.address}")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert b"key-1" in _get(google.url)
    assert (proxy.asked == []) == is_direct


# Python 3.11 leaves its answer to CONNECT open until it is collected.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_proxy_that_refuses_or_is_away_is_a_failure_without_its_password(
    google: CertificateServer, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (f"http://me:secret@{proxy.address}", "http://me:secret@127.0.0.1:1"):
        monkeypatch.setenv("HTTPS_PROXY", value)
        with pytest.raises(https.FAILURES) as caught:
            _get(google.url)
        assert "secret" not in str(caught.value)
        del caught
        gc.collect()
    assert google.requests == 0


def test_a_proxy_is_not_believed_to_be_the_host(
    google: CertificateServer, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss%2Fword@{proxy.address}")
    with pytest.raises(ssl.SSLCertVerificationError):
        _get(f"https://www.example.com:{google.port}/certificates")
    assert proxy.asked == [f"www.example.com:{google.port}"]


def test_another_answer_is_told_by_its_status(google: CertificateServer) -> None:
    google.status = 429
    with pytest.raises(https.UnexpectedAnswer) as caught:
        _get(google.url)
    assert caught.value.status == 429


def test_a_host_is_reached_through_the_proxy_too_and_asked_nothing(
    google: CertificateServer, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    https.reach(google.url, timeout=5)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss%2Fword@{proxy.address}")
    https.reach(google.url, timeout=5)
    assert proxy.asked == [f"localhost:{google.port}"]
    with pytest.raises(ssl.SSLCertVerificationError):
        https.reach(f"https://www.example.com:{google.port}/", timeout=5)
    assert google.requests == 0


@pytest.mark.parametrize(
    "value",
    [
        "https://proxy.example.com:3128",
        "socks5://me:secret@127.0.0.1:1080",
        "http://me:secret@",
        "http://me:secret@proxy.example.com:port",
        "http://me:secret@proxy.example.com:99999",
        "http://me:secret@[proxy",
    ],
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_a_proxy_that_cannot_be_used_is_told_at_start_up(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_env({name: value})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name} cannot be used: ")
    assert "secret" not in problem


@pytest.mark.parametrize("value", ["http://proxy.example.com", "proxy:3128", "http://[::1]:1", " "])
def test_any_other_proxy_is_no_reason_not_to_start(value: str) -> None:
    Settings.from_env({"HTTPS_PROXY": value})
