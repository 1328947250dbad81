"""The sign-in page in a real browser, before real emulators on each kind of store.

Google's own script cannot be had here: a stand-in asks the browser for what Google documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Request
from playwright.sync_api import Browser, Page, Route, expect
from werkzeug.test import EnvironBuilder

from functions.page import page as sign_in
from shared.application import Application
from shared.settings import Settings
from tests.conftest import STORES
from tests.support.browser import axe, open_page, screenshot
from tests.support.emulator import Emulator, running_emulator
from tests.support.google import CLIENT_ID, SIGN_IN_SOURCE, Providers, sign_in_providers
from tests.support.postgres import Server
from tests.support.relay import REFUSE, Relay

PASSWORD = "correct horse battery staple"
NARROW = {"width": 320, "height": 640}
WIDE = {"width": 1280, "height": 800}
FILES = ("/", "/sign-in.css", "/sign-in.js")
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
WITH_GOOGLE = (
    "default-src 'none'; script-src 'self' https://accounts.google.com/gsi/client; "
    "style-src 'self' https://accounts.google.com/gsi/style 'nonce-…'; "
    "connect-src 'self' https://accounts.google.com/gsi/; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; frame-src https://accounts.google.com/gsi/"
)
STAND_IN = """
window.google = { accounts: { id: {
  initialize(options) { this.options = options; },
  renderButton(parent) {
    const add = (name, properties) => {
      const element = Object.assign(document.createElement(name), properties);
      parent.append(element);
      return element;
    };
    const { nonce } = document.querySelector("link[rel=stylesheet][nonce]");
    add("style", { nonce, textContent: ".stand-in { min-height: 44px }" });
    add("link", { rel: "stylesheet", href: "https://accounts.google.com/gsi/style" });
    add("iframe", { src: "https://accounts.google.com/gsi/button", hidden: true });
    fetch("https://accounts.google.com/gsi/log", { mode: "no-cors" });
    const button = add("button", { className: "stand-in", textContent: this.options.client_id });
    button.onclick = () => this.options.callback({ credential: "TOKEN" });
  },
} } };
"""


@pytest.fixture(scope="module")
def on_json(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator on the JSON store that serves the page."""
    users_file = str(tmp_path_factory.mktemp("users") / "users.json")
    with running_emulator(SIGN_IN_PAGE="true", USERS_FILE=users_file) as running:
        yield running


@pytest.fixture(scope="module", params=STORES)
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


def _form(page: Page, name: str, **values: str) -> None:
    """Fill in a form and send it."""
    form = page.get_by_role("region", name=name)
    for label, value in values.items():
        form.get_by_label(label).fill(value)
    form.locator("form button").click()


def _sign_up(page: Page, address: str, password: str = PASSWORD, name: str = "") -> None:
    page.get_by_role("button", name="Create an account").click()
    _form(page, "Create an account", Name=name, Email=address, Password=password)


def _log_in(page: Page, address: str, password: str = PASSWORD) -> None:
    _form(page, "Log in", Email=address, Password=password)


def _is_signed_in(page: Page, address: str) -> None:
    expect(page.get_by_role("region", name="You are signed in")).to_contain_text(address)


def _is_told_at(page: Page, label: str, sentence: str) -> None:
    """A field is marked, focused and described by the sentence, which is an alert as well."""
    field = page.get_by_label(label).locator("visible=true")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile(re.escape(sentence)))
    expect(page.get_by_role("alert").filter(has_text=sentence)).to_be_visible()


def test_who_signs_up_is_signed_in_until_logging_out_and_can_log_in_again(
    page: Page, address: str
) -> None:
    _sign_up(page, address, name="Ada <b>&amp;")
    _is_signed_in(page, address)
    expect(page.get_by_role("heading", name="You are signed in")).to_be_focused()
    expect(page.get_by_text("Ada <b>&amp;", exact=True)).to_be_visible()
    page.reload()
    _is_signed_in(page, address)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("status")).to_have_text("You are logged out.")
    page.reload()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    _log_in(page, address.upper())
    _is_signed_in(page, address)


def test_what_cannot_be_accepted_is_told_at_its_field(page: Page, address: str) -> None:
    _sign_up(page, "")
    _is_told_at(page, "Email", "Please enter your email")
    page.get_by_role("button", name="Log in").click()
    _sign_up(page, address, "short")
    _is_told_at(page, "Password", "at least 8 characters")
    screenshot(page, "refused")
    _form(page, "Create an account", Password=PASSWORD)
    _is_signed_in(page, address)
    page.get_by_role("button", name="Log out").click()
    _log_in(page, address, "wrong password")
    _is_told_at(page, "Password", "Invalid email or password")
    page.reload()
    _sign_up(page, address)
    _is_told_at(page, "Email", "User already exists with this email")


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
        _is_told_at(page, "Password", "at least 8 characters")
        press("Control+a")
        keyboard.type(PASSWORD)
        press("Enter")
        _is_signed_in(page, address)
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
        _sign_up(page, long, "short", name="W" * 100)
        _is_told_at(page, "Password", "at least 8 characters")
        looks_well(page, "sign-up")
        _form(page, "Create an account", Password=PASSWORD)
        _is_signed_in(page, long)
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
        _sign_up(page, address)
        _is_signed_in(page, address)
        page.get_by_role("button", name="Log out").click()
        _sign_up(page, f"other.{address}")
        sentence = "Too many attempts. Please try again in 15 minutes."
        expect(page.locator("#failure")).to_have_text(sentence)


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
        _sign_up(page, address)
        _is_signed_in(page, address)
        relay.mode = REFUSE
        relay.cut()
        page.get_by_role("button", name="Log out").click()
        expect(failure).to_have_text(f"{unavailable} You may still be signed in.")
        page.context.clear_cookies()
        page.reload()
        _log_in(page, address, "wrong password")
        expect(failure).to_have_text(f"{unavailable} This says nothing about your password.")
        _sign_up(page, f"later.{address}")
        _is_signed_in(page, f"later.{address}")
        expect(page.get_by_role("status")).to_contain_text("your account is kept in a file")
        page.context.clear_cookies()
        page.reload()
        _log_in(page, f"later.{address}")
        expect(page.get_by_role("status")).to_contain_text("signed in for ten minutes only")
        screenshot(page, "outage")


def test_a_server_that_is_gone_is_told_in_a_sentence_and_signs_nobody_out(
    browser: Browser, on_json: Emulator, address: str
) -> None:
    with browser.new_context(base_url=on_json.url) as context:  # Its console is not silent.
        page = context.new_page()
        page.goto("/")
        _sign_up(page, address)
        _is_signed_in(page, address)
        context.set_offline(True)
        page.get_by_role("button", name="Log out").click()
        failure = page.locator("#failure")
        expect(failure).to_contain_text("The server cannot be reached.")
        expect(failure).to_contain_text("You may still be signed in.")
        context.set_offline(False)
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        expect(failure).to_be_empty()


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
        _is_signed_in(page, address)
    assert len([url for url in sent if url.endswith("/api/signup")]) == 1


def test_who_has_to_wait_is_told(browser: Browser, on_json: Emulator) -> None:
    with open_page(browser, on_json.url) as page:
        page.goto("/")
        held: list[Route] = []
        page.route("**/api/login", lambda route: held.append(route))
        _log_in(page, "nobody@example.com")
        expect(page.get_by_role("status")).to_have_text("One moment, please.")
        held[0].continue_()
        _is_told_at(page, "Password", "Invalid email or password")
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
    app = Application(Settings(sign_in_page=True))
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


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    """Google and Firebase."""
    with sign_in_providers(tmp_path_factory.mktemp("providers")) as running:
        yield running


@pytest.fixture(scope="module")
def with_google(
    providers: Providers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Emulator]:
    """An emulator that serves the page with Google's button."""
    settings = {"USERS_FILE": str(tmp_path_factory.mktemp("users") / "users.json")}
    settings |= {"SIGN_IN_PAGE": "true"} | providers.settings
    with running_emulator(source=SIGN_IN_SOURCE, **settings) as running:
        yield running


def _stand_in(page: Page, token: str) -> None:
    """Answer in Google's place, with a script that signs in with the token."""

    def answer(route: Route) -> None:
        if route.request.url.endswith("/gsi/client"):
            route.fulfill(content_type="text/javascript", body=STAND_IN.replace("TOKEN", token))
        else:
            route.fulfill(content_type="text/css", body="")

    page.route("https://accounts.google.com/gsi/**", answer)


def test_googles_button_signs_in_under_a_policy_that_allows_what_google_documents(
    browser: Browser, with_google: Emulator, providers: Providers, address: str
) -> None:
    with open_page(browser, with_google.url) as page:
        _stand_in(page, providers.google_token(email=address, sub=address))
        page.goto("/")
        page.get_by_role("button", name=CLIENT_ID).click()
        _is_signed_in(page, address)
        expect(page.get_by_role("button", name=CLIENT_ID)).to_be_hidden()
    with with_google.client() as client:
        headers = client.get("/").headers
        policy = headers["Content-Security-Policy"]
        assert re.sub("nonce-[^']{20,}", "nonce-…", policy) == WITH_GOOGLE
        assert policy != client.get("/").headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin-allow-popups"
        assert headers["Referrer-Policy"] == "no-referrer-when-downgrade"


def test_who_must_link_is_led_to_the_password_and_then_to_google(
    browser: Browser, with_google: Emulator, providers: Providers, address: str
) -> None:
    with open_page(browser, with_google.url) as page:
        _stand_in(page, providers.google_token(email=address, sub=address))
        page.goto("/")
        _sign_up(page, address)
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("button", name="Create an account").click()
        page.get_by_role("button", name=CLIENT_ID).click()
        expect(page.locator("#failure")).to_contain_text("Log in with its password first")
        expect(page.get_by_label("Email").locator("visible=true")).to_be_focused()
        _log_in(page, address)
        _is_signed_in(page, address)
        expect(page.locator("#with-google")).to_contain_text("Your password stays if you have")
        page.get_by_role("button", name=CLIENT_ID).click()
        expect(page.get_by_role("status")).to_have_text("You have signed in with Google.")
        _is_signed_in(page, address)
        assert len(page.request.get("/api/account").json()["identities"]) == 1


@pytest.mark.parametrize(
    ("directive", "attack"),
    [
        ("script-src-elem", "add('script', { src: 'https://accounts.google.com/other.js' })"),
        ("script-src-elem", "add('script', { src: 'https://accounts.google.com/gsi/other' })"),
        ("script-src-elem", "add('script', { src: 'https://evil.example/gsi/client' })"),
        ("script-src-elem", "add('script', { textContent: 'document.title = 1' })"),
        ("script-src-attr", "add('p', {}).setAttribute('onclick', 'document.title = 1')"),
        ("style-src-elem", "add('style', { textContent: 'p { color: red }' })"),
        ("style-src-elem", "add('link', { rel: 'stylesheet', href: 'https://evil.example/' })"),
        ("frame-src", "add('iframe', { src: 'https://accounts.google.com/o/oauth2/auth' })"),
        ("connect-src", "fetch('https://evil.example/').catch(() => {})"),
        ("img-src", "add('img', { src: 'https://evil.example/' })"),
        ("form-action", "document.forms[0].submit()"),
        ("base-uri", "add('base', { href: 'https://evil.example/' })"),
    ],
)
def test_with_google_no_more_is_allowed_than_that(
    with_google: Emulator, hostile: Page, directive: str, attack: str
) -> None:
    violated = hostile.evaluate(
        f"""() => new Promise((resolve) => {{
          const told = (event) => resolve(event.effectiveDirective);
          addEventListener("securitypolicyviolation", told, {{ once: true }});
          const add = (name, properties) => {{
            const element = Object.assign(document.createElement(name), properties);
            document.head.append(element);
            return element;
          }};
          {attack};
        }})"""
    )
    assert violated == directive


@pytest.fixture(scope="module")
def hostile(browser: Browser, with_google: Emulator) -> Iterator[Page]:
    """A page with Google's button in which an attacker's script runs already."""
    with browser.new_context(base_url=with_google.url) as context:
        page = context.new_page()
        _stand_in(page, "")
        page.goto("/")
        yield page
