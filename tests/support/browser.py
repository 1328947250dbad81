"""Headless Chromium, and what goes wrong in its pages without anybody seeing it."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, sync_playwright

from tests.support.serving import serving

_TELL_OF_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP: ${event.effectiveDirective} of ${event.blockedURI} ${event.sample}`));
"""
_kept: dict[tuple[str, str], Page] = {}
"""By the URL and the options: a new page costs Chromium a second."""
_REFUSED = "Failed to load resource: the server responded with a status of"


@contextmanager
def running_chromium(program: str) -> Iterator[Browser]:
    """Launch it, once for many pages. Without its sandbox, which root may not have."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=False)
        yield browser
        browser.close()
    _kept.clear()


@contextmanager
def open_page(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Open an empty page without cookies, and hold it to a silent console until the end.

    What counts are errors and warnings, uncaught exceptions, and violations of the content security
    policy; not that the API answered with a status of 400 or more, which Chromium always tells.
    """
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        is_answer = message.text.startswith(_REFUSED) and "/api/" in message.location["url"]
        if message.type in ("error", "warning") and not is_answer:
            complaints.append(message.text)

    def fail(error: Error) -> None:
        complaints.append(str(error))

    page = _page(browser, url, options)
    page.on("console", listen)
    page.on("pageerror", fail)
    try:
        yield page
        if options.get("java_script_enabled", True):
            # What was violated last is told by a task of its own.
            page.evaluate("new Promise((done) => setTimeout(done, 20))")
    finally:
        page.unroute_all()
        page.goto("about:blank")
        page.context.clear_cookies()
        page.remove_listener("console", listen)
        page.remove_listener("pageerror", fail)
    assert not complaints, complaints


def _page(browser: Browser, url: str, options: dict[str, Any]) -> Page:
    key = (url, repr(options))
    if key not in _kept:
        context = browser.new_context(base_url=url, **options)
        context.set_default_timeout(10_000)
        context.add_init_script(_TELL_OF_VIOLATIONS)
        _kept[key] = context.new_page()
    return _kept[key]


@contextmanager
def front_end(folder: Path) -> Iterator[str]:
    """Serve an empty page of another origin, by its name `localhost`."""
    folder.joinpath("index.html").write_text("<!doctype html><link rel=icon href=data:,>")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with serving(server):
        yield f"http://localhost:{server.server_port}"


def axe(page: Page) -> list[str]:
    """Name the rules of axe-core that the page breaks seriously or critically, and where."""
    return [
        f"{rule['id']}: {node['html']} {node['failureSummary']}"
        for rule in Axe().run(page).response["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def screenshot(page: Page, name: str) -> None:
    """Keep a picture of the page in the folder that the variable SCREENSHOTS names, if it does."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
