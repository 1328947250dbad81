"""What each kind of mail says, as text and as HTML.

No name that somebody has given stands in a mail: whoever signs up with a stranger's address could
send the stranger any text. A token stands in the link only, and a link in the kinds that have one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from string import Template

from shared.mail.english import ENGLISH
from shared.mail.german import GERMAN
from shared.mail.message import Message
from shared.mail.wording import Language, Letter
from shared.model.locales import DEFAULT_LOCALE
from shared.model.mails import LIFETIMES, Mail

LANGUAGES = {"en": ENGLISH, "de": GERMAN}

_NAME_THAT_FITS = 12
"""Characters of the application's name that stand in one line on any phone, even in a heading."""
_URL = re.compile(r"\$(?:home|link)")
_PARAGRAPH = "margin:0 0 16px"
_SMALL = "margin:16px 0 0;font-size:14px"
_BUTTON = (
    "display:inline-block;padding:12px 20px;border-radius:6px;background:#0b57d0;color:#fff;"
    "font-weight:600;text-decoration:none"
)
# Webmail drops <html> and <body>, so what they say is said again of the <div>. There is no colour
# of text or ground for a dark mode to get wrong.
_PAGE = Template("""\
<!doctype html>
<html lang="$locale">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="supported-color-schemes" content="light dark">
<meta name="format-detection" content="telephone=no, date=no, address=no, email=no">
<title>$$subject</title>
</head>
<body style="margin:0">
<div lang="$locale" dir="ltr" style="max-width:34em;margin:0 auto;padding:16px;\
font-family:system-ui,sans-serif;font-size:16px;line-height:1.5;overflow-wrap:anywhere">
<h1 style="margin:0 0 16px;font-size:22px;line-height:1.3">$heading</h1>
$paragraphs
<hr>
$small
</div>
</body>
</html>
""")


def compose(mail: Mail, *, link: str | None, application: str, home: str) -> Message:
    """Write a mail in its language, or in English if we do not write in that.

    `link` has the mail's token behind `#`; it is None for a kind without one. `home` is the address
    of the home page. In the text the link stands on a line of its own, and no line is wrapped.
    """
    if (link is not None) != (mail.kind in LIFETIMES):
        raise ValueError(f"A {mail.kind} mail {'needs a' if link is None else 'takes no'} link.")
    locale = mail.locale if mail.locale in LANGUAGES else DEFAULT_LOCALE
    language = LANGUAGES[locale]
    letter = language.letters[mail.kind]
    words = {
        "application": application,
        "home": home,
        "asked": language.asked(mail.created_at, mail.asked_from),
    }
    if link is not None:
        words |= {"link": link, "lifetime": language.duration(LIFETIMES[mail.kind])}
    words["subject"] = Template(letter.subject).substitute(words)
    return Message(
        id=mail.id,
        kind=mail.kind,
        recipient=mail.recipient,
        locale=locale,
        subject=words["subject"],
        text=_text(language, letter, words),
        html=_html(language, letter, words, locale),
    )


def _text(language: Language, letter: Letter, words: Mapping[str, str]) -> str:
    paragraphs = [
        language.greeting,
        letter.opening,
        *(["$link"] if letter.button else []),
        letter.if_it_was_you,
        letter.if_it_was_not,
        language.footer,
    ]
    return Template("\n\n".join(paragraphs) + "\n").substitute(words)


def _html(language: Language, letter: Letter, words: Mapping[str, str], locale: str) -> str:
    button, small = [], [language.footer]
    if letter.button:
        button = [f'<a href="$link" style="{_BUTTON}">{escape(letter.button)}</a>']
        small = [language.address, "$link", language.footer]
    paragraphs = [
        _markup(language.greeting),
        _markup(letter.opening),
        *button,
        _markup(letter.if_it_was_you),
        _markup(letter.if_it_was_not),
    ]
    page = _PAGE.substitute(
        locale=locale,
        heading=_markup(letter.subject),
        paragraphs=_lines(_PARAGRAPH, paragraphs),
        small=_lines(_SMALL, map(_markup, small)),
    )
    values = {name: escape(word) for name, word in words.items()}
    if len(words["application"]) <= _NAME_THAT_FITS:
        values["application"] = f'<span style="white-space:nowrap">{values["application"]}</span>'
    return Template(page).substitute(values)


def _markup(text: str) -> str:
    return _URL.sub(r'<a href="\g<0>">\g<0></a>', escape(text))


def _lines(style: str, paragraphs: Iterable[str]) -> str:
    return "\n".join(f'<p style="{style}">{text}</p>' for text in paragraphs)
