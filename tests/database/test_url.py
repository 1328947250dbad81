"""DATABASE_URL as Neon gives it, and as people mistype it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.database.url import DatabaseUrl, InvalidDatabaseUrl

NEON = (
    "postgresql://alex:AbC123dEf@ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech/dbname"
    "?sslmode=require&channel_binding=require"
)


def test_neons_own_connection_string_is_read() -> None:
    url = DatabaseUrl.parse(NEON)
    assert url.host == "ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech"
    assert (url.port, url.database) == (5432, "dbname")
    assert (url.user, url.password) == ("alex", "AbC123dEf")
    assert url.require_channel_binding
    assert not url.direct_tls
    assert url.root_certificates is None


def test_the_direct_host_is_the_poolers_without_its_suffix() -> None:
    direct = DatabaseUrl.parse(NEON).direct_host()
    assert direct.host == "ep-cool-darkness-a1b2c3d4.us-east-2.aws.neon.tech"
    assert direct.direct_host() == direct


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://u:p@h/d", {"host": "h", "port": 5432}),
        ("postgresql://u:p@h:6432/d", {"port": 6432}),
        ("postgresql://u:p@h", {"database": "u"}),
        ("postgresql://u:p@h/", {"database": "u"}),
        ("postgresql://u:p@[::1]:5433/d", {"host": "::1", "port": 5433}),
        ("postgresql://u:p@[2001:db8::1]/d", {"host": "2001:db8::1", "port": 5432}),
        ("postgresql://u%40x:p%2Fq%3A%25@h/d%20e", {"user": "u@x", "database": "d e"}),
        ("postgresql://u:p%2Fq%3A%25%C3%A9@h/d", {"password": "p/q:%é"}),
        ("postgresql://u:p+q@h/d", {"password": "p+q"}),
        ("postgresql://u:@h/d", {"password": ""}),
        ("postgresql://u:p@h/d?sslmode=verify-full", {}),
        ("postgresql://u:p@h/d?sslmode=verify-ca&sslrootcert=system", {"root_certificates": None}),
        ("postgresql://u:p@h/d?sslnegotiation=direct", {"direct_tls": True}),
        ("postgresql://u:p@h/d?sslnegotiation=postgres", {"direct_tls": False}),
        ("postgresql://u:p@h/d?channel_binding=prefer", {"require_channel_binding": False}),
        ("postgresql://u:p@h/d?options=-c%20geqo%3Doff", {"options": "-c geqo=off"}),
        ("postgresql://u:p@h/d?options=endpoint%3Dep-a+b", {"options": "endpoint=ep-a+b"}),
        ("postgresql://u:p@h/d?connect_timeout=7", {"connect_timeout": 7.0}),
        ("postgresql://u:p@h/d?application_name=x", {"application_name": "x"}),
    ],
)
def test_the_parts_of_a_url_are_read_as_libpq_reads_them(
    text: str, expected: dict[str, object]
) -> None:
    url = DatabaseUrl.parse(text)
    for name, value in expected.items():
        assert getattr(url, name) == value


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must begin with postgresql://"),
        ("mysql://u:p@h/d", "must begin with postgresql://"),
        ("postgresql://u:p@/d", "one host"),
        ("postgresql://u:p@a,b/d", "one host"),
        ("postgresql://u:p@h:port/d", "port"),
        ("postgresql://u:p@h:70000/d", "port"),
        ("postgresql://u:p@h:0/d", "its port is 0"),
        ('"postgresql://u:p@h/d"', "leave the quotation marks out"),
        ("psql 'postgresql://u:p@h/d'", "leave the quotation marks out"),
        ("postgresql+psycopg2://u:p@h/d", "names a driver"),
        ("postgresql://u:[YOUR-PASSWORD]@h/d", "placeholder"),
        ("postgresql://u:p@h/d?sslmode=no-verify", "without verified TLS"),
        ("postgresql://u:p@h/d?schema=auth", "'schema' is not supported; options=-csearch_path=…"),
        ("postgresql://u:p@h/d?pgbouncer=true", "'pgbouncer' is not supported; remove it"),
        ("postgresql://u:p@h/d?connection_limit=1", "set DATABASE_MAX_CONNECTIONS"),
        ("postgresql://u:p@[::1/d", "IPv6"),
        ("postgresql://h/d", "a user and a password"),
        ("postgresql://u@h/d", "a user and a password"),
        ("postgresql://u:can#ary@h/d", "port"),
        ("postgresql://u:p@h/d#x", "%23"),
        ("postgresql://u:p@h/d/e", "%2F"),
        ("postgresql://u:%FF@h/d", "UTF-8"),
        ("postgresql://u:a%00b@h/d", "%00"),
        ("postgresql://u:p@h/d?sslmode=disable", "sslmode=disable"),
        ("postgresql://u:p@h/d?sslmode=allow", "sslmode=allow"),
        ("postgresql://u:p@h/d?sslmode=prefer", "sslmode=prefer"),
        ("postgresql://u:p@h/d?sslmode=none", "must be one of"),
        ("postgresql://u:p@h/d?sslmode=require&sslmode=disable", "given twice"),
        ("postgresql://u:p@h/d?channel_binding=yes", "must be one of"),
        ("postgresql://u:p@h/d?sslnegotiation=fast", "must be one of"),
        ("postgresql://u:p@h/d?sslrootcert=/no/such/file", "cannot be read"),
        ("postgresql://u:p@h/d?connect_timeout=0", "connect_timeout"),
        ("postgresql://u:p@h/d?connect_timeout=soon", "connect_timeout"),
        ("postgresql://u:p@h/d?sslcert=x", "'sslcert' is not supported"),
        ("postgresql://u:p@h/d?Canary1=x", "its parameter is not supported; .* %3F"),
        ("postgresql://u:p@ss?canary@host/d", "%40"),
        ("postgresql://u:p@ss/canary@host", "%40"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InvalidDatabaseUrl, match=sentence) as caught:
        DatabaseUrl.parse(text)
    assert "canary" not in str(caught.value).lower()


def test_no_message_and_no_repr_shows_the_password(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatabaseUrl) as caught:
        DatabaseUrl.parse("postgresql://user:canary@h:canary/d")
    assert "canary" not in str(caught.value)
    assert "AbC123dEf" not in repr(DatabaseUrl.parse(NEON))
