"""The settings of several applications: what each has of its own, and what all have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.environment import InvalidSettings
from shared.settings import _OF_THE_PROCESS, OF_ONE, Settings
from tests.support.emulator import SECRET

URL = "postgresql://user:secret-canary@ep-{}-pooler.eu.aws.neon.tech/db?sslmode=require"
DEVELOPMENT = {"APPLICATIONS": "shop, blog", "SESSION_SECRET": SECRET}
PRODUCTION = {
    "APPLICATIONS": "shop,blog",
    "ENVIRONMENT": "production",
    "SESSION_SECRET": SECRET,
    "SHOP__DATABASE_URL": URL.format("one"),
    "SHOP__HOSTS": "shop.example.com, www.shop.example.com",
    "BLOG__DATABASE_URL": URL.format("two"),
    "BLOG__HOSTS": "blog.example.com",
}


def _problems(variables: dict[str, str]) -> list[str]:
    with pytest.raises(InvalidSettings) as caught:
        Settings.all_from_env(variables)
    assert "secret-canary" not in str(caught.value)
    return caught.value.problems


def test_an_application_has_the_common_settings_and_its_own_before_them() -> None:
    variables = PRODUCTION | {
        "COOKIE_NAME": "__Host-all",
        "BLOG__COOKIE_NAME": "__Host-blog",
        "SHOP__MAX_LOGIN_ATTEMPTS": "3",
    }
    shop, blog = Settings.all_from_env(variables)
    assert (shop.application, blog.application) == ("shop", "blog")
    assert (shop.web.cookie_name, blog.web.cookie_name) == ("__Host-all", "__Host-blog")
    assert (shop.store.limits.login, blog.store.limits.login) == (3, 5)
    assert shop.web.hosts == {"shop.example.com", "www.shop.example.com"}
    assert shop.database.url != blog.database.url
    assert shop.credentials.session_secrets == blog.credentials.session_secrets


def test_in_development_each_has_a_name_of_this_machine_and_a_file_without_a_setting() -> None:
    shop, blog = Settings.all_from_env(DEVELOPMENT | {"PORT": "8123"})
    assert [*shop.web.hosts, *blog.web.hosts] == ["shop.localhost", "blog.localhost"]
    assert shop.mail.public_url == "http://shop.localhost:8123"
    assert shop.store.users_file.parts[-3:] == (".data", "shop", "users.json")
    assert blog.mail.folder == blog.store.users_file.with_name("mail")
    assert shop.mail.folder != blog.mail.folder


def test_one_application_alone_has_no_name_and_reads_no_host() -> None:
    variables = {"SHOP__DATABASE_URL": "not looked at", "HOSTS": "https://not.looked.at"}
    (only,) = Settings.all_from_env(variables)
    assert (only.application, *only.web.hosts) == ("",)


@pytest.mark.parametrize("name", OF_ONE)
def test_what_two_can_never_share_is_not_set_for_all(name: str) -> None:
    (found,) = _problems(PRODUCTION | {name: "secret-canary"})
    assert found == f"{name} cannot be common: set SHOP__{name}, or delete it."


def test_an_empty_setting_of_its_own_takes_a_common_one_away() -> None:
    common = {"ADMIN_TOKEN": SECRET, "FIREBASE_PROJECT_ID": "project-1", "MAX_SIGNUPS": "7"}
    own = {"BLOG__ADMIN_TOKEN": "", "BLOG__FIREBASE_PROJECT_ID": " ", "BLOG__MAX_SIGNUPS": ""}
    shop, blog = Settings.all_from_env(PRODUCTION | common | own)
    assert (shop.administrators.exist, blog.administrators.exist) == (True, False)
    assert (shop.credentials.firebase_project_id, blog.credentials.firebase_project_id) == (
        "project-1",
        None,
    )
    assert (shop.store.limits.sign_up, blog.store.limits.sign_up) == (7, 50)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("Shop,blog", "not 'Shop'"),
        ("shop,b_log", "not 'b_log'"),
        ("shop,2nd", "not '2nd'"),
        ("shop,a--b", "not 'a--b'"),
        ("shop,blog-", "not 'blog-'"),
        ("shop," + "a" * 32, "not 'aaaa"),
        ("shop,shöp", "not 'shöp'"),
        ("shop,blog,shop", "APPLICATIONS names one twice."),
    ],
)
def test_a_name_that_cannot_begin_a_variable_is_refused(names: str, problem: str) -> None:
    assert any(problem in sentence for sentence in _problems({"APPLICATIONS": names}))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("BOLG__DATABASE_URL", "BOLG__DATABASE_URL is nobody's: APPLICATIONS names shop, blog."),
        ("SHOP__DATABSE_URL", "SHOP__DATABSE_URL is no setting: there is no DATABSE_URL."),
        ("SHOP__PORT", "SHOP__PORT cannot be an application's own: set PORT for all of them."),
    ],
)
def test_a_setting_that_nobody_would_read_is_named(name: str, problem: str) -> None:
    assert _problems(PRODUCTION | {name: "8080"}) == [problem]


def test_a_variable_of_another_program_with_two_underscores_is_left_alone() -> None:
    others = {"PIP__X": "1", "__CF_USER_TEXT_ENCODING": "0x1", "AIRFLOW__CORE__FERNET_KEY": "x"}
    assert len(Settings.all_from_env(PRODUCTION | others)) == 2


@pytest.mark.parametrize("name", [*_OF_THE_PROCESS])
def test_what_the_process_has_once_is_no_applications_own(name: str) -> None:
    assert any(
        f"SHOP__{name} cannot be" in found
        for found in _problems(PRODUCTION | {f"SHOP__{name}": "1"})
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"SHOP__BCRYPT_ROUNDS": "99"}, "SHOP__BCRYPT_ROUNDS must be a whole number from 4 to 14."),
        ({"BCRYPT_ROUNDS": "99"}, "BCRYPT_ROUNDS must be a whole number from 4 to 14."),
        ({"BLOG__DATABASE_URL": ""}, "blog: DATABASE_URL is missing: set it to the connection"),
        ({"BLOG__DATABASE_URL": "mysql://x"}, "BLOG__DATABASE_URL cannot be used"),
        ({"BLOG__HOSTS": ""}, "blog: HOSTS is missing: list the names under which browsers call"),
        ({"BLOG__HOSTS": "https://blog.example.com"}, "BLOG__HOSTS must list names such as"),
        ({"BLOG__HOSTS": "*.example.com"}, "BLOG__HOSTS must list names such as"),
        ({"BLOG__HOSTS": "blog.example.com:8443"}, "BLOG__HOSTS must list names without a port"),
        ({"BLOG__HOSTS": "Shop.Example.com."}, "shop and blog have the same host shop.example.com"),
        (
            {"BLOG__DATABASE_URL": URL.format("one").replace("-pooler", "")},
            "shop and blog have the same database db on ep-one",
        ),
        (
            {"BLOG__DATABASE_URL": URL.format("one").replace(".tech/", ".tech./")},
            "shop and blog have the same database db on ep-one",
        ),
        (
            {"SHOP__USERS_FILE": "/srv/users.json", "BLOG__USERS_FILE": "/srv/../srv/users.json"},
            "shop and blog have the same USERS_FILE /srv/",
        ),
        (
            {"BLOG__PUBLIC_URL": "https://www.example.com"},
            "blog: the host of PUBLIC_URL is not in BLOG__HOSTS",
        ),
        (
            {"DATABASE_MAX_CONNECTIONS": "1"},
            "DATABASE_MAX_CONNECTIONS must be at least 2: it is for all applications together",
        ),
        (
            {"DATABASE_MAX_CONNECTIONS": "5", "BLOG__DATABASE_MAX_CONNECTIONS": "5"},
            "DATABASE_MAX_CONNECTIONS must be at least 6",
        ),
    ],
)  # fmt: skip
def test_a_problem_names_the_variable_as_it_was_given_and_whose_it_is(
    changes: dict[str, str], problem: str
) -> None:
    (found,) = _problems(PRODUCTION | changes)
    assert found.startswith(problem)


def test_a_host_in_another_script_is_that_in_ascii() -> None:
    shop, _ = Settings.all_from_env(PRODUCTION | {"SHOP__HOSTS": "käse.example, [2001:DB8::1]"})
    assert shop.web.hosts == {"xn--kse-qla.example", "[2001:db8::1]"}


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({}, (2, 2)),
        ({"DATABASE_MAX_CONNECTIONS": "5"}, (3, 2)),
        ({"DATABASE_MAX_CONNECTIONS": "9", "BLOG__DATABASE_MAX_CONNECTIONS": "2"}, (7, 2)),
        ({"SHOP__DATABASE_MAX_CONNECTIONS": "1", "BLOG__DATABASE_MAX_CONNECTIONS": "2"}, (1, 2)),
    ],
)
def test_the_connections_of_an_instance_are_divided(
    changes: dict[str, str], shares: tuple[int, int]
) -> None:
    found = Settings.all_from_env(PRODUCTION | changes)
    assert tuple(settings.database.max_connections for settings in found) == shares


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, "APPLICATION must be one of shop, blog: which one is meant?"),
        ({"APPLICATION": "bolg"}, "APPLICATION must be one of shop, blog: which one is meant?"),
        (
            {"APPLICATION": "shop", "APPLICATIONS": ""},
            "APPLICATION is set, and APPLICATIONS is not: there is only one.",
        ),
    ],
)
def test_a_command_is_about_one_of_them(changes: dict[str, str], problem: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_env(DEVELOPMENT | changes)
    assert caught.value.problems == [problem]
    assert Settings.from_env(DEVELOPMENT | {"APPLICATION": "blog"}).application == "blog"


def test_mails_of_development_are_not_in_one_folder(tmp_path: Path) -> None:
    files = {f"{name.upper()}__USERS_FILE": f"{tmp_path}/{name}.json" for name in ("shop", "blog")}
    (found,) = _problems(DEVELOPMENT | files)
    assert found.startswith(f"shop and blog have the same folder of mails {tmp_path}/mail")


def test_who_has_no_database_needs_no_connection() -> None:
    names = {"APPLICATIONS": "a,b,c,d,e,f", "F__DATABASE_URL": URL.format("one")}
    *others, last = Settings.all_from_env({"SESSION_SECRET": SECRET} | names)
    assert (len(others), last.database.max_connections) == (5, 4)


def test_two_users_files_that_are_one_by_a_link_are_one(tmp_path: Path) -> None:
    (tmp_path / "shop.json").write_text("[]")
    (tmp_path / "blog.json").symlink_to(tmp_path / "shop.json")
    files = {f"{name.upper()}__USERS_FILE": f"{tmp_path}/{name}.json" for name in ("shop", "blog")}
    assert _problems(DEVELOPMENT | files)[0].startswith("shop and blog have the same USERS_FILE")
