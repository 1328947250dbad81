"""What the mails say, and how that looks."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import product
from typing import Any, get_args

import pytest
from playwright.sync_api import Browser, Route

from shared.mail.letters import LANGUAGES, compose
from shared.mail.message import Message
from shared.model.locales import LOCALES
from shared.model.mails import LIFETIMES, Kind, Mail
from tests.support.browser import axe, open_page, screenshot

LINK = "https://auth.example.com/link#eyJhbGciOiJIUzI1NiJ9.e30.t-o_k"
HOME = "https://auth.example.com/"
KINDS: tuple[Kind, ...] = get_args(Kind)
TELLING: set[Kind] = {"login_link", "password_reset", "password_changed", "new_sign_in"}
"""The kinds that tell when and from where."""
EVERY = pytest.mark.parametrize(("kind", "locale"), list(product(KINDS, LOCALES)))
ELEMENTS = {"html", "head", "meta", "title", "body", "div", "h1", "p", "a", "span", "hr"}


def written(
    kind: Kind,
    locale: str | None = "en",
    *,
    link: str = LINK,
    application: str = "AI-Coder",
    home: str = HOME,
    **members: Any,
) -> Message:
    """Compose a mail of this kind, caused at seven minutes past midnight."""
    mail = Mail(
        id="6f1d7e0c-8a55-4a2e-9a0e-0d3f6b1c2a77",
        kind=kind,
        recipient="ada.lovelace@example.org",
        user_id="user-of-the-mail",
        epoch=7,
        email_digest="digest-of-the-address",
        locale=locale,
        asked_from="192.0.2.0/24",
        created_at=1_795_738_039.5,
        tries=1,
    )
    return compose(
        mail._replace(**members),
        link=link if kind in LIFETIMES else None,
        application=application,
        home=home,
    )


class Reading(HTMLParser):
    """What stands in an HTML page: its elements, and the text of each heading and paragraph."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("title", "h1", "p"):
            self.texts.append((tag, ""))

    def handle_data(self, data: str) -> None:
        if self.texts:
            tag, text = self.texts[-1]
            self.texts[-1] = (tag, text + data)

    def of(self, element: str) -> list[str]:
        return [text.strip() for tag, text in self.texts if tag == element]

    def attributes(self, name: str) -> list[str | None]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def test_there_is_a_language_for_each_locale() -> None:
    assert set(LANGUAGES) == set(LOCALES)


@EVERY
def test_a_letter_is_complete_and_its_two_parts_say_the_same(kind: Kind, locale: str) -> None:
    message = written(kind, locale)
    reading = Reading(message.html)
    html = reading.of("p")
    text = message.text.removesuffix("\n").split("\n\n")
    if kind in LIFETIMES:
        assert html[2] == LANGUAGES[locale].letters[kind].button
        assert html[5:7] == [LANGUAGES[locale].address, LINK]
        html[2:7] = [LINK, *html[3:5]]
    assert html == text
    assert reading.of("title") == reading.of("h1") == [message.subject]
    assert len(text) == (6 if kind in LIFETIMES else 5)
    assert "AI-Coder" in message.subject
    for part in (message.subject, *text):
        assert re.fullmatch(r"[^\n\r{}$%]+", part)
        assert part == part.strip()
    assert (message.kind, message.locale) == (kind, locale)


@EVERY
def test_a_link_stands_only_where_one_is_needed(kind: Kind, locale: str) -> None:
    message = written(kind, locale)
    hrefs = Reading(message.html).attributes("href")
    urls = re.findall(r"\w+://\S+", message.text)
    if kind in LIFETIMES:
        assert hrefs == [LINK, LINK]
        assert urls == [LINK]
        assert LINK in message.text.split("\n")
    else:
        assert hrefs == urls == [HOME]


@EVERY
def test_the_page_has_nothing_remote_and_names_its_language(kind: Kind, locale: str) -> None:
    reading = Reading(written(kind, locale).html)
    assert {element for element, _ in reading.elements} <= ELEMENTS
    assert reading.attributes("lang") == [locale, locale]
    assert not reading.attributes("src")
    assert not any("url(" in (style or "") for style in reading.attributes("style"))


@EVERY
def test_nothing_of_the_person_stands_in_it(kind: Kind, locale: str) -> None:
    message = written(kind, locale)
    said = message.subject + message.text + message.html
    for value in (message.id, message.recipient, "lovelace", "user-of-the-mail", "digest-of"):
        assert value not in said


@EVERY
def test_what_shows_a_message_shows_neither_the_address_nor_the_link(
    kind: Kind, locale: str
) -> None:
    message = written(kind, locale)
    for shown in (repr(message), str(message), f"{message}", repr([message])):
        assert kind in shown
        assert "@" not in shown
        assert "#" not in shown


@EVERY
def test_when_and_from_where_is_told_where_that_helps(kind: Kind, locale: str) -> None:
    text = written(kind, locale).text
    assert ("192.0.2" in text) == ("2026" in text) == (kind in TELLING)


ASKED = {
    ("en", "192.0.2.0/24"): "on 27 November 2026 at 00:07 UTC (your local time may differ), from "
    "an internet connection whose IP address begins with 192.0.2",
    ("en", "2001:db8:1::/48"): "on 27 November 2026 at 00:07 UTC (your local time may differ), "
    "from an internet connection whose IP address begins with 2001:db8:1",
    ("en", None): "on 27 November 2026 at 00:07 UTC (your local time may differ)",
    ("de", "192.0.2.0/24"): "am 27. November 2026 um 00:07 Uhr UTC (Ihre Ortszeit kann "
    "abweichen), von einem Internetanschluss aus, dessen IP-Adresse mit 192.0.2 beginnt",
    ("de", None): "am 27. November 2026 um 00:07 Uhr UTC (Ihre Ortszeit kann abweichen)",
}


@pytest.mark.parametrize(("locale", "network"), ASKED)
@pytest.mark.parametrize("kind", sorted(TELLING))
def test_time_and_network_are_written_out(kind: Kind, locale: str, network: str | None) -> None:
    text = written(kind, locale, asked_from=network).text
    assert re.search(re.escape(ASKED[locale, network]) + r"\. ", text)


@pytest.mark.parametrize(
    ("locale", "months"), [("en", ("January", "May", "December")), ("de", ("Januar", "März"))]
)
def test_each_month_has_its_name(locale: str, months: tuple[str, ...]) -> None:
    start_of_2026, month = 1_767_225_600, 30.4375 * 24 * 60 * 60
    asked = [LANGUAGES[locale].asked(start_of_2026 + (n + 0.5) * month, None) for n in range(12)]
    assert len({re.sub(r"[^a-zä]", "", text, flags=re.IGNORECASE) for text in asked}) == 12
    assert all(any(month in text for text in asked) for month in months)


DURATIONS = {
    60: ("one minute", "eine Minute"),
    15 * 60: ("15 minutes", "15 Minuten"),
    60 * 60: ("one hour", "eine Stunde"),
    90 * 60: ("90 minutes", "90 Minuten"),
    36 * 60 * 60: ("36 hours", "36 Stunden"),
    24 * 60 * 60: ("one day", "einen Tag"),
    3 * 24 * 60 * 60: ("3 days", "3 Tage"),
}


@pytest.mark.parametrize("seconds", DURATIONS)
@pytest.mark.parametrize("kind", sorted(LIFETIMES))
def test_how_long_the_link_works_is_what_its_token_goes_by(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, seconds: int
) -> None:
    monkeypatch.setitem(LIFETIMES, kind, seconds)
    english, german = DURATIONS[seconds]
    assert re.search(f"The link works (for|once, within) {english}", written(kind, "en").text)
    assert f"Der Link gilt {german} lang" in written(kind, "de").text


def test_links_work_as_long_as_is_promised() -> None:
    promised = {
        "verification": "3 days",
        "password_reset": "one hour",
        "login_link": "15 minutes",
        "email_change": "3 days",
        "invitation": "7 days",
    }
    assert {kind: LANGUAGES["en"].duration(LIFETIMES[kind]) for kind in LIFETIMES} == promised


HOSTILE = "<b class='x'>A&amp;B</b> \"$home ${link} $$ %s {0} \\1"
HOSTILE_LINK = "https://auth.example.com/?a=1&b=2\"'<i>&lt;$home#x"


@EVERY
def test_whatever_is_written_into_a_letter_is_text(kind: Kind, locale: str) -> None:
    message = written(
        kind,
        locale,
        application=HOSTILE,
        link=HOSTILE_LINK,
        home=HOSTILE_LINK,
        asked_from=HOSTILE,
    )
    reading = Reading(message.html)
    assert {element for element, _ in reading.elements} <= ELEMENTS
    assert set(reading.attributes("href")) == {HOSTILE_LINK}
    assert reading.of("title") == reading.of("h1") == [message.subject]
    assert HOSTILE in message.subject
    assert HOSTILE_LINK in message.text
    paragraphs = message.text.rstrip("\n").split("\n\n")
    assert set(paragraphs) <= set(reading.of("p"))
    if kind in TELLING:
        assert any(HOSTILE in text for text in paragraphs[:-1])


@EVERY
def test_germans_are_addressed_formally(kind: Kind, locale: str) -> None:
    text = written(kind, locale).text
    assert bool(re.search(r"\b(Sie|Ihr|Ihre|Ihrem)\b", text)) == (locale == "de")
    assert not re.search(r"\b(du|dich|dir|dein\w*|euch|euer)\b", text, re.IGNORECASE)


@pytest.mark.parametrize("locale", [None, "", "fr", "de-AT", "DE"])
def test_whose_language_we_do_not_write_gets_english(locale: str | None) -> None:
    assert written("login_link", locale) == written("login_link", "en")


@pytest.mark.parametrize("kind", KINDS)
def test_a_mail_without_the_link_that_it_needs_is_not_written(kind: Kind) -> None:
    mail = Mail("id", kind, "a@example.org", "user", 0, "email_digest", "en", None, 0.0, 0)
    link = None if kind in LIFETIMES else LINK
    with pytest.raises(ValueError, match=rf"A {kind} mail (needs a|takes no) link\.") as caught:
        compose(mail, link=link, application="AI-Coder", home=HOME)
    assert "token" not in str(caught.value)


LONG_LINK = f"https://auth.example.com/reset#{'eyJhbGciOiJIUzI1NiIsInR5cCI6InJlc2V0K2p3dCJ9' * 8}"

NO_NAME_IS_BROKEN = """
[...document.querySelectorAll("span")].every((name) => name.getClientRects().length === 1)
"""
GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 18, 18)"}


@pytest.mark.parametrize("scheme", GROUNDS)
@pytest.mark.parametrize(
    "kinds", [("password_reset",), pytest.param(KINDS, marks=pytest.mark.long)], ids=["one", "all"]
)
def test_it_looks_well_on_a_phone(browser: Browser, kinds: tuple[Kind, ...], scheme: str) -> None:
    requests: list[str] = []

    def refuse(route: Route) -> None:
        requests.append(route.request.url)
        route.abort()

    with open_page(browser, "about:blank", color_scheme=scheme, is_mobile=True) as page:
        page.route("**", refuse)
        for kind, locale in product(kinds, LOCALES):
            page.set_viewport_size({"width": 360, "height": 640})
            page.set_content(written(kind, locale, link=LONG_LINK).html)
            screenshot(page, f"mail-{kind}-{locale}-{scheme}")
            # Without it axe takes the ground for white.
            page.evaluate("document.body.style.background = 'Canvas'")
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert ground == GROUNDS[scheme]
            assert axe(page) == []
            page.set_viewport_size({"width": 320, "height": 640})
            for application in ("AI-Coder", "W-WWWWWWWWWW", "W" * 60):
                letter = written(kind, locale, link=LONG_LINK, application=application)
                page.set_content(letter.html)
                assert page.evaluate("document.documentElement.scrollWidth") == 320
                assert page.evaluate(NO_NAME_IS_BROKEN)
    assert requests == []
