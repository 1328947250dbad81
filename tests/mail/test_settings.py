"""Where mail goes and whom it is from: what is taken, and what is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.environment import Environment
from shared.mail.addresses import Mailbox
from shared.mail.settings import MailSettings
from shared.mail.url import Hook, SmtpServer
from tests.support.emulator import ROOT

KEY = "a" * 32
"""Base64 of 24 bytes."""
SERVER = "smtps://ada:canary@smtp.example.com"
HOOK = "https://hook.example.com/mail?key=canary"
USUAL = {
    "MAIL_URL": SERVER,
    "MAIL_FROM": "AI-Coder <no-reply@example.com>",
    "PUBLIC_URL": "https://app.example.com",
}


def _read(**variables: str) -> MailSettings:
    env = Environment(variables)
    settings = MailSettings.read(env)
    assert env.problems == []
    return settings


def _problems(**variables: str) -> list[str]:
    env = Environment(variables)
    MailSettings.read(env)
    assert not any("canary" in problem for problem in env.problems)
    return env.problems


def test_development_needs_nothing_and_writes_mails_beside_its_users() -> None:
    settings = _read()
    assert settings.enabled
    assert settings.url is None
    assert settings.folder == ROOT / ".data" / "mail"
    assert settings.sender == Mailbox("AI-Coder", "no-reply@localhost")
    assert settings.public_url == "http://localhost:8080"
    assert (settings.application, settings.verification) == ("AI-Coder", "optional")
    assert not settings.sign_in_by_mail
    settings = _read(USERS_FILE="/srv/users.json", PORT="8081", APPLICATION_NAME="Shop")
    assert settings.folder == Path("/srv/mail")
    assert settings.public_url == "http://localhost:8081"
    assert settings.sender == Mailbox("Shop", "no-reply@localhost")


@pytest.mark.parametrize("environment", ["production", "staging", "test"])
def test_elsewhere_mail_is_off_until_a_url_says_where_it_goes(environment: str) -> None:
    settings = _read(ENVIRONMENT=environment)
    assert not settings.enabled
    assert settings.folder is None
    assert settings.verification == "off"
    settings = _read(ENVIRONMENT=environment, **USUAL)
    assert settings.enabled
    assert settings.folder is None
    assert settings.verification == "optional"


def test_a_url_takes_the_place_of_the_folder_in_development() -> None:
    settings = _read(**USUAL)
    assert settings.folder is None
    assert isinstance(settings.url, SmtpServer)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtps://smtp.example.com", SmtpServer("smtp.example.com", 465, direct_tls=True)),
        ("smtp://smtp.example.com/", SmtpServer("smtp.example.com", 587, direct_tls=False)),
        ("SMTP://u:p@Smtp.Example.COM:25",
         SmtpServer("smtp.example.com", 25, direct_tls=False, user="u", password="p")),
        ("smtps://[2001:DB8::1]:2465", SmtpServer("2001:db8::1", 2465, direct_tls=True)),
        ("smtps://192.0.2.1", SmtpServer("192.0.2.1", 465, direct_tls=True)),
        ("smtps://bücher.example", SmtpServer("xn--bcher-kva.example", 465, direct_tls=True)),
        ("smtps://a%40b.example:p%2Fq%3Fr%23s%3At%25u+v@h.example",
         SmtpServer("h.example", 465, direct_tls=True, user="a@b.example",
                    password="p/q?r#s:t%u+v")),
        ("smtps://ad%C3%A4:%E2%82%AC:x@h.example",
         SmtpServer("h.example", 465, direct_tls=True, user="adä", password="€:x")),
    ],
)  # fmt: skip
def test_a_mail_server_is_read_from_its_url(url: str, server: SmtpServer) -> None:
    assert _read(**USUAL | {"MAIL_URL": url}).url == server


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("smtp.example.com:587", "must begin with smtps://, smtp:// or https://"),
        ("http://hook.example.com", "must begin with smtps://"),
        ("smtps://", "must name a host"),
        ("smtps://ada:canary@", "must name a host"),
        ("smtps://ada:canary@h.example:99999", "a number up to 65535"),
        ("smtps://ada:canary@h.example:0", "its port is 0"),
        ("smtps://ada:canary@[::1", "stands in brackets"),
        ("smtps://ada:canary@[fe80::1%25eth0]", "neither a name nor an address"),
        ("smtps://ada:canary@host_.example-", "neither a name nor an address"),
        ("smtps://ada:canary@\u2488com", "neither a name nor an address"),
        ("smtps://ada@h.example", "a user and a password, or neither"),
        ("smtps://:canary@h.example", "a user and a password, or neither"),
        ("smtps://ada:ca/nary@h.example", "'/' as %2F"),
        ("smtps://ada:ca?nary@h.example", "'?' as %3F"),
        ("smtps://ada:ca#nary@h.example", "'#' as %23"),
        ("smtps://ada:canary@h.example#", "has a '#'"),
        ("smtps://ada:canary@h.example/inbox", "has a path"),
        ("smtps://ada:canary@h.example?tls=off", "its parameter 'tls' is not supported"),
        ("smtp://ada:canary@h.example?starttls", "its parameter 'starttls' is not supported"),
        ("smtps://ada:x@h.example?Canary-canary", "its parameter is not supported"),
        ("smtps://ada:can ary@h.example", "write a blank as %20"),
        ("smtps://ada:canary%00@h.example", "contains %00"),
        ("smtps://ada:canary%FF@h.example", "is not UTF-8"),
        ("https://ada:canary@hook.example.com/", "MAIL_HOOK_SECRET signs"),
        ("https://hook.example.com/é?canary", "must be in ASCII"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_sentence_without_its_secret(
    url: str, sentence: str
) -> None:
    (problem,) = _problems(**USUAL | {"MAIL_URL": url})
    assert problem.startswith("MAIL_URL cannot be used: ")
    assert sentence in problem
    assert "nary" not in problem


@pytest.mark.parametrize(
    ("url", "host", "written"),
    [
        (HOOK, "hook.example.com", HOOK),
        ("https://BÜCHER.example", "xn--bcher-kva.example", "https://xn--bcher-kva.example/"),
        ("https://hook.example?key=1", "hook.example", "https://hook.example/?key=1"),
        ("https://[2001:DB8::1]:8443/a", "2001:db8::1", "https://[2001:db8::1]:8443/a"),
    ],
)
def test_a_hook_is_read_from_its_url_and_has_secrets(url: str, host: str, written: str) -> None:
    secrets = f"whsec_{KEY}, whsec_{'b' * 32}"
    hook = _read(**USUAL | {"MAIL_URL": url}, MAIL_HOOK_SECRET=secrets).url
    assert isinstance(hook, Hook)
    assert (hook.host, hook.url) == (host, written)
    assert [len(secret) for secret in hook.secrets] == [24, 24]


@pytest.mark.parametrize(
    "secret", ["canary", f"{KEY}canary", "whsec_canary", f"whsec_{KEY},", "whsec_" + "a" * 88]
)
def test_a_hooks_secret_has_the_form_of_standard_webhooks(secret: str) -> None:
    (problem,) = _problems(**USUAL | {"MAIL_URL": HOOK}, MAIL_HOOK_SECRET=secret)
    assert "MAIL_HOOK_SECRET cannot be used: a secret is whsec_ and the base64 of" in problem


def test_what_mail_needs_is_asked_for_all_at_once() -> None:
    problems = _problems(ENVIRONMENT="production", MAIL_URL=HOOK)
    assert [problem.split()[0] for problem in problems] == [
        "MAIL_HOOK_SECRET", "MAIL_FROM", "PUBLIC_URL",
    ]  # fmt: skip
    assert len(_problems(MAIL_URL=SERVER)) == 1, "development knows its own address"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("MAIL_FROM", "AI-Coder", "MAIL_FROM must be an address"),
        ("MAIL_REPLY_TO", "a@b@", "MAIL_REPLY_TO must be an address"),
        ("PUBLIC_URL", "app.example.com", "PUBLIC_URL must be an origin, such as https://"),
        ("PUBLIC_URL", "https://app.example.com/auth", "ends after the host"),
        ("PUBLIC_URL", "http://app.example.com", "must begin with https:// in production"),
        ("EMAIL_VERIFICATION", "yes", "must be one of off, optional, required"),
        ("SIGN_IN_BY_MAIL", "maybe", "must be true or false"),
        ("APPLICATION_NAME", "a\tb", "printable characters"),
        ("APPLICATION_NAME", "a" * 65, "at most 64 printable"),
    ],
)
def test_another_setting_that_cannot_be_used_is_one_sentence(
    name: str, value: str, sentence: str
) -> None:
    (problem,) = _problems(ENVIRONMENT="production", **USUAL | {name: value})
    assert sentence in problem


@pytest.mark.parametrize(
    "setting", [{"EMAIL_VERIFICATION": "required"}, {"SIGN_IN_BY_MAIL": "true"}]
)
def test_what_is_done_by_mail_needs_mail(setting: dict[str, str]) -> None:
    (problem,) = _problems(ENVIRONMENT="production", **setting)
    assert "needs mail: set MAIL_URL" in problem
    assert _read(ENVIRONMENT="production", **USUAL, **setting).enabled


def test_the_public_url_is_an_origin_in_one_spelling() -> None:
    settings = _read(**USUAL | {"PUBLIC_URL": "https://App.Bücher.example:443/"})
    assert settings.public_url == "https://app.xn--bcher-kva.example"


def test_settings_do_not_show_their_secrets() -> None:
    settings = _read(**USUAL)
    assert "canary" not in repr(settings)
    assert "ada" not in repr(settings)
    settings = _read(**USUAL | {"MAIL_URL": HOOK}, MAIL_HOOK_SECRET=f"whsec_{KEY}")
    assert "canary" not in repr(settings)
    assert "secrets" not in repr(settings)
