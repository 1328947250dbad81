"""When a provider is asked for its certificates, and what is used while it doesn't answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.credentials import certificates
from shared.credentials.certificates import Certificates
from shared.errors import IdentityUnavailable
from tests.support.google import MAX_AGE, CertificateServer, Key, certificate_server

KEY, OTHER_KEY = Key("key-1"), Key("key-2")
NOW = 1_800_000_000.0
DAY = 24 * 60 * 60


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CertificateServer]:
    """A server of certificates that this process trusts."""
    with certificate_server(tmp_path, KEY) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.authority.certificate))
        yield server


@pytest.fixture
def kept(google: CertificateServer) -> Certificates:
    return Certificates(google.url)


def _unavailable(kept: Certificates, kid: str, now: float) -> str:
    with pytest.raises(IdentityUnavailable) as caught:
        kept.get(kid, now)
    return str(caught.value.cause)


def _in_threads(count: int, call: Callable[[], Any]) -> list[Any]:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_certificates_are_kept_for_their_max_age(
    kept: Certificates, google: CertificateServer
) -> None:
    for later in (0, 1, 2, MAX_AGE - 1):
        assert kept.get("key-1", NOW + later) == KEY.certificate
    assert google.requests == 1
    kept.get("key-1", NOW + MAX_AGE)
    assert google.requests == 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Cache-Control": "max-age=100", "Age": "40"}, 60),
        ({"Cache-Control": "max-age=100", "Age": "nonsense"}, 100),
        ({"Cache-Control": "max-age=100", "Age": "9" * 5000}, 100),
        ({"Cache-Control": "max-age=100", "Age": "200"}, 10),
        ({"Cache-Control": "no-cache"}, 10),
        ({"Cache-Control": "max-age=0"}, 10),
        ({}, 10),
        ({"Cache-Control": "max-age=999999999"}, DAY),
    ],
)
def test_how_long_certificates_are_kept_has_a_lower_and_an_upper_bound(
    kept: Certificates, google: CertificateServer, headers: dict[str, str], seconds: int
) -> None:
    google.headers = headers
    kept.get("key-1", NOW)
    kept.get("key-1", NOW + seconds - 1)
    assert google.requests == 1
    kept.get("key-1", NOW + seconds)
    assert google.requests == 2


def test_a_new_key_is_noticed_but_invented_ones_do_not_hammer_the_provider(
    kept: Certificates, google: CertificateServer
) -> None:
    kept.get("key-1", NOW)
    google.keys.append(OTHER_KEY)
    for number in range(100):
        assert kept.get(f"invented-{number}", NOW + number) is None
    assert kept.get("key-2", NOW + 179) is None
    assert google.requests == 1
    assert kept.get("key-2", NOW + 180) == OTHER_KEY.certificate
    assert kept.get("invented", NOW + 359) is None
    assert google.requests == 2


def test_a_key_that_the_provider_has_withdrawn_is_none_of_its_own(
    kept: Certificates, google: CertificateServer
) -> None:
    kept.get("key-1", NOW)
    google.keys[:] = [OTHER_KEY]
    assert kept.get("key-1", NOW + MAX_AGE) is None


@pytest.mark.parametrize("kid", ["key-1", "invented"])
def test_many_threads_need_one_fetch(
    kept: Certificates, google: CertificateServer, kid: str
) -> None:
    google.pause = 0.2
    expected = KEY.certificate if kid == "key-1" else None
    assert _in_threads(16, lambda: kept.get(kid, NOW)) == [expected] * 16
    assert google.requests == 1


def test_without_certificates_nothing_is_known_and_the_provider_is_asked_rarely(
    kept: Certificates, google: CertificateServer
) -> None:
    google.status = 500
    for later in (0, 0, 5, 9):
        assert "status 500" in _unavailable(kept, "key-1", NOW + later)
        assert "status 500" in _unavailable(kept, "key-2", NOW + later)
    assert google.requests == 1
    google.status = 200
    assert kept.get("key-1", NOW + 10) == KEY.certificate
    assert kept.get("key-2", NOW + 11) is None
    assert google.requests == 2


def test_stale_certificates_are_used_for_a_day_while_the_provider_fails_and_this_is_logged(
    kept: Certificates, google: CertificateServer, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.get("key-1", NOW)
    assert capsys.readouterr().out == ""
    google.status = 503
    for later in range(30):
        assert kept.get("key-1", NOW + MAX_AGE + later) == KEY.certificate
    assert google.requests == 1 + 3
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["severity"] for line in lines] == ["WARNING"] * 3
    assert "status 503" in lines[0]["cause"]
    assert kept.get("key-1", NOW + MAX_AGE + DAY - 1) == KEY.certificate
    assert "status 503" in _unavailable(kept, "key-1", NOW + MAX_AGE + DAY)
    google.status = 200
    assert kept.get("key-1", NOW + MAX_AGE + DAY + 10) == KEY.certificate


def test_an_answer_after_a_failure_ends_the_use_of_stale_certificates(
    kept: Certificates, google: CertificateServer
) -> None:
    kept.get("key-1", NOW)
    google.status = 503
    assert kept.get("key-1", NOW + MAX_AGE) == KEY.certificate
    google.status, google.keys[:] = 200, [OTHER_KEY]
    assert kept.get("key-1", NOW + MAX_AGE + 9) == KEY.certificate
    assert kept.get("key-1", NOW + MAX_AGE + 10) is None
    assert kept.get("key-2", NOW + MAX_AGE + 10) == OTHER_KEY.certificate


def test_only_names_that_are_not_kept_wait_for_a_provider_that_is_gone(
    kept: Certificates, google: CertificateServer
) -> None:
    kept.get("key-1", NOW)
    google.stop()
    assert kept.get("key-1", NOW + 200) == KEY.certificate
    _unavailable(kept, "key-2", NOW + 200)
    assert kept.get("key-1", NOW + 201) == KEY.certificate
    _unavailable(kept, "key-2", NOW + 201)


def test_while_one_asks_the_others_go_on_with_what_is_stale(
    kept: Certificates, google: CertificateServer
) -> None:
    kept.get("key-1", NOW)
    asked, answer = threading.Event(), threading.Event()

    def hold() -> None:
        asked.set()
        answer.wait(10)

    google.before_answering = hold
    asking = threading.Thread(target=kept.get, args=("key-1", NOW + MAX_AGE))
    asking.start()
    assert asked.wait(10)
    try:
        assert kept.get("key-1", NOW + MAX_AGE) == KEY.certificate
        assert asking.is_alive()
    finally:
        answer.set()
        asking.join()
    assert google.requests == 2


def test_who_has_only_what_is_too_old_waits_for_the_one_who_asks(
    kept: Certificates, google: CertificateServer
) -> None:
    kept.get("key-1", NOW)
    google.pause = 0.2
    too_late = NOW + MAX_AGE + DAY
    assert _in_threads(8, lambda: kept.get("key-1", too_late)) == [KEY.certificate] * 8
    assert google.requests == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"key-1": 7}',
        b'{"key-1": "no certificate"}',
        b'{"keys": []}',
        b'{"key-1": "' + b"x" * 70_000 + b'"}',
        b"[" * 50_000,
        json.dumps({"key-1": KEY.certificate}).encode()[:-1] + b', "key-1": ""}',
    ],
)
def test_an_answer_that_is_no_set_of_certificates_counts_as_none(
    kept: Certificates, google: CertificateServer, body: bytes
) -> None:
    kept.get("key-1", NOW)
    google.body = body
    assert kept.get("key-1", NOW + MAX_AGE) == KEY.certificate
    _unavailable(kept, "key-2", NOW + MAX_AGE)
    assert google.requests == 2


def test_a_redirect_is_not_followed(kept: Certificates, google: CertificateServer) -> None:
    google.status, google.headers = 302, {"Location": google.url}
    assert "status 302" in _unavailable(kept, "key-1", NOW)
    assert google.requests == 1


def test_a_slow_provider_is_given_up_at_the_deadline(
    kept: Certificates, google: CertificateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "FETCH_SECONDS", 0.1)
    google.pause = 0.5
    assert "no answer within 0.1 s" in _unavailable(kept, "key-1", NOW)


def test_certificates_come_over_verified_tls_only(
    google: CertificateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Certificates(google.url.replace("https", "http"))
    assert "https" in _unavailable(plain, "key-1", NOW)
    other_name = Certificates(google.url.replace("localhost", "127.0.0.1"))
    assert "CERTIFICATE_VERIFY_FAILED" in _unavailable(other_name, "key-1", NOW)
    monkeypatch.delenv("SSL_CERT_FILE")
    untrusted = Certificates(google.url)
    assert "CERTIFICATE_VERIFY_FAILED" in _unavailable(untrusted, "key-1", NOW)
    assert google.requests == 0
