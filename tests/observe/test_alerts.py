"""When an alert fires, when it is over, and that each change is told once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.observe.alerts import CHECK_SECONDS, MIN_REQUESTS, MINUTES, Alerts
from shared.observe.settings import AlertSettings
from tests.support.emulator import ROOT, running_emulator
from tests.support.postgres import Server
from tests.support.relay import Relay
from tests.support.waiting import until
from tests.support.webhook import SECRET, Webhook

NOW = 1_800_000_000.0
WINDOW = MINUTES * 60
ADA = {"email": "ada@example.com", "password": "correct horse battery staple"}


@pytest.fixture
def webhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """A webhook whose certificate this process believes."""
    with Webhook(tmp_path).running() as running:
        monkeypatch.setenv("SSL_CERT_FILE", running.certificate)
        yield running


def _alerts(**thresholds: float) -> Alerts:
    nothing = {"error_rate": 0, "database_away": 0, "failed_logins": 0, "slow_login": 0}
    return Alerts(AlertSettings(**nothing | thresholds))  # type: ignore[arg-type]


def _firing(alerts: Alerts, away: float | None = None, now: float = NOW) -> set[str]:
    return {alert.name for alert in alerts.judge(away, 0, now) if alert.is_firing}


def test_a_mail_that_waits_for_more_than_a_quarter_of_an_hour_fires_until_it_is_gone() -> None:
    alerts = _alerts()
    for unsent, firing in ((0.0, set()), (900.0, set()), (901.0, {"mail_stuck"}), (0.0, set())):
        judged = alerts.judge(None, unsent, NOW)
        assert {alert.name for alert in judged if alert.is_firing} == firing, unsent


def _since(alerts: Alerts, away: float | None, now: float) -> float | None:
    (alert,) = (a for a in alerts.judge(away, 0, now) if a.name == "database_away")
    return alert.since


def _serve(
    alerts: Alerts, number: int, status: int = 200, *, seconds: float = 0.1, client: str = "c"
) -> None:
    for _ in range(number):
        alerts.record("login", status, seconds, client, NOW)


def test_a_rate_of_errors_fires_from_its_threshold_on_and_is_over_with_its_minutes(
    webhook: Webhook,
) -> None:
    alerts = _alerts(error_rate=0.1)
    _serve(alerts, 91)
    _serve(alerts, 9, 503)
    alerts.check(None, 0, webhook.url, NOW)
    assert _firing(alerts) == set()
    _serve(alerts, 2, 500)
    for later in range(3):
        alerts.check(None, 0, webhook.url, NOW + 6 * later)
    assert _firing(alerts, None, NOW + 12) == {"error_rate"}
    assert webhook.states() == [("error_rate", "firing")]
    (told,) = webhook.told
    assert told["text"] == "firing: 10.8% of 102 requests failed with 5xx in the last 5 minutes."
    assert told["at"].endswith("Z")
    alerts.check(None, 0, webhook.url, NOW + WINDOW)
    assert _firing(alerts, None, NOW + WINDOW) == set()
    assert webhook.states() == [("error_rate", "firing"), ("error_rate", "resolved")]


def test_what_no_function_takes_is_no_failure_of_ours() -> None:
    alerts = _alerts(error_rate=0.1)
    _serve(alerts, 1000, 501)
    assert _firing(alerts) == set()


def test_few_requests_are_no_rate() -> None:
    alerts = _alerts(error_rate=0.1, slow_login=1)
    _serve(alerts, MIN_REQUESTS // 2, 500)
    _serve(alerts, MIN_REQUESTS // 2 - 1, seconds=9)
    assert _firing(alerts) == set()
    _serve(alerts, 1, seconds=9)
    assert _firing(alerts) == {"error_rate"}


def test_failed_logins_are_counted_by_network(webhook: Webhook) -> None:
    alerts = _alerts(failed_logins=50)
    for network in range(100):
        _serve(alerts, 49, 401, client=f"10.0.{network}.0/24")
    alerts.check(None, 0, webhook.url, NOW)
    assert _firing(alerts) == set()
    _serve(alerts, 1, 429, client="10.0.7.0/24")
    alerts.check(None, 0, webhook.url, NOW)
    text = "firing: 50 failed sign-ins from 10.0.7.0/24 in the last 5 minutes."
    assert webhook.told[0]["text"] == text


def test_one_failed_login_is_one_sign_in(webhook: Webhook) -> None:
    alerts = _alerts(failed_logins=1)
    _serve(alerts, 1, 401, client="10.0.7.0/24")
    alerts.check(None, 0, webhook.url, NOW)
    text = "firing: 1 failed sign-in from 10.0.7.0/24 in the last 5 minutes."
    assert webhook.told[0]["text"] == text


def test_one_slow_login_of_twenty_fires() -> None:
    alerts = _alerts(slow_login=2)
    _serve(alerts, 96)
    _serve(alerts, 4, seconds=2.1)
    assert _firing(alerts) == set()
    _serve(alerts, 2, seconds=2.1)
    assert _firing(alerts) == {"slow_login"}


def test_an_absent_database_fires_after_its_time_and_ends_with_its_return() -> None:
    alerts = _alerts(database_away=60)
    assert _firing(alerts, 59) == set()
    before = time.time()
    assert _firing(alerts, 60) == {"database_away"}
    began = time.time()
    assert before <= (_since(alerts, 61, NOW + 1) or 0) <= began
    assert _firing(alerts, None, NOW + 2) == set()
    assert began <= (_since(alerts, None, NOW + 3) or 0) <= time.time()


def test_a_threshold_of_zero_is_off() -> None:
    alerts = _alerts()
    _serve(alerts, 1000, 503)
    _serve(alerts, 1000, 401)
    _serve(alerts, 1000, seconds=100)
    assert _firing(alerts, 10**6) == set()


@pytest.mark.parametrize("status", [302, 404, 500])
def test_what_the_webhook_did_not_take_is_told_again_and_its_secret_is_not_in_the_log(
    webhook: Webhook, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    alerts = _alerts(database_away=60)
    webhook.status = status
    alerts.check(60, 0, webhook.url, NOW)
    assert _firing(alerts, 60) == {"database_away"}
    webhook.status = 200
    for _ in range(2):
        alerts.check(60, 0, webhook.url, NOW)
    assert webhook.states() == [("database_away", "firing")]
    output = capsys.readouterr().out
    first, second = (json.loads(line) for line in output.splitlines())
    assert (first["severity"], first["alert"]) == ("ERROR", "database_away")
    assert second["message"] == "The webhook did not accept an alert"
    assert SECRET not in output


def test_while_the_webhook_is_silent_it_is_told_once_and_everybody_else_knows(
    webhook: Webhook,
) -> None:
    alerts = _alerts(database_away=60)
    webhook.is_answering.clear()
    telling = threading.Thread(target=alerts.check, args=(60, 0, webhook.url, NOW))
    telling.start()
    until(lambda: webhook.told)
    alerts.check(60, 0, webhook.url, NOW)
    assert _firing(alerts, 60) == {"database_away"}
    assert telling.is_alive()
    webhook.is_answering.set()
    telling.join()
    assert webhook.states() == [("database_away", "firing")]


def test_a_check_is_due_at_once_and_then_every_few_seconds() -> None:
    alerts = _alerts()
    assert alerts.is_due(NOW)
    alerts.check(None, 0, None, NOW)
    assert not alerts.is_due(NOW + CHECK_SECONDS / 2)
    assert alerts.is_due(NOW + CHECK_SECONDS)


def test_a_worker_tells_of_its_database_and_of_guessing_once_each(
    webhook: Webhook, postgres: Server, database: str, relay: Relay
) -> None:
    with (
        running_emulator(
            source=f"{ROOT}/tests/support/alerting_functions.py",
            DATABASE_URL=postgres.url(database, port=relay.port),
            ALERT_WEBHOOK_URL=webhook.url,
            ALERT_DATABASE_AWAY="0.01",
            ALERT_FAILED_LOGINS="5",
            ALERT_ERROR_RATE="0",
            SSL_CERT_FILE=webhook.certificate,
        ) as emulator,
        emulator.client() as client,
    ):
        client.post("/api/signup", json=ADA)
        for _ in range(5):
            client.post("/api/login", json=ADA | {"password": "wrong"})
        until(lambda: client.get("/api/livez") and len(webhook.told) == 1)
        relay.hang_up = 10**9
        relay.cut()
        assert client.post("/api/login", json=ADA).status_code == 503
        until(lambda: client.get("/api/livez") and len(webhook.told) == 2)
        relay.hang_up = 0
        until(lambda: client.get("/api/livez") and len(webhook.told) == 3)
        assert client.post("/api/login", json=ADA).status_code == 200
        output = emulator.output()
    assert webhook.states() == [
        ("failed_logins", "firing"),
        ("database_away", "firing"),
        ("database_away", "resolved"),
    ]
    assert SECRET not in output
