"""Addresses as mail servers take them, and those that no mail can be sent to."""

from __future__ import annotations

import pytest

from shared.mail.addresses import InvalidAddress, Mailbox, with_ascii_domain


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ada@example.com", "ada@example.com"),
        ("ada@localhost", "ada@localhost"),
        ("a..b.@docomo.example", "a..b.@docomo.example"),
        ("!#$%&'*+/=?^_`{|}~-@example.com", "!#$%&'*+/=?^_`{|}~-@example.com"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@faß.example", "ada@xn--fa-hia.example"),
        ("аня@почта.рф", "аня@xn--80a1acny.xn--p1ai"),
        ("उदाहरण\u200d@example.com", "उदाहरण\u200d@example.com"),
        (f"{'a' * 64}@example.com", f"{'a' * 64}@example.com"),
    ],
)
def test_an_address_has_its_domain_in_ascii(address: str, expected: str) -> None:
    assert with_ascii_domain(address) == expected


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "no @"),
        ("ada", "no @"),
        ("ada@", "no domain"),
        ("@example.com", "before its @"),
        ("ada@example..com", "no domain"),
        ("ada@-example.com", "no domain"),
        ("ada@[192.0.2.1]", "no domain"),
        ("ada@exa mple.com", "no domain"),
        ("ada@example.com\r\nRCPT TO:<eve@example.com>", "no domain"),
        ("ada@\u2028example.com", "no form in ASCII"),
        (f"ada@{'ü' * 64}.example", "no form in ASCII"),
        ("ada\r\nBcc: eve@example.com", "a character"),
        ("ada\n@example.com", "a character"),
        ("ada\0@example.com", "a character"),
        ("ada\x85@example.com", "a character"),
        ("ada\u2028@example.com", "a character"),
        ("ada>@example.com", "a character"),
        ("<ada@example.com", "a character"),
        ('"ada b"@example.com', "a character"),
        ("ada@b@example.com", "a character"),
        ("ada,eve@example.com", "a character"),
        ("ada\udc80@example.com", "not Unicode"),
        (f"{'a' * 65}@example.com", "too long"),
        (f"{'ü' * 33}@example.com", "too long"),
        (f"{'a' * 64}@{'.'.join(['a' * 63] * 3)}", "too long"),
    ],
)
def test_an_address_that_could_not_be_said_is_refused_unquoted(address: str, reason: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        with_ascii_domain(address)
    assert reason in str(caught.value)
    assert "ada" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        ("no-reply@example.com", Mailbox("", "no-reply@example.com")),
        ("<no-reply@example.com>", Mailbox("", "no-reply@example.com")),
        ("AI-Coder <no-reply@example.com>", Mailbox("AI-Coder", "no-reply@example.com")),
        ("AI-Coder<no-reply@example.com>", Mailbox("AI-Coder", "no-reply@example.com")),
        ('"Coder, AI" <a@example.com>', Mailbox("Coder, AI", "a@example.com")),
        (r'"A \"B\" \\ C" <a@example.com>', Mailbox(r'A "B" \ C', "a@example.com")),
        ("Böses Büro <a@bücher.example>", Mailbox("Böses Büro", "a@xn--bcher-kva.example")),
    ],
)
def test_a_mailbox_has_a_name_or_none(text: str, mailbox: Mailbox) -> None:
    assert Mailbox.parse(text) == mailbox


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("AI-Coder", "no @"),
        ("A <a@example.com> <b@example.com>", "no @|a character|no domain"),
        ("A <a@example.com> B", "no @|a character|no domain"),
        ("a@example.com, b@example.com", "a character"),
        ("A\r\nBcc: b@example.com <a@example.com>", "cannot be printed"),
        ("A\udc80 <a@example.com>", "cannot be printed"),
        (f"{'A' * 101} <a@example.com>", "more than 100 characters"),
        ("ä@example.com", "not in ASCII"),
    ],
)
def test_what_is_no_mailbox_is_told(text: str, reason: str) -> None:
    with pytest.raises(InvalidAddress, match=reason):
        Mailbox.parse(text)
