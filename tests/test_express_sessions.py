"""Who is logged in on the old server stays logged in here, and nobody else is let in by that."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from shared.express_sessions import session_id
from tests.support import express
from tests.support.express import RECORDED, SECRETS

SESSIONS = RECORDED["sessions"]
FIRST, SECOND, *_ = SESSIONS


def _value(cookie: str) -> str:
    return cookie.removeprefix("connect.sid=")


# The cookie


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session["sid"])
def test_each_recorded_cookie_gives_its_sid_under_whichever_secret_signed_it(
    session: dict[str, str],
) -> None:
    value = _value(express.cookie(session))
    for secrets in ((RECORDED["secret"],), SECRETS.split(",")):
        assert session_id(value, secrets) == session["sid"]
        assert session_id(unquote(value), secrets) == session["sid"]


def test_the_recorded_signatures_hold_what_percent_encoding_changes() -> None:
    signatures = "".join(express.cookie(session) for session in SESSIONS)
    assert signatures.count("%2B") > 2
    assert signatures.count("%2F") > 2


@pytest.mark.parametrize(
    "value",
    [
        "",
        "s:",
        "s:.",
        "s%3A",
        "not-signed",
        f"s:{FIRST['sid']}",
        f"s:{FIRST['sid']}.",
        f"s:{FIRST['sid']}.{'A' * 43}",
        f"s:{FIRST['sid']}.{'é' * 43}",
        f"j:{FIRST['sid']}",
        unquote(_value(express.cookie(FIRST))).removeprefix("s:"),
        unquote(_value(express.cookie(FIRST))) + "=",
        unquote(_value(express.cookie(FIRST))) + "\n",
        unquote(_value(express.cookie(FIRST))).replace(FIRST["sid"], SECOND["sid"]),
        _value(express.cookie(FIRST)).replace("%3A", "%253A"),
        _value(express.sign(FIRST["sid"], "another secret")),
        _value(express.sign(FIRST["sid"], "")),
        _value(express.sign("")),
        _value(express.sign("zero\0")),
        _value(express.sign("snowman\N{SNOWMAN}")),
        _value(express.sign("long" * 25_000)),
        "%ff%fe",
        "s:\ud800." + "A" * 43,
        "s%3A" * 25_000,
    ],
)
def test_a_value_that_no_secret_signed_or_no_library_wrote_gives_no_sid(value: str) -> None:
    assert session_id(value, SECRETS.split(",")) is None


def test_without_secrets_nothing_is_proven() -> None:
    assert session_id(_value(express.sign("sid", "")), ()) is None
