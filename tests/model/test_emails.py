"""One address has one key."""

from __future__ import annotations

import subprocess
import sys

import pytest
from email_validator import SPECIAL_USE_DOMAIN_NAMES, validate_email
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidInput
from shared.model.emails import _PLAIN, email_key, parse_new_email
from tests.support.emulator import ROOT, environment

UNTIMED = settings(deadline=None)  # The first example loads the validator.


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Grace.Hopper@Example.COM\n", "grace.hopper@example.com"),
        ("ÜMLAUT@Example.de", "ümlaut@example.de"),
        ("u\u0308mlaut@example.de", "ümlaut@example.de"),
        ("x@BÜCHER.example", "x@bücher.example"),
        ("x@xn--bcher-kva.example", "x@bücher.example"),
        ("X@XN--BCHER-KVA.EXAMPLE", "x@bücher.example"),
        ("x@\uff45xample.com", "x@example.com"),
        ("\u200bAda@example.com\u200f", "ada@example.com"),
        ("\ufeff \u200c\u200b ada@exa\u00admple.com\u2069\u200d", "ada@example.com"),
        ("क्\u200dष@example.com", "क्\u200dष@example.com"),
        ("x@b\u200bücher.example", "x@bücher.example"),
        ("\u200b\u2060", ""),
        ("mari+ai-coder@example.net", "mari+ai-coder@example.net"),
        ("o'brien@example.ie", "o'brien@example.ie"),
        ("admin@LOCALHOST", "admin@localhost"),
        ("No Address", "no address"),
        ("", ""),
    ],
)
def test_every_spelling_of_an_address_has_the_same_key(address: str, key: str) -> None:
    assert email_key(address) == key


@UNTIMED
@given(st.one_of(st.text(), st.emails()))
def test_the_key_of_a_key_is_itself(address: str) -> None:
    key = email_key(address)
    assert email_key(key) == key


@UNTIMED
@given(st.emails())
def test_the_short_way_for_ascii_gives_what_the_validator_gives(address: str) -> None:
    try:
        normalized = validate_email(address, check_deliverability=False).normalized
    except ValueError:
        return
    if normalized.isascii():
        assert email_key(address) == normalized.lower()


@UNTIMED
@given(
    st.one_of(
        st.from_regex(_PLAIN, fullmatch=True),
        st.from_regex(r"[a-z.+-]{1,9}@[a-z.-]{1,9}\.(com|test|xn--p1ai)", fullmatch=True),
    )
)
def test_the_short_way_for_plain_addresses_decides_as_the_validator_does(address: str) -> None:
    try:
        expected = validate_email(address, check_deliverability=False).normalized
    except ValueError:
        with pytest.raises(InvalidInput):
            parse_new_email(address)
    else:
        assert parse_new_email(address) == expected.lower()


@pytest.mark.parametrize("domain", SPECIAL_USE_DOMAIN_NAMES)
def test_a_domain_that_is_not_the_internets_is_refused(domain: str) -> None:
    for address in (f"ada@{domain}", f"ada@example.{domain}"):
        with pytest.raises(InvalidInput):
            parse_new_email(address)


def test_a_plain_address_does_not_load_the_validator() -> None:
    code = (
        "import sys; from shared.model.emails import parse_new_email;"
        "parse_new_email('Ada.Lovelace+x@mail.example.co.uk'); print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, check=True
    )
    assert "email_validator" not in result.stdout.decode().split()


@pytest.mark.parametrize(
    "address", ["", "no-at-sign", "a@b@example.com", "a@localhost", "a@example.test", "a b@c.de"]
)
def test_a_new_address_must_be_able_to_receive_mail(address: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_new_email(address)
    assert caught.value.field == "email"
    assert caught.value.sentence
