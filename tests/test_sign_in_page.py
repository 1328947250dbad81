"""The sign-in page in a real browser, before real emulators on each kind of store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import STORES
from tests.support.browser import open_page
from tests.support.emulator import Emulator, running_emulator
from tests.support.postgres import Server

PASSWORD = "correct horse battery staple"

OpenPage = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module", params=STORES)
def serving(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Emulator]:
    """An emulator on each kind of store in turn that serves the page."""
    settings = {"USERS_FILE": str(tmp_path_factory.mktemp("users") / "users.json")}
    if request.param == "postgres":
        postgres: Server = request.getfixturevalue("postgres")
        settings = {"DATABASE_URL": postgres.url(request.getfixturevalue("make_database")())}
    with running_emulator(SIGN_IN_PAGE="true", **settings) as running:
        yield running


@pytest.fixture
def page(browser: Browser, serving: Emulator) -> Iterator[Page]:
    """The page, opened by somebody new."""
    with open_page(browser, serving.url) as opened:
        yield opened


def _sign_up(page: Page, address: str, password: str = PASSWORD, name: str = "") -> None:
    page.get_by_role("button", name="Create an account").click()
    form = page.get_by_role("region", name="Create an account")
    form.get_by_label("Name").fill(name)
    form.get_by_label("Email address").fill(address)
    form.get_by_label("Password").fill(password)
    form.get_by_role("button", name="Create the account").click()


def _log_in(page: Page, address: str, password: str = PASSWORD) -> None:
    form = page.get_by_role("region", name="Log in")
    form.get_by_label("Email address").fill(address)
    form.get_by_label("Password").fill(password)
    form.get_by_role("button", name="Log in").click()


def _is_signed_in(page: Page, address: str) -> None:
    view = page.get_by_role("region", name="You are signed in")
    expect(view).to_contain_text(address)


def test_who_signs_up_is_signed_in_after_a_reload_too_and_out_after_logging_out(
    page: Page, address: str
) -> None:
    _sign_up(page, address, name="Ada <b>&amp;")
    _is_signed_in(page, address)
    expect(page.get_by_text("Ada <b>&amp;", exact=True)).to_be_visible()
    page.reload()
    _is_signed_in(page, address)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("status")).to_have_text("You are logged out.")
    page.reload()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    _log_in(page, address.upper())
    _is_signed_in(page, address)
