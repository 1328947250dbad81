"""Two applications in one process, with the same secret: whatever is one's is not the other's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from werkzeug.test import TestResponse

import main
from shared.credentials.mail_tokens import MailTokens
from shared.credentials.session_tokens import SessionTokens
from shared.model.mails import LIFETIMES, Mail, digest_of
from shared.model.users import User
from tests.support import commands
from tests.support.browser import open_page
from tests.support.emulator import Emulator, environment, running_emulator
from tests.support.in_process import Served, served
from tests.support.mails import in_folder, links
from tests.support.postgres import Server
from tests.support.relay import BLACK_HOLE, Relay
from tests.support.sign_in_page import is_signed_in, is_told_at, log_in, sign_up
from tests.support.waiting import until

PASSWORD, OTHER = "correct horse battery", "another horse battery"
ADMIN = "T25lIG9mIHNldmVyYWwgYXBwbGljYXRpb25zIG9mIGEgcHJvY2Vzcw"
NAMES = ("shop", "blog")
DEVELOPMENT = {
    "APPLICATIONS": "shop,blog",
    "ENVIRONMENT": "development",
    "SIGN_IN_BY_MAIL": "true",
    "ADMIN_TOKEN": ADMIN,
    "MAX_LOGIN_ATTEMPTS": "2",
}


class Called:
    """One application of a process, under its name."""

    def __init__(self, process: Served, name: str, host: str = "") -> None:
        self.name, self.host = name, host or f"{name}.localhost"
        self._process = process
        self.app = next(
            app for app in process.application.applications if app.settings.application == name
        )

    def send(
        self, method: str, path: str, *, cookie: str = "", bearer: str = "", **members: Any
    ) -> TestResponse:
        headers = [("Host", self.host)]
        headers += [("Cookie", f"session={cookie}")] if cookie else []
        headers += [("Authorization", f"Bearer {bearer}")] if bearer else []
        if method == "GET":
            return self._process.send(method, path, headers)
        return self._process.post(path, members, *headers, method=method)

    def sign_up(self, email: str, password: str = PASSWORD) -> dict[str, Any]:
        answer = self.send("POST", "/api/signup", email=email, password=password)
        assert answer.status_code == 201, answer.text
        return dict(answer.get_json()) | {"cookie": _cookie(answer)}

    def log_in(self, email: str, password: str = PASSWORD) -> int:
        return self.send("POST", "/api/login", email=email, password=password).status_code

    def users(self) -> int:
        found = self.send("GET", "/api/stats", bearer=ADMIN).get_json()
        return int(found["total_users"])


def _cookie(answer: TestResponse) -> str:
    return answer.headers["Set-Cookie"].split(";")[0].partition("=")[2]


@contextmanager
def _settings(store: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[dict[str, str]]:
    found = {f"{name.upper()}__USERS_FILE": f"{folder}/{name}/users.json" for name in NAMES}
    if store == "json":
        yield found
        return
    server: Server = request.getfixturevalue("postgres")
    make: Callable[[], str] = request.getfixturevalue("make_database")
    databases = {name: make() for name in NAMES}
    yield found | {
        f"{name.upper()}__DATABASE_URL": server.url(database)
        for name, database in databases.items()
    }
    for database in databases.values():
        server.drop_database(database)


@pytest.fixture(params=["json", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    with _settings(request.param, request, tmp_path) as found:
        yield DEVELOPMENT | found


@pytest.fixture
def process(settings: dict[str, str]) -> Iterator[Served]:
    with served(**settings) as running:
        yield running


@pytest.fixture
def shop(process: Served) -> Called:
    return Called(process, "shop")


@pytest.fixture
def blog(process: Served) -> Called:
    return Called(process, "blog")


def test_an_address_is_two_users_with_passwords_of_their_own(shop: Called, blog: Called) -> None:
    shop.sign_up("ada@example.com")
    assert blog.log_in("ada@example.com") == 401
    blog.sign_up("ada@example.com", OTHER)
    assert (shop.log_in("ada@example.com"), blog.log_in("ada@example.com", OTHER)) == (200, 200)
    assert (shop.log_in("ada@example.com", OTHER), blog.log_in("ada@example.com")) == (401, 401)


def _move(user: dict[str, Any], blog: Called) -> None:
    """Have the other application know the very same user, by the same id."""
    same = User(user["id"], user["email"], None, "local")
    blog.app.store.create_user(same, blog.app.hasher.hash(PASSWORD))
    assert blog.log_in(user["email"]) == 200


def test_no_token_of_one_works_at_the_other_where_even_the_user_is_the_same(
    shop: Called, blog: Called
) -> None:
    user = shop.sign_up("ada@example.com")
    _move(user, blog)
    assert shop.send("GET", "/api/user", cookie=user["cookie"]).status_code == 200
    assert blog.send("GET", "/api/user", cookie=user["cookie"]).status_code == 401
    now = time.time()
    for number, kind in enumerate(LIFETIMES):
        ids = f"00000000-0000-4000-8000-00000000000{number}", user["id"]
        digest = digest_of("ada@example.com")
        mail = Mail(ids[0], kind, "ada@example.com", ids[1], 0, digest, None, None, now, 0)
        token = shop.app.mail_tokens.issue(mail, now)
        for path, members in (
            ("/api/password/reset", {"newPassword": OTHER}),
            ("/api/email/verify", {"password": PASSWORD}),
            ("/api/login/mail/verify", {}),
        ):
            answer = blog.send("POST", path, token=token, **members)
            assert answer.status_code == 400, (kind, path)
            assert answer.get_json()["code"] == "invalid_mail_token"
        assert shop.app.mail_tokens.read(token, kind, now=now).user_id == user["id"]
    wake = shop.app.wake.authorization(now).removeprefix("Bearer ")
    assert shop.send("POST", "/api/mail/delivery", bearer=wake).status_code == 204
    assert blog.send("POST", "/api/mail/delivery", bearer=wake).status_code == 404


def test_one_alone_takes_no_token_of_several_and_the_reverse(shop: Called) -> None:
    user = shop.sign_up("ada@example.com")
    alone = SessionTokens(shop.app.signing)
    with pytest.raises(Exception, match="not from us or not for us"):
        alone.verify(user["cookie"])
    token = alone.issue(shop.app.tokens.verify(user["cookie"]).user, time.time()).text
    assert shop.send("GET", "/api/user", cookie=token).status_code == 401
    assert MailTokens(shop.app.signing)._audience == "ai-coder-mail"


def test_who_is_locked_out_of_one_is_not_of_the_other(shop: Called, blog: Called) -> None:
    for called in (shop, blog):
        called.sign_up("ada@example.com")
    for _ in range(3):
        shop.log_in("ada@example.com", OTHER)
    assert shop.log_in("ada@example.com") == 401  # The right one; a lock is not told apart.
    assert blog.log_in("ada@example.com") == 200


def test_statistics_account_and_export_are_of_one_alone(
    shop: Called, blog: Called, settings: dict[str, str], tmp_path: Path
) -> None:
    for email in ("ada@example.com", "eve@example.com"):
        shop.sign_up(email)
    bob = blog.sign_up("bob@example.com")
    assert (shop.users(), blog.users()) == (2, 1)
    account = blog.send("GET", "/api/account", cookie=bob["cookie"]).text
    assert "bob@example.com" in account
    assert "ada" not in account
    if "SHOP__DATABASE_URL" not in settings:
        return
    for name, emails in (
        ("shop", {"ada@example.com", "eve@example.com"}),
        ("blog", {"bob@example.com"}),
    ):
        path = tmp_path / f"{name}.export.json"
        variables = environment(**settings, APPLICATION=name)
        ended = commands.invoke(("export", "--output", str(path)), variables)
        assert ended.code == 0, ended.error
        assert {user["email"] for user in json.loads(path.read_bytes())} == emails


def test_a_command_that_does_not_say_which_one_is_told_to(settings: dict[str, str]) -> None:
    ended = commands.invoke(("status",), environment(**settings))
    assert ended.code == 2
    assert "APPLICATION must be one of shop, blog" in ended.error


@pytest.mark.parametrize(
    "host", ["other.localhost", "127.0.0.1:8080", "localhost", "", "shop localhost"]
)
def test_under_a_host_of_nobodys_there_is_nothing_but_health(process: Served, host: str) -> None:
    for path in {*main.ROUTES, *main.PAGES} - {"/api/livez", "/api/health"}:
        for method in ("GET", "POST", "OPTIONS"):
            answer = process.send(method, path, [("Host", host), ("Cookie", "session=x")])
            assert answer.status_code == 404, (method, path)
            assert "Set-Cookie" not in answer.headers
    for path in ("/api/livez", "/api/health"):
        assert process.send("GET", path, [("Host", host)]).status_code == 200


def test_a_host_of_nobodys_is_told_to_the_operator_once(
    process: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        process.send("GET", "/api/user", [("Host", "WWW.shop.localhost:8080")])
    forwarded = ("X-Forwarded-Host", "shop.localhost")
    process.send("GET", "/api/user", [("Host", "internal"), forwarded])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    one, other = (line for line in lines if line["message"].startswith("A host was called"))
    assert (one["host"], other["host"]) == ("www.shop.localhost", "internal")
    assert "TRUST_FORWARDED_HOST" in other["message"]


def test_health_by_an_address_is_connected_where_every_database_is(
    process: Served, settings: dict[str, str]
) -> None:
    has_database = "SHOP__DATABASE_URL" in settings
    found = process.send("GET", "/api/health", [("Host", "127.0.0.1")]).get_json()
    assert found["database"]["status"] == ("connected" if has_database else "disconnected")
    assert "shop" not in json.dumps(found)


def test_health_by_an_address_tells_of_one_database_that_is_away(
    settings: dict[str, str], postgres: Server, database: str
) -> None:
    urls = {
        "SHOP__DATABASE_URL": postgres.url(database),
        "BLOG__DATABASE_URL": postgres.url("none"),
    }
    with served(**settings | urls) as process:
        for host, status in (
            ("127.0.0.1", "dis"),
            ("blog.localhost", "dis"),
            ("shop.localhost", ""),
        ):
            found = process.send("GET", "/api/health", [("Host", host)]).get_json()
            assert found["database"]["status"] == f"{status}connected", host


@pytest.mark.parametrize("trusts", [False, True])
def test_a_forwarded_host_counts_only_where_a_setting_says_so(
    settings: dict[str, str], *, trusts: bool
) -> None:
    with served(**settings | {"TRUST_FORWARDED_HOST": str(trusts).lower()}) as process:
        headers = [("Host", "blog.localhost"), ("X-Forwarded-Host", "shop.localhost")]
        body = {"email": "ada@example.com", "password": PASSWORD}
        page = ("Origin", f"http://{'shop' if trusts else 'blog'}.localhost")
        assert process.post("/api/signup", body, *headers, page).status_code == 201
        shop, blog = (Called(process, name) for name in NAMES)
        found = [called.users() for called in (shop, blog)]
        assert found == [trusts, not trusts]
        other = ("Origin", f"http://{'blog' if trusts else 'shop'}.localhost")
        assert process.post("/api/login", body, *headers, other).status_code == 403


def test_each_line_of_the_log_names_the_application(
    shop: Called, blog: Called, capsys: pytest.CaptureFixture[str]
) -> None:
    for called in (shop, blog):
        called.sign_up("ada@example.com")
    lines: list[dict[str, str]] = []

    def of(message: str) -> set[str]:
        lines.extend(json.loads(line) for line in capsys.readouterr().out.splitlines())
        return {line["application"] for line in lines if line["message"].startswith(message)}

    assert of("signup 201") == {*NAMES}
    # Where a thread of its own writes it, too.
    until(lambda: of("A mail is in ") == {*NAMES})


def test_an_alert_names_the_application_and_a_probe_alone_is_enough_for_it(
    process: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Called(process, "shop")
    for _ in range(60):
        shop.app.alerts.record("login", 500, 0.1, "", time.monotonic())
    process.send("GET", "/api/livez", [("Host", "127.0.0.1")])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["application"] for line in lines if line.get("alert")] == ["shop"]


def test_metrics_name_the_application_of_each_pool(shop: Called, settings: dict[str, str]) -> None:
    text = shop.send("GET", "/api/metrics", bearer=ADMIN).text
    has_database = "SHOP__DATABASE_URL" in settings
    assert ('db_client_connections{application="shop"}' in text) is has_database
    assert 'application="blog"' not in text
    assert "\npassword_places_held 0.0" in text


def test_a_frozen_database_of_one_does_not_keep_the_other_waiting(
    postgres: Server, make_database: Callable[[], str], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        relay = stack.enter_context(Relay(postgres.port))
        urls = {
            "SHOP__USERS_FILE": f"{tmp_path}/shop/users.json",
            "BLOG__USERS_FILE": f"{tmp_path}/blog/users.json",
            "SHOP__DATABASE_URL": postgres.url(make_database(), port=relay.port),
            "BLOG__DATABASE_URL": postgres.url(make_database()),
        }
        changes = {
            "HASH_CONCURRENCY": "1",
            "DATABASE_MAX_CONNECTIONS": "3",
            "DATABASE_TIMEOUT": "3",
        }
        process = stack.enter_context(served(**DEVELOPMENT | urls | changes))
        shop, blog = Called(process, "shop"), Called(process, "blog")
        for called in (shop, blog):
            called.sign_up("ada@example.com")
        relay.mode = BLACK_HOLE
        threads = stack.enter_context(ThreadPoolExecutor(8))
        stuck = [threads.submit(shop.log_in, "ada@example.com") for _ in range(6)]
        until(lambda: process.application.bulkhead.counts().waiting >= 1)
        assert blog.log_in("ada@example.com") == 200
        assert not any(call.done() and call.result() == 200 for call in stuck)
        assert {call.result() for call in stuck} <= {503}
        pools = [app.store.database_status for app in process.application.applications]
        assert sum(pool.pool().total for pool in pools if pool) <= 3


@pytest.fixture(scope="module", params=["json", "postgres"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Emulator, Path]]:
    folder = tmp_path_factory.mktemp("applications")
    with (
        _settings(request.param, request, folder) as found,
        running_emulator(**DEVELOPMENT | found) as running,
    ):
        yield running, folder


def test_a_target_that_is_a_whole_url_chooses_over_the_header(site: tuple[Emulator, Path]) -> None:
    emulator, _ = site
    with emulator.client() as client:
        for host, target, status in (
            ("nobody.localhost", b"http://shop.localhost/api/user", 401),
            ("shop.localhost", b"http://nobody.localhost/api/user", 404),
            ("shop.localhost", b"/api/user", 401),
            ("nobody.localhost", b"/api/user", 404),
        ):
            request = client.build_request("GET", "/", headers={"Host": host})
            request.extensions["target"] = target
            assert client.send(request).status_code == status, (host, target)


def _posted(page: Page, path: str, **members: str) -> int:
    """Have the page itself send members, and give the status of the answer."""
    script = """async ([path, members]) => (await fetch(path, {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify(members),
    })).status"""
    return int(page.evaluate(script, [path, members]))


def test_in_a_browser_two_applications_on_two_names_never_meet(
    browser: Browser, site: tuple[Emulator, Path], address: str
) -> None:
    emulator, folder = site
    port = emulator.url.rpartition(":")[2]
    shop, blog = (f"http://{name}.localhost:{port}" for name in NAMES)
    with open_page(browser, "about:blank") as page:
        page.goto(f"{shop}/")
        sign_up(page, address)
        is_signed_in(page, address)
        page.goto(f"{blog}/")
        log_in(page, address)
        is_told_at(page, "Password", "Invalid email or password")
        page.reload()
        sign_up(page, address, OTHER)
        is_signed_in(page, address)
        cookies = {cookie["domain"]: cookie["value"] for cookie in page.context.cookies()}
        assert cookies.keys() == {"shop.localhost", "blog.localhost"}
        page.goto(f"{shop}/")
        is_signed_in(page, address)
        # What is mailed leads back to where it was asked for, and is of no use elsewhere.
        mails = {name: folder / name / "mail" for name in NAMES}
        assert _posted(page, "/api/password/forgot", email=address) == 202
        until(lambda: len(links(in_folder(mails["shop"]), address)) == 2)
        (_, token) = links(in_folder(mails["shop"]), address)[-1]
        assert len(links(in_folder(mails["blog"]), address)) == 1
        page.goto(f"{blog}/")
        sent = {"token": token, "newPassword": "a wholly new password"}
        assert _posted(page, "/api/password/reset", **sent) == 400
        is_signed_in(page, address)
        page.goto(f"{shop}/")
        assert _posted(page, "/api/password/reset", **sent) == 200
        page.reload()
        log_in(page, address, "a wholly new password")
        is_signed_in(page, address)
        page.goto(f"{blog}/")
        is_signed_in(page, address)
