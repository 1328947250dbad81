"""Mail by a hook, over real HTTPS: what it gets, its signature, and what its answers mean."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import time
from collections.abc import Iterator

import pytest

from shared.environment import Environment
from shared.mail.message import Message
from shared.mail.settings import MailSettings
from shared.mail.transport import NotDelivered, Refused
from tests.support.connect_proxy import ConnectProxy
from tests.support.mail_servers import (
    HOOK_PATH,
    MESSAGE,
    SECONDS,
    Certificates,
    MailHook,
    failure,
    transport,
)

KEYS = (b"k" * 32, b"new" * 16)
SECRETS = ", ".join(f"whsec_{base64.b64encode(key).decode()}" for key in KEYS)
_opened = functools.partial(transport, MAIL_HOOK_SECRET=SECRETS, MAIL_REPLY_TO="me@x.example")


@pytest.fixture
def hook(certificates: Certificates) -> Iterator[MailHook]:
    """One that this process trusts."""
    with MailHook(certificates.context()).running() as running:
        yield running


def _send(url: str, message: Message = MESSAGE) -> None:
    _opened(url).send(message, time.monotonic() + SECONDS)


def test_a_hook_gets_the_mail_as_json_signed_by_every_secret(hook: MailHook) -> None:
    _send(hook.url, MESSAGE._replace(recipient="bob@bücher.example"))
    ((headers, body),) = hook.received
    event = json.loads(body)
    assert event["type"] == "mail.password_reset"
    assert event["timestamp"].endswith("Z")
    assert event["data"] == {
        "from": {"name": "AI-Coder", "address": "no-reply@xn--bcher-kva.example"},
        "reply_to": {"name": "", "address": "me@x.example"},
        "to": "bob@xn--bcher-kva.example",
        "locale": "en",
        "subject": MESSAGE.subject,
        "text": MESSAGE.text,
        "html": MESSAGE.html,
    }
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == MESSAGE.id
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = f"{MESSAGE.id}.{headers['webhook-timestamp']}.".encode() + body
    expected = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in KEYS]
    assert headers["webhook-signature"].split(" ") == [f"v1,{it.decode()}" for it in expected]


def test_a_signature_is_that_of_the_specifications_example() -> None:
    from shared.mail.hook import HookTransport
    from shared.mail.url import Hook, parse_hook_secrets

    keys = parse_hook_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    settings = MailSettings.read(Environment({}))
    opened = HookTransport(Hook("x", "https://x", keys), settings)
    signed = b'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}'
    assert opened._signatures(signed) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_2xx_is_a_delivery_whatever_is_said_with_it(hook: MailHook, status: int) -> None:
    hook.status = status
    hook.body = b"x" * 100_000 if status == 200 else b""
    _send(hook.url)
    assert len(hook.received) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (422, Refused),
        (400, NotDelivered),
        (401, NotDelivered),
        (403, NotDelivered),
        (404, NotDelivered),
        (408, NotDelivered),
        (410, NotDelivered),
        (429, NotDelivered),
        (500, NotDelivered),
        (503, NotDelivered),
        (302, NotDelivered),
        (307, NotDelivered),
    ],
)
def test_only_422_is_final_and_no_redirect_is_followed(
    hook: MailHook, status: int, kind: type[NotDelivered | Refused]
) -> None:
    hook.status = status
    assert f"The mail hook localhost {'refuses' if kind is Refused else 'did not'}" in (
        cause := failure(_opened(hook.url), kind=kind)
    )
    assert f"(status {status})" in cause
    assert len(hook.received) == 1


def test_a_hook_that_does_not_answer_ends_with_the_deadline(hook: MailHook) -> None:
    hook.may_answer.clear()
    began = time.monotonic()
    cause = failure(_opened(hook.url), seconds=0.5)
    hook.may_answer.set()
    assert time.monotonic() - began < SECONDS / 2
    assert "localhost did not answer in time" in cause


def test_a_hook_that_is_away_or_is_somebody_else_is_told(
    certificates: Certificates, hook: MailHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "refuses connections" in failure(_opened(f"https://localhost:1{HOOK_PATH}"))
    assert "by its name" in failure(_opened(f"https://hook.invalid{HOOK_PATH}"))
    wrong_name = f"https://127.0.0.1:{hook.port}{HOOK_PATH}"
    assert "certificate that is not valid for this host" in failure(_opened(wrong_name))
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "certificate that is not valid for this host" in failure(_opened(hook.url))
    assert hook.received == []


def test_an_address_that_is_none_is_refused_and_not_posted(hook: MailHook) -> None:
    failure(
        _opened(hook.url), MESSAGE._replace(recipient="bob.canary\r\n@example.com"), kind=Refused
    )
    assert hook.received == []


def test_a_hook_is_called_through_the_proxy(
    hook: MailHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectProxy().running() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        _send(hook.url)
    assert proxy.asked == [f"localhost:{hook.port}"]
    assert len(hook.received) == 1


def test_to_reach_a_hook_is_to_post_nothing(hook: MailHook) -> None:
    _opened(hook.url).reach(time.monotonic() + SECONDS)
    assert hook.received == []
