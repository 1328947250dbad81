"""What somebody does on the sign-in page, and sees there."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

PASSWORD = "correct horse battery staple"


def send_form(page: Page, name: str, **values: str) -> None:
    """Fill in a form and send it."""
    form = page.get_by_role("region", name=name)
    for label, value in values.items():
        form.get_by_label(label).fill(value)
    form.locator("form button").click()


def sign_up(page: Page, address: str, password: str = PASSWORD, name: str = "") -> None:
    page.get_by_role("button", name="Create an account").click()
    send_form(page, "Create an account", Name=name, Email=address, Password=password)


def log_in(page: Page, address: str, password: str = PASSWORD) -> None:
    send_form(page, "Log in", Email=address, Password=password)


def is_signed_in(page: Page, address: str) -> None:
    expect(page.get_by_role("region", name="You are signed in")).to_contain_text(address)


def is_told_at(page: Page, label: str, sentence: str) -> None:
    """A field is marked, focused and described by the sentence, which is an alert as well."""
    field = page.get_by_role("textbox", name=label).locator("visible=true")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile(re.escape(sentence)))
    expect(page.get_by_role("alert").filter(has_text=sentence)).to_be_visible()
