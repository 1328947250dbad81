"""The sign-in page in a real browser, before real emulators on each kind of store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Request
from playwright.sync_api import Browser, Page, Route, expect
from werkzeug.test import EnvironBuilder

from functions.page import page as sign_in
from shared.application import Application
from shared.settings import Settings
from shared.web.settings import WebSettings
from tests.support.browser import axe, open_page, screenshot
from tests.support.emulator import Emulator, running_emulator
from tests.support.postgres import Server
from tests.support.relay import REFUSE, Relay
from tests.support.sign_in_page import (
    PASSWORD,
    is_signed_in,
    is_told_at,
    log_in,
    send_form,
    sign_up,
)

NARROW = {"width": 320, "height": 640}
WIDE = {"width": 1280, "height": 800}
FILES = ("/", "/sign-in.css", "/sign-in.js", "/client.js")
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


@pytest.fixture(scope="module")
def on_json(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator on the JSON store that serves the page."""
    users_file = str(tmp_path_factory.mktemp("users") / "users.json")
    with running_emulator(SIGN_IN_PAGE="true", USERS_FILE=users_file) as running:
        yield running


@pytest.fixture(scope="module", params=["postgres", pytest.param("json", marks=pytest.mark.long)])
def serving(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """An emulator on each kind of store in turn that serves the page."""
    if request.param == "json":
        yield request.getfixturevalue("on_json")
        return
    postgres: Server = request.getfixturevalue("postgres")
    url = postgres.url(request.getfixturevalue("make_database")())
    with running_emulator(SIGN_IN_PAGE="true", DATABASE_URL=url) as running:
        yield running


@pytest.fixture
def page(browser: Browser, serving: Emulator) -> Iterator[Page]:
    """The page, opened by somebody new."""
    with open_page(browser, serving.url) as opened:
        opened.goto("/")
        yield opened


def test_who_signs_up_is_signed_in_until_logging_out_and_can_log_in_again(
    page: Page, address: str
) -> None:
    sign_up(page, address, name="Ada <b>&amp;")
    is_signed_in(page, address)
    expect(page.get_by_role("heading", name="You are signed in")).to_be_focused()
    expect(page.get_by_text("Ada <b>&amp;", exact=True)).to_be_visible()
    page.reload()
    is_signed_in(page, address)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("status")).to_have_text("You are logged out.")
    page.reload()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    log_in(page, address.upper())
    is_signed_in(page, address)


def test_what_cannot_be_accepted_is_told_at_its_field(page: Page, address: str) -> None:
    sign_up(page, "")
    is_told_at(page, "Email", "Please fill in this field")
    page.get_by_role("button", name="Log in").click()
    sign_up(page, address, "short")
    is_told_at(page, "Password", "at least 8 characters")
    screenshot(page, "refused")
    send_form(page, "Create an account", Password=PASSWORD)
    is_signed_in(page, address)
    page.get_by_role("button", name="Log out").click()
    log_in(page, address, "wrong password")
    is_told_at(page, "Password", "Invalid email or password")
    page.reload()
    sign_up(page, address)
    is_told_at(page, "Email", "User already exists with this email")


def test_the_keyboard_is_enough(browser: Browser, on_json: Emulator, address: str) -> None:
    def press(*keys: str) -> None:
        for key in keys:
            keyboard.press(key)

    with open_page(browser, on_json.url) as page:
        keyboard = page.keyboard
        page.goto("/")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        press("Tab", "Tab", "Tab", "Tab", "Enter")  # address, password, button, the other form
        expect(page.get_by_label("Name")).to_be_focused()
        keyboard.type("Ada")
        press("Tab")
        keyboard.type(address)
        press("Tab")
        keyboard.type("short")
        press("Enter")
        is_told_at(page, "Password", "at least 8 characters")
        press("Control+a")
        keyboard.type(PASSWORD)
        press("Enter")
        is_signed_in(page, address)
        press("Tab")
        expect(page.get_by_role("button", name="Log out")).to_be_focused()
        press("Space")
        expect(page.get_by_label("Email").locator("visible=true")).to_be_focused()


@pytest.mark.parametrize(("scheme", "viewport"), [("light", WIDE), ("dark", NARROW)])
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(
    browser: Browser, on_json: Emulator, address: str, scheme: str, viewport: dict[str, int]
) -> None:
    def looks_well(page: Page, name: str) -> None:
        screenshot(page, f"{name}-{scheme}-{viewport['width']}")
        assert axe(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]

    options = {"color_scheme": scheme, "viewport": viewport}
    with open_page(browser, on_json.url, **options) as page:
        page.goto("/")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        looks_well(page, "log-in")
        long = f"{'x' * 50}{address}"
        sign_up(page, long, "short", name="W" * 100)
        is_told_at(page, "Password", "at least 8 characters")
        looks_well(page, "sign-up")
        send_form(page, "Create an account", Password=PASSWORD)
        is_signed_in(page, long)
        looks_well(page, "signed-in")


def test_fields_say_what_a_password_manager_needs(on_json: Emulator) -> None:
    with on_json.client() as client:
        inputs = re.findall(r"<input ([^>]+)>", client.get("/").text)
    fields = [dict(re.findall(r'(id|autocomplete)="([^"]+)"', text)) for text in inputs]
    assert {field["id"]: field["autocomplete"] for field in fields} == {
        "log-in-email": "username",
        "log-in-password": "current-password",
        "sign-up-name": "name",
        "sign-up-email": "username",
        "sign-up-password": "new-password",
    }


def test_nothing_on_the_page_moves() -> None:
    text = (Path(__file__).parents[2] / "functions" / "pages" / "sign-in.css").read_text()
    assert not re.search(r"animation|transition|scroll-behavior", text)


def test_too_many_attempts_are_told_with_the_time_to_wait(
    browser: Browser, tmp_path: Path, address: str
) -> None:
    settings = {"USERS_FILE": str(tmp_path / "users.json"), "MAX_SIGNUPS": "1"}
    with (
        running_emulator(SIGN_IN_PAGE="true", **settings) as running,
        open_page(browser, running.url) as page,
    ):
        page.goto("/")
        sign_up(page, address)
        is_signed_in(page, address)
        page.get_by_role("button", name="Log out").click()
        sign_up(page, f"other.{address}")
        sentence = "Too many attempts. Please try again in 15 minutes."
        expect(page.locator("#failure")).to_have_text(sentence)


@pytest.mark.tcp("a start is waited for longer than a refused connection")
def test_an_outage_never_reads_as_a_wrong_password_or_as_a_logout_that_worked(
    browser: Browser, postgres: Server, database: str, relay: Relay, tmp_path: Path, address: str
) -> None:
    settings = {
        "SIGN_IN_PAGE": "true",
        "DATABASE_URL": postgres.url(database, port=relay.port),
        "USERS_FILE": str(tmp_path / "users.json"),
        "FALLBACK": "full",
    }
    unavailable = "The service is temporarily unavailable. Please try again in 5 seconds."
    with running_emulator(**settings) as running, open_page(browser, running.url) as page:
        page.goto("/")
        failure = page.locator("#failure")
        sign_up(page, address)
        is_signed_in(page, address)
        relay.mode = REFUSE
        relay.cut()
        page.get_by_role("button", name="Log out").click()
        expect(failure).to_have_text(f"{unavailable} You may still be signed in.")
        page.context.clear_cookies()
        page.reload()
        log_in(page, address, "wrong password")
        expect(failure).to_have_text(f"{unavailable} This says nothing about your password.")
        sign_up(page, f"later.{address}")
        is_signed_in(page, f"later.{address}")
        expect(page.get_by_role("status")).to_contain_text("your account is kept in a file")
        page.context.clear_cookies()
        page.reload()
        log_in(page, f"later.{address}")
        expect(page.get_by_role("status")).to_contain_text("signed in for ten minutes only")
        screenshot(page, "outage")


def test_a_server_that_is_gone_is_told_in_a_sentence_and_signs_nobody_out(
    browser: Browser, on_json: Emulator, address: str
) -> None:
    with browser.new_context(base_url=on_json.url) as context:  # Its console is not silent.
        page = context.new_page()
        page.goto("/")
        sign_up(page, address)
        is_signed_in(page, address)
        context.set_offline(True)
        page.get_by_role("button", name="Log out").click()
        failure = page.locator("#failure")
        expect(failure).to_contain_text("The server cannot be reached.")
        expect(failure).to_contain_text("You may still be signed in.")
        context.set_offline(False)
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        expect(failure).to_be_empty()


RETURNS = {
    "visibilitychange": "document.dispatchEvent(new Event('visibilitychange'))",
    "pageshow": "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))",
    "focus": "dispatchEvent(new Event('focus'))",
}
PAUSE = "new Promise((done) => setTimeout(done, 50))"


def _sign_up_in_another_tab(page: Page, address: str) -> None:
    body = {"email": address, "password": PASSWORD}
    assert page.request.post("/api/signup", data=body).status == 201


@pytest.mark.parametrize("event", RETURNS)
def test_a_tab_shows_who_has_signed_in_in_another_when_somebody_comes_back_to_it(
    browser: Browser, on_json: Emulator, address: str, event: str
) -> None:
    somebody = f"somebody.{address}"
    with open_page(browser, on_json.url) as page:
        page.goto("/")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        for each in (address, somebody):
            _sign_up_in_another_tab(page, each)
            page.evaluate(RETURNS[event])
            is_signed_in(page, each)
            sentence = f"In another tab somebody has signed in as {each}."
            expect(page.get_by_role("status")).to_have_text(sentence)
        page.request.post("/api/logout")
        page.evaluate(RETURNS[event])
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        expect(page.get_by_role("status")).to_contain_text("logged out in another tab")


def test_a_tab_ends_the_session_only_of_whom_it_shows(
    browser: Browser, on_json: Emulator, address: str
) -> None:
    somebody = f"somebody.{address}"
    with open_page(browser, on_json.url) as page:
        page.goto("/")
        sign_up(page, address)
        is_signed_in(page, address)
        _sign_up_in_another_tab(page, somebody)
        page.get_by_role("button", name="Log out").click()
        is_signed_in(page, somebody)
        assert page.request.get("/api/user").json()["email"] == somebody
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("status")).to_have_text("You are logged out.")
        assert page.request.get("/api/user").status == 401


def _come_back(page: Page, status: int) -> None:
    """Come back to the page while the server answers so, and let the page act on it."""
    page.route("**/api/user", _answer(status), times=1)
    with page.expect_response("**/api/user"):
        page.evaluate(RETURNS["focus"])
    page.evaluate(PAUSE)


def _answer(status: int) -> Callable[[Route], None]:
    return lambda route: route.fulfill(status=status)


def test_what_is_typed_stays_when_nothing_has_changed_or_the_server_does_not_answer(
    browser: Browser, on_json: Emulator, address: str
) -> None:
    with open_page(browser, on_json.url) as page:
        page.goto("/")
        page.get_by_role("button", name="Create an account").click()
        form = page.get_by_role("region", name="Create an account")
        form.get_by_label("Email").fill(address)
        for status in (401, 503):
            _come_back(page, status)
        expect(form.get_by_label("Email")).to_have_value(address)
        form.get_by_label("Password").fill(PASSWORD)
        form.locator("form button").click()
        is_signed_in(page, address)
        _come_back(page, 503)
        is_signed_in(page, address)


def test_an_answer_that_is_older_than_a_logout_signs_nobody_in(
    browser: Browser, on_json: Emulator, address: str
) -> None:
    with open_page(browser, on_json.url) as page:
        page.goto("/")
        sign_up(page, address)
        is_signed_in(page, address)
        held: list[Route] = []
        page.route("**/api/user", lambda route: held.append(route), times=1)
        with page.expect_request("**/api/user"):
            page.evaluate(RETURNS["focus"])
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("status")).to_have_text("You are logged out.")
        user = {"id": "1", "email": address, "provider": "local"}
        with page.expect_response("**/api/user"):
            held[0].fulfill(json=user)
        page.evaluate(PAUSE)
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_two_clicks_are_one_sign_up(browser: Browser, on_json: Emulator, address: str) -> None:
    sent: list[str] = []
    with open_page(browser, on_json.url) as page:
        page.on("request", lambda request: sent.append(request.url))
        page.goto("/")
        page.get_by_role("button", name="Create an account").click()
        form = page.get_by_role("region", name="Create an account")
        form.get_by_label("Email").fill(address)
        form.get_by_label("Password").fill(PASSWORD)
        form.locator("form").evaluate("form => { form.requestSubmit(); form.requestSubmit(); }")
        is_signed_in(page, address)
    assert len([url for url in sent if url.endswith("/api/signup")]) == 1


def test_who_has_to_wait_is_told(browser: Browser, on_json: Emulator) -> None:
    with open_page(browser, on_json.url) as page:
        page.goto("/")
        held: list[Route] = []
        page.route("**/api/login", lambda route: held.append(route))
        log_in(page, "nobody@example.com")
        expect(page.get_by_role("status")).to_have_text("One moment, please.")
        held[0].continue_()
        is_told_at(page, "Password", "Invalid email or password")
        expect(page.get_by_role("status")).to_be_empty()


def test_without_scripts_there_is_a_sentence_and_no_form(
    browser: Browser, on_json: Emulator
) -> None:
    with open_page(browser, on_json.url, java_script_enabled=False) as page:
        page.goto("/")
        expect(page.get_by_role("status")).to_contain_text("This page needs JavaScript.")
        assert not page.locator("input").locator("visible=true").all()


def test_the_page_is_served_under_a_strict_policy_and_is_never_stored(on_json: Emulator) -> None:
    with on_json.client() as client:
        headers = client.get("/").headers
        assert headers["Content-Security-Policy"] == STRICT
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        for path in FILES:
            response = client.get(path)
            assert response.status_code == 200
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert client.head(path).headers["Content-Type"] == response.headers["Content-Type"]
            assert client.post(path).status_code == 405


@pytest.mark.parametrize("path", ["/any/path", "/page.py", "/../page.py", "//etc/passwd"])
def test_served_alone_it_gives_no_other_file(path: str) -> None:
    app = Application(Settings(web=WebSettings(sign_in_page=True)))
    response = sign_in(app, Request(EnvironBuilder(path).get_environ()))
    assert response.get_data(as_text=True).startswith("<!doctype html>")


def test_what_the_policy_forbids_is_noticed_here(browser: Browser, on_json: Emulator) -> None:
    def open_and_forget_the_policy() -> None:
        with open_page(browser, on_json.url) as page:
            page.goto("/")
            page.evaluate("document.body.style = 'color: red'")
            page.evaluate("document.body.setAttribute('style', 'color: red')")

    with pytest.raises(AssertionError, match="CSP: style-src-attr of inline"):
        open_and_forget_the_policy()


def test_text_cannot_become_markup(browser: Browser, on_json: Emulator) -> None:
    with browser.new_context(base_url=on_json.url) as context:
        page = context.new_page()
        page.goto("/")
        with pytest.raises(Exception, match="TrustedHTML"):
            page.evaluate("document.body.innerHTML = '<b>bold</b>'")
