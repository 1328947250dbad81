"""The settings of SQL over HTTP, and the sentences about those that cannot be used."""

from __future__ import annotations

import pytest

from shared.database.endpoint import Endpoint
from shared.environment import InvalidSettings
from shared.settings import Settings
from tests.support.emulator import SECRET

PASSWORD = "s3cret-pass"
NEON = f"postgresql://app:{PASSWORD}@ep-cool-name-pooler.us-east-2.aws.neon.tech/db"
OTHER = f"postgresql://app:{PASSWORD}@db.example.com/db"


def _endpoint(**variables: str) -> Endpoint | None:
    return Settings.from_env({"SESSION_SECRET": SECRET} | variables).database.endpoint


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("ep-cool-name.us-east-2.aws.neon.tech", "api.us-east-2.aws.neon.tech"),
        ("ep-cool-name-pooler.us-east-2.aws.neon.tech", "api.us-east-2.aws.neon.tech"),
        ("EP-cool.c-2.us-east-2.aws.neon.tech", "api.c-2.us-east-2.aws.neon.tech"),
    ],
)
def test_neons_endpoint_is_named_by_the_host_of_the_database(host: str, expected: str) -> None:
    url = f"postgresql://app:{PASSWORD}@{host}/db"
    found = _endpoint(DATABASE_URL=url, DATABASE_TRANSPORT="http")
    assert found == Endpoint(expected, 443, "/sql")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://sql.example.com", Endpoint("sql.example.com", 443, "/")),
        ("https://sql.example.com/sql", Endpoint("sql.example.com", 443, "/sql")),
        ("https://sql.example.com:8443/a/sql", Endpoint("sql.example.com", 8443, "/a/sql")),
        ("https://[::1]:8443/sql", Endpoint("::1", 8443, "/sql")),
    ],
)
def test_another_endpoint_can_be_named(text: str, expected: Endpoint) -> None:
    for url in (NEON, OTHER):
        named = {"DATABASE_URL": url, "DATABASE_HTTP_URL": text}
        assert _endpoint(DATABASE_TRANSPORT="HTTP", **named) == expected
        assert _endpoint(**named) is None
        assert _endpoint(DATABASE_TRANSPORT="tcp", **named) is None


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"DATABASE_URL": NEON, "DATABASE_TRANSPORT": "https"},
            "DATABASE_TRANSPORT must be one of tcp, http.",
        ),
        (
            {"DATABASE_URL": OTHER, "DATABASE_TRANSPORT": "http"},
            (
                "DATABASE_TRANSPORT=http needs DATABASE_HTTP_URL: the host of DATABASE_URL is not "
                "Neon's."
            ),
        ),
        (
            {"DATABASE_URL": f"{NEON}?channel_binding=require", "DATABASE_TRANSPORT": "http"},
            (
                "DATABASE_TRANSPORT=http cannot keep channel_binding=require of DATABASE_URL: over "
                "HTTP the password travels in a header. Remove one of them."
            ),
        ),
    ],
)
def test_what_cannot_be_kept_is_told_with_its_remedy(
    variables: dict[str, str], sentence: str
) -> None:
    with pytest.raises(InvalidSettings) as raised:
        _endpoint(**variables)
    assert sentence in raised.value.problems
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "http://sql.example.com/sql",
        "sql.example.com",
        "https://",
        "https:///sql",
        f"https://app:{PASSWORD}@sql.example.com/sql",
        "https://sql.example.com/sql?a=b",
        "https://sql.example.com/sql#a",
        "https://sql.example.com:0/sql",
        "https://sql.example.com:http/sql",
        "https://sql.example.com:70000/sql",
        "https://[::1/sql",
        "https://exämple.com/sql",
        "https://sql.example.com/s ql",
        "https://sql.example.com/sql\r\nX: y",
        NEON,
    ],
)
def test_what_is_no_url_of_an_endpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        _endpoint(DATABASE_URL=NEON, DATABASE_TRANSPORT="http", DATABASE_HTTP_URL=text)
    (problem,) = raised.value.problems
    assert problem.startswith("DATABASE_HTTP_URL must be a URL such as https://")
    assert PASSWORD not in problem


def test_channel_binding_that_is_only_preferred_is_no_obstacle() -> None:
    assert _endpoint(DATABASE_URL=f"{NEON}?channel_binding=prefer", DATABASE_TRANSPORT="http")
