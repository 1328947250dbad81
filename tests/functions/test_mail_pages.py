"""The pages to which mails lead, and on which mails are asked for, in a browser as on a phone."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from flask import Request
from playwright.sync_api import Browser, Locator, Page, expect
from playwright.sync_api import Request as Sent
from werkzeug.test import EnvironBuilder

from functions import email as email_function
from functions import logout, mail_responses, signup
from functions.mailbox_page import mailbox_page
from functions.pages.rendering import PAGES
from shared import errors
from shared.application import Application
from shared.model.mails import Kind
from shared.settings import Settings
from tests.support.browser import axe, open_page, screenshot
from tests.support.emulator import Emulator, running_emulator
from tests.support.in_process import Served, served
from tests.support.mails import delivered, in_folder, links, token_for
from tests.support.postgres import Server
from tests.support.sign_in_page import PASSWORD, is_signed_in, is_told_at, log_in, sign_up
from tests.support.waiting import until

WIDTH = 360
NEW = "a wholly new password"
DEVELOPMENT = {"ENVIRONMENT": "development", "SIGN_IN_BY_MAIL": "true"}
LANGUAGES = ("en-US", "de-DE")
GERMAN = json.loads((PAGES / "de.json").read_text())
PRODUCTION = {
    "ENVIRONMENT": "production",
    "USE_DATABASE": "false",
    "BCRYPT_ROUNDS": "10",
    "MAIL_URL": "smtp://127.0.0.1:9",
    "MAIL_FROM": "no-reply@example.com",
    "PUBLIC_URL": "https://app.example.com",
    "SIGN_IN_BY_MAIL": "true",
}
"""With everything else as it is by default."""
MAILBOX = ("/reset", "/verify", "/link", "/email")
PAGE_OF: dict[Kind, str] = {
    "password_reset": "/reset",
    "verification": "/verify",
    "email_change": "/verify",
    "login_link": "/link",
}
OF_WHOM = {
    "en-US": {
        "reset": "The new password is for the account of {}.",
        "verify": "You are confirming the address {}.",
        "link": "You will be signed in as {}. Is that you?",
    },
    "de-DE": {
        "reset": "Das neue Passwort gilt für das Konto von {}.",
        "verify": "Sie bestätigen die Adresse {}.",
        "link": "Sie werden als {} angemeldet. Sind Sie das?",
    },
}


class Site:
    """An emulator that mails into a folder, and who reads the mail."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self.url = emulator.url
        self.client = emulator.client
        self._folder = folder

    def link(self, to: str, number: int = 1) -> str:
        """Wait for so many links to an address, and give the path and the rest of the last one."""
        until(lambda: len(links(in_folder(self._folder), to)) >= number)
        page, token = links(in_folder(self._folder), to)[-1]
        return f"/{page}#token={token}"


@pytest.fixture(scope="module")
def on_json(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with running_emulator(**DEVELOPMENT, USERS_FILE=f"{folder}/users.json") as running:
        yield Site(running, folder / "mail")


@pytest.fixture(scope="module")
def on_postgres(
    postgres: Server, make_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    url = postgres.url(make_database())
    settings = DEVELOPMENT | {"DATABASE_URL": url, "USERS_FILE": f"{folder}/users.json"}
    with running_emulator(**settings) as running:
        yield Site(running, folder / "mail")


@pytest.fixture
def page(browser: Browser, on_json: Site) -> Iterator[Page]:
    with _phone(browser, on_json) as opened:
        yield opened


def _phone(
    browser: Browser, site: Site, locale: str = "en-US", scheme: str = "light"
) -> AbstractContextManager[Page]:
    viewport = {"width": WIDTH, "height": 640}
    return open_page(browser, site.url, locale=locale, viewport=viewport, color_scheme=scheme)


def _looks_well(page: Page, name: str) -> None:
    screenshot(page, f"mail-{name}")
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == WIDTH


def _begin(page: Page, address: str) -> None:
    """Sign up, without the page."""
    response = page.request.post("/api/signup", data={"email": address, "password": PASSWORD})
    assert response.status == 201


def _open(page: Page, link: str) -> None:
    """Follow a link of a mail, by which the token is nowhere but in the memory of the page."""
    page.goto(link)
    expect(page.get_by_role("heading", level=2)).to_be_visible()
    assert page.url == f"{page.url.partition('#')[0]}"
    assert page.evaluate("location.hash + location.search + document.cookie") == ""
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0


def _field(page: Page, name: str) -> Locator:
    return page.get_by_role("textbox", name=name).locator("visible=true")


def _heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=2).locator("visible=true")).to_have_text(text)


def _is_verified(page: Page) -> bool | None:
    found: bool | None = page.request.get("/api/user").json()["emailVerified"]
    return found


@pytest.mark.parametrize(
    ("store", "locale"),
    [
        ("json", "de-DE"),
        pytest.param("postgres", "en-US", marks=pytest.mark.long),  # test_mail_over_smtp.py has it
        pytest.param("json", "en-US", marks=pytest.mark.long),
        pytest.param("postgres", "de-DE", marks=pytest.mark.long),
    ],
)
def test_who_has_forgotten_the_password_chooses_a_new_one_and_signs_in(
    request: pytest.FixtureRequest, browser: Browser, address: str, store: str, locale: str
) -> None:
    is_german = locale == "de-DE"
    too_common = GERMAN["errors"]["invalid_input newPassword"] if is_german else "most common ones"

    def say(english: str) -> str:
        return str(GERMAN["words"][english]) if is_german else english

    site: Site = request.getfixturevalue(f"on_{store}")
    look = _looks_well if store == "json" else screenshot
    with _phone(browser, site, locale) as page:
        _begin(page, address)
        page.context.clear_cookies()
        page.goto("/")
        assert page.evaluate("document.documentElement.lang") == locale[:2]
        page.get_by_role("link", name=say("Forgot your password?")).click()
        _heading(page, say("Forgot your password?"))
        look(page, f"forgot-{locale}")
        _field(page, say("Email address")).fill(address)
        page.get_by_role("button", name=say("Send me a link")).click()
        _heading(page, say("Please check your mail"))
        expect(page.get_by_role("heading", name=say("Please check your mail"))).to_be_focused()
        expect(page.locator("#sent-message")).to_contain_text(say(mail_responses._ASKED))
        look(page, f"sent-{locale}")
        _open(page, site.link(address, 2))
        _heading(page, say("Choose a new password"))
        _field(page, say("New password")).fill("password")
        page.get_by_role("button", name=say("Change the password")).click()
        is_told_at(page, say("New password"), too_common)
        look(page, f"reset-{locale}")
        _field(page, say("New password")).fill(NEW)
        page.keyboard.press("Enter")
        _heading(page, say("Your password has been changed"))
        look(page, f"changed-{locale}")
        page.get_by_role("link", name=say("Log in")).click()
        _field(page, say("Email address")).fill(address)
        _field(page, say("Password")).fill(NEW)
        page.get_by_role("button", name=say("Log in")).locator("visible=true").click()
        expect(page.get_by_role("region", name=say("You are signed in"))).to_contain_text(address)
        page.go_back()
        assert "#" not in page.url


def test_a_token_is_sent_in_a_body_only_and_only_when_somebody_clicks(
    page: Page, on_json: Site, address: str
) -> None:
    sent: list[Sent] = []

    def note(request: Sent) -> None:
        sent.append(request)

    page.on("request", note)
    _begin(page, address)
    link = on_json.link(address)
    page.goto("/")
    page.goto(link)
    _heading(page, "Confirm your email address")
    with on_json.client() as scanner:
        assert scanner.get(link).status_code == 200
    assert {request.method for request in sent} == {"GET"}
    assert _is_verified(page) is False
    page.get_by_role("button", name="Confirm").click()
    _heading(page, "Your email address is confirmed")
    token = link.partition("=")[2]
    page.get_by_role("link", name="Continue").click()
    is_signed_in(page, address)
    # Chromium's driver gives the fragment as well, which is not sent.
    assert not [request for request in sent if token in request.url.partition("#")[0]]
    assert not [request for request in sent if token in str(request.headers)]
    assert [request.method for request in sent if token in (request.post_data or "")] == ["POST"]
    page.go_back()
    assert page.url == f"{on_json.url}/verify"
    _heading(page, "Confirm your email address")
    expect(_field(page, "Email")).to_be_visible()
    page.remove_listener("request", note)


def test_who_signs_up_is_told_of_the_mail_and_confirms_the_address(
    page: Page, on_json: Site, address: str
) -> None:
    page.goto("/")
    sign_up(page, address)
    is_signed_in(page, address)
    expect(page.get_by_role("status")).to_contain_text("to confirm your address")
    page.get_by_role("link", name="Confirm or change").click()
    expect(page.get_by_text("not confirmed yet")).to_be_visible()
    _looks_well(page, "unconfirmed")
    page.get_by_role("button", name="Send the message again").click()
    _heading(page, "Please check your mail")
    _open(page, on_json.link(address, 2))
    _looks_well(page, "confirm")
    page.get_by_role("button", name="Confirm").click()
    _heading(page, "Your email address is confirmed")
    expect(page.locator("#confirmed")).to_contain_text(address)
    page.goto("/email")
    expect(page.get_by_text("The address is confirmed.")).to_be_visible()


def test_elsewhere_the_password_is_asked_for(page: Page, on_json: Site, address: str) -> None:
    _begin(page, address)
    page.context.clear_cookies()
    _open(page, on_json.link(address))
    expect(_field(page, "Password")).to_have_count(0)
    expect(page.get_by_role("link", name="Forgot your password?")).to_have_count(0)
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("status")).to_contain_text("Please enter your password")
    expect(_field(page, "Password")).to_be_focused()
    # It proves the address as well, for whom somebody else has signed up.
    expect(page.get_by_role("link", name="Forgot your password?")).to_be_visible()
    _looks_well(page, "elsewhere")
    page.get_by_role("button", name="Confirm").click()
    is_told_at(page, "Password", "Please fill in this field")
    _field(page, "Password").fill("wrong")
    page.get_by_role("button", name="Confirm").click()
    is_told_at(page, "Password", "not correct")
    _field(page, "Password").fill(PASSWORD)
    page.get_by_role("button", name="Confirm").click()
    _heading(page, "Your email address is confirmed")
    page.get_by_role("link", name="Continue").click()
    log_in(page, address)
    is_signed_in(page, address)


def test_an_address_is_changed_on_its_page_and_by_the_link_to_the_new_one(
    page: Page, on_json: Site, address: str
) -> None:
    _begin(page, address)
    page.goto("/email")
    for password in ("wrong", PASSWORD):
        _field(page, "New email address").fill(f"new.{address}")
        _field(page, "Password").fill(password)
        page.get_by_role("button", name="Change").click()
        if password == "wrong":
            is_told_at(page, "Password", "not correct")
            _looks_well(page, "change")
    _heading(page, "Please check your mail")
    expect(page.get_by_text("to the new address")).to_be_visible()
    _open(page, on_json.link(f"new.{address}"))
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_text(f"The address of your account is new.{address}.")).to_be_visible()
    page.get_by_role("link", name="Continue").click()
    is_signed_in(page, f"new.{address}")


def test_a_link_signs_in_once_and_without_a_password_the_session_is_the_proof(
    page: Page, on_json: Site, address: str
) -> None:
    _begin(page, address)
    page.context.clear_cookies()
    page.goto("/")
    page.get_by_role("link", name="Send me a link").click()
    _field(page, "Email").fill(address)
    page.get_by_role("button", name="Send me a link").click()
    _heading(page, "Please check your mail")
    link = on_json.link(address, 2)
    _open(page, link)
    _looks_well(page, "link")
    page.get_by_role("button", name="Sign in").click()
    is_signed_in(page, address)
    _open(page, link)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#failure")).to_contain_text("no longer valid")
    expect(_field(page, "Email")).to_be_visible()
    # What a stranger might have set is gone, the password too.
    page.goto("/email")
    _field(page, "New email address").fill(f"new.{address}")
    expect(_field(page, "Password")).to_have_count(0)
    page.get_by_role("button", name="Change").click()
    _heading(page, "Please check your mail")
    page.context.clear_cookies()
    _open(page, on_json.link(f"new.{address}"))
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("status")).to_contain_text("Please enter your password")
    _field(page, "Password").fill("any")
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("#failure")).to_contain_text("Please sign in here first")
    expect(page.get_by_role("button")).to_have_count(0)
    _looks_well(page, "sign-in-first")
    page.get_by_role("link", name="Log in").click()
    _heading(page, "Log in")


@pytest.mark.parametrize("locale", ["en-US", pytest.param("de-DE", marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", PAGE_OF)
def test_who_opens_a_link_sees_whose_it_is_before_the_click(
    browser: Browser, on_json: Site, locale: str, kind: Kind
) -> None:
    """Or somebody who sends a link of their own would have others act in their account."""
    name = PAGE_OF[kind].removeprefix("/")
    with _phone(browser, on_json, locale) as page:
        for address in ("stranger@example.com", "jörg+ß@example.com", "<b>x</b>@example.com"):
            token = token_for({"id": str(uuid.uuid4()), "email": address}, kind)
            page.goto("about:blank")
            _open(page, f"{PAGE_OF[kind]}#token={token}")
            expect(page.locator("#of-whom")).to_have_text(OF_WHOM[locale][name].format(address))
        _looks_well(page, f"of-whom-{kind}-{locale}")
        # On the same page: another link, and one that says nothing.
        another, a_text = (
            token_for({"id": str(uuid.uuid4()), "email": address}, kind)
            for address in ("another@example.com", "Support, please call us. me@x")
        )
        for given, shown in ((another, "another@example.com"), ("a.b.c", None), (a_text, None)):
            page.evaluate("token => { location.hash = `token=${token}` }", given)
            expected = OF_WHOM[locale][name].format(shown) if shown else ""
            expect(page.locator("#of-whom")).to_have_text(expected)


def test_a_link_that_is_opened_on_its_own_page_counts(
    page: Page, on_json: Site, address: str
) -> None:
    _begin(page, address)
    page.goto("/verify#token=another")
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("#failure")).to_contain_text("no longer valid")
    page.evaluate("link => { location.hash = link }", on_json.link(address).partition("#")[2])
    page.get_by_role("button", name="Confirm").click()
    _heading(page, "Your email address is confirmed")
    assert page.url == f"{on_json.url}/verify"


def test_who_is_not_signed_in_has_no_address_to_change(page: Page) -> None:
    page.goto("/email")
    _heading(page, "Log in")


def test_the_page_of_the_address_tells_of_what_was_confirmed_in_another_tab(
    page: Page, on_json: Site, address: str
) -> None:
    _begin(page, address)
    page.goto("/email")
    _field(page, "New email address").fill("what is typed")
    expect(page.get_by_text("not confirmed yet")).to_be_visible()
    token = on_json.link(address).partition("=")[2]
    assert page.request.post("/api/email/verify", data={"token": token}).status == 200
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.get_by_text("The address is confirmed.")).to_be_visible()
    expect(_field(page, "New email address")).to_have_value("what is typed")


def test_where_the_address_has_to_be_proved_a_sign_up_says_so(
    browser: Browser, tmp_path: Path, address: str
) -> None:
    settings = DEVELOPMENT | {"EMAIL_VERIFICATION": "required"}
    with running_emulator(**settings, USERS_FILE=f"{tmp_path}/users.json") as running:
        site = Site(running, tmp_path / "mail")
        with _phone(browser, site, "de-DE") as page:
            page.goto("/")
            page.get_by_role("button", name="Konto anlegen").click()
            form = page.get_by_role("region", name="Konto anlegen")
            form.get_by_label("E-Mail").fill(address)
            form.get_by_label("Passwort").fill(PASSWORD)
            form.locator("form button").click()
            expect(page.get_by_role("status")).to_contain_text("eine Nachricht geschickt")
            _heading(page, "Anmelden")
            _looks_well(page, "required")
            form = page.get_by_role("region", name="Anmelden")
            form.get_by_label("E-Mail").fill(address)
            form.get_by_label("Passwort").fill(PASSWORD)
            form.locator("form button").click()
            is_told_at(page, "Passwort", "folgen Sie bitte zuerst dem Link")
            _open(page, site.link(address))
            page.get_by_role("button", name="Bestätigen").click()
            _field(page, "Passwort").fill(PASSWORD)
            page.get_by_role("button", name="Bestätigen").click()
            _heading(page, "Ihre E-Mail-Adresse ist bestätigt")


@pytest.mark.long
@pytest.mark.parametrize("locale", LANGUAGES)
@pytest.mark.parametrize("path", [*MAILBOX, *(f"{path}#token=x" for path in MAILBOX), "/", "/mail"])
def test_in_the_dark_nothing_is_serious_or_cut_off(
    browser: Browser, on_json: Site, address: str, locale: str, path: str
) -> None:
    with _phone(browser, on_json, locale, "dark") as page:
        if "/email" in path:
            _begin(page, address)
        page.goto(path)
        expect(page.locator("h2:visible").first).to_be_visible()
        name = path.replace("/", "").replace("#", "-")
        _looks_well(page, f"dark-{locale}-{name}")


def test_the_pages_are_under_the_policy_of_the_sign_in_page(on_json: Site) -> None:
    names = ("Content-Security-Policy", "Cross-Origin-Opener-Policy", "Referrer-Policy")
    with on_json.client() as client:
        home = client.get("/").headers
        assert "require-trusted-types-for 'script'" in home["Content-Security-Policy"]
        for path in MAILBOX:
            response = client.get(path)
            assert response.status_code == 200
            assert response.headers["Cache-Control"] == "no-store"
            assert [response.headers[name] for name in names] == [home[name] for name in names]
            assert client.post(path).status_code == 405
        assert client.get("/mailbox.js").status_code == 200


def test_fields_say_what_a_password_manager_needs(on_json: Site) -> None:
    found = {}
    with on_json.client() as client:
        for path in MAILBOX:
            for text in re.findall(r"<input ([^>]+)>", client.get(path).text):
                field = dict(re.findall(r'(name|autocomplete)="([^"]+)"', text))
                found[path, field["name"]] = field["autocomplete"]
    assert found == {
        ("/reset", "email"): "username",
        ("/reset", "newPassword"): "new-password",
        ("/verify", "email"): "username",
        ("/verify", "password"): "current-password",
        ("/link", "email"): "username",
        ("/email", "newEmail"): "email",
        ("/email", "password"): "current-password",
    }


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"ENVIRONMENT": "test", "SIGN_IN_PAGE": "true"}, {*MAILBOX, "/mail"}),
        ({"ENVIRONMENT": "development", "SIGN_IN_PAGE": "false"}, {"/link"}),
        ({"ENVIRONMENT": "development"}, {"/link"}),
        (DEVELOPMENT, set()),
        (PRODUCTION, {"/mail"}),
    ],
)
def test_a_page_exists_where_what_it_is_for_does(
    tmp_path: Path, settings: dict[str, str], missing: set[str]
) -> None:
    with served(**settings, USERS_FILE=f"{tmp_path}/users.json") as app:
        pages = (*MAILBOX, "/mail")
        assert {path for path in pages if app.send("GET", path).status_code == 404} == missing
        if app.settings.web.sign_in_page:
            home = app.send("GET", "/").text
            assert ('href="/reset"' in home) == ("/reset" not in missing)
            assert ('href="/link"' in home) == ("/link" not in missing)


@pytest.mark.parametrize("path", MAILBOX)
def test_in_production_a_mails_page_has_all_that_it_loads_and_there_is_no_sign_in_page(
    tmp_path: Path, path: str
) -> None:
    with served(**PRODUCTION, USERS_FILE=f"{tmp_path}/users.json") as app:
        loaded = re.findall(
            r'<(?:link rel="stylesheet"|script)[^>]* (?:href|src)="([^"]+)"',
            app.send("GET", path).text,
        )
        assert len(loaded) == 2
        for name in loaded:
            response = app.send("GET", name)
            assert response.status_code == 200, name
            loaded += [f"/{found}" for found in re.findall(r'from "\./(.+?)";', response.text)]
        assert set(loaded) == {"/sign-in.css", "/mailbox.js", "/client.js"}
        for missing in ("/", "/sign-in.js"):
            assert app.send("GET", missing).status_code == 404
            assert app.send("POST", missing).status_code == 404


@pytest.mark.parametrize("path", ["/", "/any/path", "/mailbox.js", "/../reset"])
def test_served_alone_it_gives_no_other_page(path: str) -> None:
    app = Application(Settings.from_env({"ENVIRONMENT": "development", "SESSION_SECRET": "x" * 32}))
    response = mailbox_page(app, Request(EnvironBuilder(path).get_environ()))
    assert response.status_code == 404


class TestMailOfDevelopment:
    """The page /mail."""

    @pytest.fixture
    def app(self, tmp_path: Path) -> Iterator[Served]:
        with served(ENVIRONMENT="development", USERS_FILE=f"{tmp_path}/users.json") as running:
            yield running

    def test_it_shows_the_newest_with_text_and_link(self, app: Served) -> None:
        assert "Nothing has been sent yet" in app.send("GET", "/mail").text
        for number in range(3):
            body = {"email": f"user{number}@example.com", "password": PASSWORD}
            assert app.post("/api/signup", body).status_code == 201
            assert len(delivered(app)) == number + 1
        response = app.send("GET", "/mail")
        found = re.findall(r"To (user\d@example.com)", response.text)
        assert found == ["user2@example.com", "user1@example.com", "user0@example.com"]
        assert response.text.count('<a href="http://localhost:8080/verify#token=') == 3
        assert "Please confirm your email address" in response.text
        assert "</a>\nThe link works" in response.text  # A line of its own, and one below it.
        assert response.headers["Content-Security-Policy"].startswith(
            "default-src 'none'; script-src 'none'; style-src 'nonce-"
        )

    def test_it_shows_text_and_never_markup(self, app: Served) -> None:
        folder = app.settings.mail.folder
        assert folder is not None
        folder.mkdir()
        evil = "<script>alert(1)</script>"
        (folder / "evil.eml").write_text(f"To: {evil}\nSubject: {evil}\n\n{evil}\n")
        (folder / "broken.eml").write_bytes(b"\xff\xfe\0 no mail")
        for number in range(60):
            (folder / f"old{number}.eml").write_text("Subject: old\n\nold\n")
        text = app.send("GET", "/mail").text
        assert "<script" not in text
        assert text.count("<article>") == 50

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("localhost", 200),
            ("localhost:8080", 200),
            ("127.0.0.1:8080", 200),
            ("[::1]:8080", 200),
            ("evil.example", 404),
            ("localhost.evil.example:8080", 404),
            ("localhost@evil.example", 404),
            ("127.0.0.1.evil.example", 404),
            ("192.0.2.1:8080", 404),
        ],
    )
    def test_it_is_shown_under_this_machines_own_names_only(
        self, app: Served, host: str, status: int
    ) -> None:
        assert app.send("GET", "/mail", [("Host", host)]).status_code == status


def test_the_german_has_every_sentence_of_the_pages_and_no_other() -> None:
    found = set()
    for name in ("sign-in.html", "mailbox.html"):
        found |= set(re.findall(r'\b_\(\s*"([^"]+)"', (PAGES / name).read_text()))
    for name in ("client.js", "sign-in.js", "mailbox.js"):
        text = re.sub(r'"\s*\+\s*"', "", (PAGES / name).read_text())
        found |= set(re.findall(r'\bsay\(\s*"([^"]+)"', text))
    found |= {mail_responses._ASKED, signup._CREATED, email_function._REQUESTED, logout._UNREAD}
    assert GERMAN["words"].keys() == found
    for english, german in GERMAN["words"].items():
        assert re.findall(r"\{\w+\}", english) == re.findall(r"\{\w+\}", german)


OF_OTHERS = {
    "account_in_use",  # of a deletion, which no page asks for
    "admin_required",
    "commit_unknown",
    "invalid_source",
    "not_admin",
    "password_unchanged",  # of /api/password, which no page calls
    "plan_outdated",
    "rows_rejected",
    "transfer_refused",
}


def test_the_german_has_a_sentence_for_every_error_that_the_pages_can_get() -> None:
    def kinds(kind: type[errors.AuthError]) -> Iterator[type[errors.AuthError]]:
        for each in kind.__subclasses__():
            yield each
            yield from kinds(each)

    codes = {
        kind.code
        for kind in kinds(errors.AuthError)
        if hasattr(kind, "code") and not issubclass(kind, errors.Unavailable)  # 503 has its own
    }
    assert codes - OF_OTHERS <= {key.partition(" ")[0] for key in GERMAN["errors"]}
