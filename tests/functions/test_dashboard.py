"""The dashboard in a real browser, with 10,000 users and a month of events."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from functions.pages import charts
from tests.support.browser import axe, open_page, screenshot
from tests.support.emulator import Emulator, running_emulator
from tests.support.in_process import served
from tests.support.postgres import Server
from tests.support.relay import FORWARD, REFUSE, Relay
from tests.support.waiting import until

TOKEN = "ZGFzaGJvYXJkIG9mIHRoZSB0ZXN0cywgbm9ib2R5IGVsc2U"
ADMIN = {"username": "anybody", "password": TOKEN}
USERS, DAYS = 10_000, 30
_FILL = f"""
INSERT INTO users (email, email_key, provider, created_at)
SELECT n || '@example.com', n || '@example.com', CASE WHEN n % 7 = 0 THEN 'google' ELSE 'local' END,
    CURRENT_TIMESTAMP - n % {DAYS} * interval '1 day'
FROM generate_series(1, {USERS}) n;
INSERT INTO auth_events (at, kind, user_id, client, provider)
SELECT CURRENT_TIMESTAMP - n % {DAYS} * interval '1 day',
    CASE WHEN n % 7 = 0 THEN 'login_failed' ELSE 'login' END, NULL, '203.0.113.0/24', 'local'
FROM generate_series(1, {4 * USERS}) n
"""


@pytest.fixture(scope="module")
def relay(postgres: Server) -> Iterator[Relay]:
    """A relay before the server."""
    with Relay(postgres.port) as running:
        yield running


@pytest.fixture(scope="module")
def full(postgres: Server, make_database: object, relay: Relay) -> Iterator[Emulator]:
    """An emulator whose database has users and events."""
    database = make_database()  # type: ignore[operator]
    with running_emulator(
        DATABASE_URL=postgres.url(database, port=relay.port),
        ADMIN_TOKEN=TOKEN,
        ALERT_FAILED_LOGINS="3",
        FALLBACK="readonly",
    ) as running:
        with running.client() as client:
            for _ in range(3):
                client.post("/api/login", json={"email": "a@example.com", "password": "wrong"})
        postgres.run("DELETE FROM auth_events", database)
        for statement in _FILL.split(";"):
            postgres.run(statement, database)
        yield running


@pytest.fixture
def page(browser: Browser, full: Emulator) -> Iterator[Page]:
    """The dashboard, as an administrator sees it."""
    with open_page(browser, full.url, http_credentials=ADMIN) as opened:
        opened.goto("/api/dashboard")
        yield opened


def _figure(page: Page, name: str) -> Locator:
    return page.locator("figure").filter(has=page.get_by_text(name, exact=True))


def _number(page: Page, term: str) -> str:
    return (
        page.locator("dl div")
        .filter(has=page.get_by_text(term, exact=True))
        .locator("dd")
        .inner_text()
    )


def test_it_shows_what_there_is_without_a_script_or_a_complaint(page: Page) -> None:
    assert _number(page, "users") == f"{USERS:,}"
    assert _number(page, "database") == "Connected"
    assert _number(page, "pending sign-ups") == "0"
    assert re.fullmatch(r"\d+, \d+ idle, 0 waiting", _number(page, "connections"))
    for name, rectangles in (
        ("Registrations by day", 2 * DAYS),
        ("Logins and failed logins by day", 2 * DAYS),
        ("Logins by day of the week and hour", 7 * 24),
        ("Users by provider", 2),
    ):
        assert _figure(page, name).locator("rect").count() == rectangles, name
    assert page.locator("script").count() == 0
    row = page.get_by_role("row").filter(has_text="login requests")
    assert "3" in row.locator("td").first.inner_text()
    assert re.fullmatch(r"[\d.]+ ms", row.locator("td").nth(2).inner_text())
    screenshot(page, "dashboard")


def test_the_columns_are_as_high_as_their_numbers(page: Page) -> None:
    figure = _figure(page, "Registrations by day")
    today = datetime.now(UTC).date()
    expected = []
    for back in range(DAYS):
        of_day = [n for n in range(1, USERS + 1) if n % DAYS == back]
        google = sum(n % 7 == 0 for n in of_day)
        day = (today - timedelta(days=back)).isoformat()
        expected += [(f"{day}: {len(of_day) - google} local", len(of_day) - google)]
        expected += [(f"{day}: {google} google", google)] if google else []
    top = int(figure.locator("svg text").first.text_content() or "")
    found = {
        bar.locator("title").text_content(): float(bar.get_attribute("height") or "")
        for bar in figure.locator("rect").all()
    }
    for label, number in expected:
        assert found[label] == pytest.approx(charts.HEIGHT * number / top, abs=0.01)


def test_numbers_are_there_as_a_table_too(page: Page) -> None:
    figure = _figure(page, "Logins and failed logins by day")
    figure.get_by_text("As a table").click()
    rows = figure.locator("tbody tr")
    assert rows.count() == DAYS
    cells = [int(text) for text in rows.locator("td").all_inner_texts()]
    assert sum(cells[::2]) == 4 * USERS - 4 * USERS // 7
    assert sum(cells[1::2]) == 4 * USERS // 7


def test_an_alert_that_fires_is_said_in_words(page: Page) -> None:
    expect(page.locator(".firing")).to_contain_text("Firing: failed logins.")
    expect(page.locator(".quiet")).to_have_count(3)


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 1280),
        ("dark", 320),
        pytest.param("light", 320, marks=pytest.mark.long),
        pytest.param("dark", 1280, marks=pytest.mark.long),
    ],
)
def test_everybody_can_read_it(browser: Browser, full: Emulator, scheme: str, width: int) -> None:
    with open_page(
        browser,
        full.url,
        http_credentials=ADMIN,
        color_scheme=scheme,
        viewport={"width": width, "height": 800},
    ) as page:
        page.goto("/api/dashboard")
        for summary in page.locator("summary").all():
            summary.click()
        assert axe(page) == []
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0
        screenshot(page, f"dashboard-{scheme}-{width}")


@pytest.mark.tcp("a start is waited for longer than a refused connection")
def test_in_an_outage_it_says_so_and_shows_what_the_process_knows(
    browser: Browser, full: Emulator, relay: Relay
) -> None:
    with open_page(browser, full.url, http_credentials=ADMIN) as page:
        relay.mode = REFUSE
        relay.cut()
        try:
            page.goto("/api/dashboard")
            expect(page.get_by_role("status")).to_contain_text("No statistics available")
            page.reload()
            assert _number(page, "database").startswith("Unreachable since")
            assert page.get_by_role("row").filter(has_text="login requests").count() == 1
            screenshot(page, "dashboard-outage")
        finally:
            relay.mode = FORWARD
    with full.client() as client:  # The others in this file are served by the same process.
        headers = {"Authorization": f"Bearer {TOKEN}"}
        until(lambda: client.get("/api/stats", headers=headers).status_code == 200)


def test_on_the_json_store_it_shows_users_and_no_logins(browser: Browser, tmp_path: Path) -> None:
    settings = {"USERS_FILE": str(tmp_path / "users.json"), "ADMIN_TOKEN": TOKEN}
    with (
        running_emulator(**settings, ENVIRONMENT="development") as emulator,
        open_page(browser, emulator.url, http_credentials=ADMIN) as page,
    ):
        page.goto("/api/dashboard")
        assert _number(page, "users") == "0"
        assert _number(page, "waiting") == "0"  # Of the mails.
        expect(page.get_by_text("The JSON store has no audit")).to_be_visible()
        assert axe(page) == []


def test_each_of_many_providers_is_in_a_series_that_has_a_colour_and_a_name(
    browser: Browser, tmp_path: Path
) -> None:
    providers = ["local", "google", "firebase-google", "x" * 50, "oidc", "saml", "<b>&amp;"]
    now = datetime.now(UTC).isoformat()
    file = tmp_path / "users.json"
    file.write_text(
        json.dumps(
            [
                {
                    "id": str(uuid.uuid4()),
                    "email": f"{number}.{index}@example.com",
                    "provider": provider,
                    "createdAt": now,
                }
                for index, provider in enumerate(providers)
                for number in range(10 - index)
            ]
        )
    )
    narrow = {"width": 320, "height": 640}
    with (
        served(USERS_FILE=str(file), ADMIN_TOKEN=TOKEN) as app,
        open_page(browser, "http://localhost", color_scheme="dark", viewport=narrow) as page,
    ):
        authorization = {"Authorization": f"Bearer {TOKEN}"}
        html = app.send("GET", "/api/dashboard", authorization.items()).get_data(as_text=True)
        page.set_content(html)
        figure = _figure(page, "Registrations by day")
        names = ["local", "google", "firebase-google", "x" * 50, "3 others"]
        assert figure.locator(".legend li").all_inner_texts() == names
        assert _figure(page, "Users by provider").locator("th").all_inner_texts() == names
        assert _figure(page, "Users by provider").locator("td:nth-child(2)").all_inner_texts() == [
            *("10", "9", "8", "7"),
            "15",
        ]
        for shapes, style in (("rect", "fill"), (".key", "backgroundColor")):
            colours = figure.locator(shapes).evaluate_all(
                f"(found) => found.map((one) => getComputedStyle(one).{style})"
            )
            assert len(set(colours)) == len(names) == len(colours)
            assert not {"rgb(0, 0, 0)", "rgba(0, 0, 0, 0)", "none"} & set(colours)
        assert axe(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= narrow["width"]


@pytest.mark.parametrize("path", ["/api/dashboard", "/api/stats", "/api/metrics"])
def test_a_browser_is_asked_for_the_token_where_it_only_reads(full: Emulator, path: str) -> None:
    with full.client() as client:
        asked = client.get(path)
        assert asked.status_code == 401
        assert asked.headers["WWW-Authenticate"].startswith("Basic ")
        for given in (("me", "wrong"), ("me", f"{TOKEN}x"), ("me", "")):
            assert client.get(path, auth=given).status_code == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get(path, headers=bearer).status_code == 200
        assert client.get(path, auth=("me", TOKEN)).status_code == 200
        assert client.head(path, auth=("me", TOKEN)).status_code == 200


def test_a_browser_is_not_asked_for_the_token_where_something_changes(full: Emulator) -> None:
    with full.client() as client:
        # A browser would send it along with a form of any page.
        migrate = client.post("/api/migrate", auth=("me", TOKEN), json={"action": "status"})
        assert migrate.status_code == 401
        assert migrate.headers["WWW-Authenticate"].startswith("Bearer ")


def test_its_policy_allows_its_own_style_and_nothing_that_is_loaded(full: Emulator) -> None:
    with full.client(auth=("me", TOKEN)) as client:
        answers = [client.get("/api/dashboard") for _ in range(2)]
    policies = [answer.headers["Content-Security-Policy"] for answer in answers]
    assert policies[0] != policies[1]
    for answer, policy in zip(answers, policies, strict=True):
        (nonce,) = re.findall(r'<style nonce="([\w-]{22})">', answer.text)
        assert policy == (
            f"default-src 'none'; script-src 'none'; style-src 'nonce-{nonce}'; "
            "connect-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (501, 1000)]
)
def test_a_scale_ends_at_a_round_number(value: int, top: int) -> None:
    assert charts.nice_top(value) == top


def test_columns_stack_from_the_bottom_and_nothing_is_drawn_of_zero() -> None:
    chart = charts.stacked(["a", "b"], ["x", "y"], [[2, 3], [0, 5]])
    assert chart.top == 5
    assert [(bar.series, bar.y, bar.height, bar.label) for bar in chart.bars] == [
        (0, 96.0, 64.0, "a: 2 x"),
        (1, 0.0, 96.0, "a: 3 y"),
        (1, 0.0, 160.0, "b: 5 y"),
    ]
    assert charts.stacked([], ["x"], []).bars == []


def test_shades_tell_nothing_from_little_and_the_most() -> None:
    assert [charts.shade(value, 100, 4) for value in (0, 1, 25, 26, 100)] == [0, 1, 1, 2, 4]
    assert charts.shade(0, 0, 4) == 0
