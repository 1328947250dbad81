"""What is done by mail from the page to the page: by a real mail server, and links as it got them.

Links are opened in Chromium as they stand in the mail; where they lead and what is asked there is
in test_mail_pages.py in full.
"""

from __future__ import annotations

import email
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from email import policy
from email.message import EmailMessage
from itertools import product
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect

from functions.pages.rendering import PAGES
from shared.mail.letters import LANGUAGES
from shared.model.mails import LIFETIMES, Kind
from tests.conftest import STORES
from tests.support.browser import open_page, screenshot
from tests.support.emulator import Emulator, running_emulator
from tests.support.mail_servers import Certificates, MailServer, url_of
from tests.support.mails import text
from tests.support.postgres import Server, free_port
from tests.support.sign_in_page import PASSWORD
from tests.support.waiting import until

NEW = "a wholly new password"
HOME, AWAY = {"X-Forwarded-For": "198.51.100.7"}, {"X-Forwarded-For": "203.0.113.9"}
WORDS = {"en": {}, "de": json.loads((PAGES / "de.json").read_text())["words"]}
OPTIONAL, REQUIRED = "optional", "required"


class Site(NamedTuple):
    """A service that mails by SMTP, the mail server, and the language of who uses both."""

    emulator: Emulator
    server: MailServer
    locale: str

    def say(self, words: str) -> str:
        """Give what stands on the page in the place of the English words."""
        return str(WORDS[self.locale].get(words, words))

    def mail(self, kind: Kind, to: str) -> EmailMessage:
        """Wait for the mail server to get a mail of a kind to an address, and give it."""
        subject = LANGUAGES[self.locale].letters[kind].subject
        subject = subject.replace("$application", "AI-Coder")

        def found() -> EmailMessage | None:
            for envelope in self.server.received:
                assert isinstance(envelope.content, bytes)
                mail = email.message_from_bytes(envelope.content, policy=policy.default)
                if envelope.rcpt_tos == [to] and mail["Subject"] == subject:
                    return mail
            return None

        mail = until(found)
        assert mail is not None
        assert mail["To"] == to
        assert ("#token" in text(mail)) == (kind in LIFETIMES)
        return mail

    def link(self, kind: Kind, to: str) -> str:
        """Wait for a mail, and give its link as it stands there."""
        (found,) = re.findall(
            rf"^{self.emulator.url}/\S+$", text(self.mail(kind, to)), re.MULTILINE
        )
        return str(found)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Those of the mail server."""
    return Certificates(tmp_path_factory.mktemp("mail"))


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest,
    certificates: Certificates,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """A service with all that mail is for: its store, EMAIL_VERIFICATION, a visitor's language."""
    store, verification, locale = request.param
    settings = {
        "USERS_FILE": str(tmp_path_factory.mktemp("smtp") / "users.json"),
        "EMAIL_VERIFICATION": verification,
        "SIGN_IN_BY_MAIL": "true",
        "SIGN_IN_PAGE": "true",
        "TRUSTED_PROXIES": "1",
        "MAIL_FROM": "AI-Coder <no-reply@example.com>",
        "SSL_CERT_FILE": certificates.roots,
    }
    if store == "postgres":
        server: Server = request.getfixturevalue("postgres")
        make_database: Callable[[], str] = request.getfixturevalue("make_database")
        settings["DATABASE_URL"] = server.url(make_database())
    port = str(free_port())
    with MailServer(certificates.context()).running() as mails:
        settings |= {"MAIL_URL": url_of(mails.port), "PUBLIC_URL": f"http://127.0.0.1:{port}"}
        with running_emulator(port=port, **settings) as running:
            yield Site(running, mails, locale)
        assert mails.logins


def _phone(browser: Browser, site: Site) -> AbstractContextManager[Page]:
    locale = {"en": "en-US", "de": "de-DE"}[site.locale]
    viewport = {"width": 360, "height": 640}
    return open_page(browser, site.emulator.url, locale=locale, viewport=viewport)


class Visitor:
    """Somebody with a phone, who reads what stands on the page in their language."""

    def __init__(self, site: Site, page: Page) -> None:
        self.site, self.page = site, page
        page.set_extra_http_headers(HOME)

    def fill(self, **values: str) -> None:
        """Fill in fields that are shown, by their names."""
        for name, value in values.items():
            self.page.locator(f"input[name={name}]:visible").fill(value)

    def press(self, words: str) -> None:
        """Press a button that is shown."""
        button = self.page.get_by_role("button", name=self.site.say(words), exact=True)
        button.locator("visible=true").click()

    def sees(self, heading: str) -> None:
        """The page has come to what has this heading."""
        shown = self.page.get_by_role("heading", level=2).locator("visible=true")
        expect(shown).to_have_text(self.site.say(heading))
        name = re.sub(r"\W+", "-", heading.lower()).strip("-")
        screenshot(self.page, f"smtp-{self.site.locale}-{name}")

    def signs_up(self, address: str) -> None:
        self.page.goto("/")
        self.press("Create an account")
        self.fill(email=address, password=PASSWORD)
        self.press("Create the account")

    def logs_in(self, address: str, password: str) -> None:
        self.page.goto("/")
        self.fill(email=address, password=password)
        self.press("Log in")

    def asks_for_a_link(self, page: str, address: str) -> None:
        self.page.goto(page)
        self.fill(email=address)
        self.press("Send me a link")
        self.sees("Please check your mail")

    def changes_the_address(self, address: str) -> None:
        self.page.goto("/email")
        self.sees("Your email address")
        self.fill(newEmail=address, password=PASSWORD)
        self.press("Change")
        self.sees("Please check your mail")

    def opens(self, kind: Kind, to: str, heading: str) -> None:
        """Open the link of a mail, of which nothing is left in the address bar."""
        link = self.site.link(kind, to)
        self.page.goto(link)
        self.sees(heading)
        assert self.page.url == link.partition("#")[0]

    def is_signed_in(self, address: str) -> None:
        self.sees("You are signed in")
        expect(self.page.get_by_text(address)).to_be_visible()

    def leaves(self) -> None:
        """Come again as a browser that knows nothing."""
        self.page.context.clear_cookies()


def _sites(verification: str, *, first: tuple[str, str]) -> pytest.MarkDecorator:
    """Have a test run on a store in a language, and where there is time on each in each."""
    params = [
        pytest.param((store, verification, locale), marks=[] if is_first else [pytest.mark.long])
        for store, locale in product(STORES, WORDS)
        for is_first in [(store, locale) == first]
    ]
    return pytest.mark.parametrize("site", params, indirect=True, ids=str)


@_sites(OPTIONAL, first=("postgres", "en"))
def test_an_account_lives_by_mail(site: Site, browser: Browser, address: str) -> None:
    new = f"new.{address}"
    with _phone(browser, site) as page:
        visitor = Visitor(site, page)

        visitor.signs_up(address)
        visitor.is_signed_in(address)
        visitor.opens("verification", address, "Confirm your email address")
        visitor.press("Confirm")
        visitor.sees("Your email address is confirmed")

        owner = f"owner.{address}"
        with site.emulator.client(headers={"Accept-Language": site.locale} | HOME) as other:
            person = {"email": owner, "password": PASSWORD}
            assert other.post("/api/signup", json=person).status_code == 201
        visitor.changes_the_address(owner)
        site.mail("address_taken", owner)
        visitor.changes_the_address(new)
        visitor.opens("email_change", new, "Confirm your email address")
        visitor.press("Confirm")
        visitor.sees("Your email address is confirmed")
        site.mail("email_changed", address)

        visitor.leaves()
        visitor.asks_for_a_link("/reset", new)
        visitor.opens("password_reset", new, "Choose a new password")
        visitor.fill(newPassword=NEW)
        visitor.press("Change the password")
        visitor.sees("Your password has been changed")
        site.mail("password_changed", new)

        visitor.logs_in(new, NEW)
        visitor.is_signed_in(new)
        visitor.leaves()
        page.set_extra_http_headers(AWAY)
        visitor.logs_in(new, NEW)
        visitor.is_signed_in(new)
        assert "203.0.113" in text(site.mail("new_sign_in", new))

        visitor.leaves()
        visitor.asks_for_a_link("/link", new)
        visitor.opens("login_link", new, "Sign in")
        visitor.press("Sign in")
        visitor.is_signed_in(new)

        assert page.request.delete("/api/account", data={"password": NEW}).status == 204
        site.mail("account_deleted", new)
        assert len(site.server.received) == 10


@_sites(OPTIONAL, first=("json", "de"))
def test_an_address_that_is_not_proved_is_corrected_or_taken_back(
    site: Site, browser: Browser, address: str
) -> None:
    with _phone(browser, site) as page:
        visitor = Visitor(site, page)
        visitor.signs_up(f"typo.{address}")
        visitor.is_signed_in(f"typo.{address}")
        visitor.changes_the_address(f"right.{address}")
        visitor.leaves()
        visitor.opens("email_change", f"right.{address}", "Confirm your email address")
        visitor.press("Confirm")
        visitor.fill(password=PASSWORD)
        visitor.press("Confirm")
        visitor.sees("Your email address is confirmed")
        visitor.logs_in(f"right.{address}", PASSWORD)
        visitor.is_signed_in(f"right.{address}")
        visitor.leaves()

        with site.emulator.client(headers=AWAY) as stranger:
            person = {"email": address, "password": PASSWORD}
            assert stranger.post("/api/signup", json=person).status_code == 201
            visitor.asks_for_a_link("/link", address)
            visitor.opens("login_link", address, "Sign in")
            visitor.press("Sign in")
            visitor.is_signed_in(address)
            assert stranger.get("/api/account").status_code == 401
            assert stranger.post("/api/login", json=person).status_code == 401
        account = page.request.get("/api/account").json()
        assert (account["emailVerified"], account["hasPassword"]) == (True, False)


@_sites(REQUIRED, first=("json", "de"))
def test_where_the_address_has_to_be_proved_first_a_sign_up_goes_by_mail(
    site: Site, browser: Browser, address: str
) -> None:
    with _phone(browser, site) as page:
        visitor = Visitor(site, page)
        visitor.signs_up(address)
        visitor.sees("Log in")
        expect(page.get_by_role("status")).not_to_be_empty()
        visitor.logs_in(address, PASSWORD)
        expect(page.locator("#log-in-password-error")).not_to_be_empty()
        visitor.opens("verification", address, "Confirm your email address")
        visitor.press("Confirm")
        visitor.fill(password=PASSWORD)
        visitor.press("Confirm")
        visitor.sees("Your email address is confirmed")
        visitor.logs_in(address, PASSWORD)
        visitor.is_signed_in(address)
        visitor.leaves()
        visitor.signs_up(address)
        visitor.sees("Log in")
        site.mail("address_taken", address)
