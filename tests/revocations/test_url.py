"""What REDIS_URL may be, and what is said of one that cannot be used."""

from __future__ import annotations

import pytest

from shared.environment import InvalidSettings
from shared.revocations.url import InvalidRedisUrl, RedisUrl, parse
from shared.settings import Settings
from tests.support.emulator import SECRET

SECURE = {
    "ENVIRONMENT": "production",
    "SESSION_SECRET": SECRET,
    "DATABASE_URL": "postgresql://user:password@localhost/database",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rediss://host", RedisUrl("host", 6379, tls=True)),
        ("redis://:a%40b@[::1]:7/3", RedisUrl("::1", 7, False, 3, None, "a@b")),
        ("rediss://user:a+b@HOST:1/", RedisUrl("host", 1, True, 0, "user", "a+b")),
        (
            f"rediss://host?ssl_ca_certs={__file__}",
            RedisUrl("host", 6379, True, root_certificates=__file__),
        ),
    ],
)
def test_a_url_is_read(text: str, expected: RedisUrl) -> None:
    assert parse(text) == expected
    assert "a@b" not in repr(parse(text))


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("http://host", "it must begin with rediss://"),
        ("host:6379", "it must begin with rediss://"),
        ("rediss://", "it must name a host"),
        ("rediss://:secret@", "it must name a host"),
        ("rediss://:secret@host:port", "its host or port cannot be read"),
        ("rediss://:secret@host:0", "its port is 0"),
        ("rediss://:secret@host:65536", "its host or port cannot be read"),
        ("rediss://:secret@[host", "its host or port cannot be read"),
        ("rediss://:sec/secret@host", "in a password write '/' as %2F"),
        ("rediss://:sec#secret@host", "in a password write '/' as %2F"),
        ("rediss://:sec ret@host", "it has a blank"),
        ("rediss://:secret%ff@host", "its percent-encoding is not UTF-8"),
        ("rediss://secret@host", "it has a user and no password"),
        ("rediss://:secret@host/name", "must be a database's number"),
        ("rediss://:secret@host?ssl_cert_reqs=none", "'ssl_cert_reqs' is not supported"),
        ("rediss://:secret@host?ssl_ca_certs=/nowhere", "'/nowhere', which cannot be read"),
        ("redis://:secret@host?ssl_ca_certs=/etc/hosts", "ssl_ca_certs needs rediss://"),
    ],
)
def test_one_that_cannot_be_used_is_told_without_its_secret(text: str, clause: str) -> None:
    with pytest.raises(InvalidRedisUrl) as caught:
        parse(text)
    assert clause in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "localhost"])
def test_in_production_plain_redis_is_for_this_machine(host: str) -> None:
    found = Settings.from_env(SECURE | {"REDIS_URL": f"redis://{host}"}).revocations.url
    assert found is not None
    assert found.is_on_this_machine


@pytest.mark.parametrize("host", ["redis", "10.0.0.1", "localhost.example.com", "[::]"])
def test_in_production_no_other_is_reached_without_tls(host: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_env(SECURE | {"REDIS_URL": f"redis://{host}"})
    (problem,) = caught.value.problems
    assert problem.startswith("REDIS_URL must begin with rediss:// in production, unless")
    assert Settings.from_env({"REDIS_URL": f"redis://{host}"}).revocations.url is not None
    assert Settings.from_env(SECURE | {"REDIS_URL": f"rediss://{host}"}).revocations.url is not None


def test_without_the_package_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_env({"REDIS_URL": "rediss://host"})
    assert "cat requirements-redis.txt >> requirements.txt" in str(caught.value)
    assert Settings.from_env({}).revocations.url is None
