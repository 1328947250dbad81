"""A row of a users file: what is taken over, what is not, and how it is written again."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.model.user_record import InvalidRow, digest, parse, to_json
from tests.support.emulator import ROOT
from tests.support.transfers import HASH, user

POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
MOMENT = datetime(2025, 6, 9, 17, 54, 12, 721000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-06-09T17:54:12.721Z", MOMENT),
        ("2025-06-09t17:54:12.721z", MOMENT),
        ("2025-06-09T17:54:12.721", MOMENT),
        ("2025-06-09 17:54:12.721+00", MOMENT),
        ("2025-06-09T23:24:12.721+05:30", MOMENT),
        ("2025-06-09T13:54:12.721-0400", MOMENT),
        ("2025-06-09T17:54:12.721000999Z", MOMENT),
        ("2025-06-09T17:54:12.7Z", MOMENT.replace(microsecond=700000)),
        ("2025-06-09T17:54:12.721345Z", MOMENT.replace(microsecond=721345)),
        ("2025-06-09T17:54:12Z", MOMENT.replace(microsecond=0)),
        ("2025-06-09", datetime(2025, 6, 9, tzinfo=UTC)),
        (1749491652721, MOMENT),
        (1749491652721.345, MOMENT.replace(microsecond=721345)),
        ("2025-06-09 17:54:12", MOMENT.replace(microsecond=0)),
        ("9999-12-31T23:59:59.999999Z", datetime.max.replace(tzinfo=UTC)),
        (253402300799999, datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)),
        (100_000_000_000, datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
        (None, None),
        (..., None),
    ],
)
@pytest.mark.parametrize("name", ["createdAt", "created_at"])
def test_a_time_may_be_written_in_any_of_these_ways(
    name: str, value: Any, expected: datetime | None
) -> None:
    row = user(1, **({"createdAt": ...} | {name: value}))
    stored = parse(row).created_at
    assert stored == (expected and (expected - POSTGRES_EPOCH) // timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"email": ...}, "email"),
        ({"email": None}, "email"),
        ({"email": 7}, "email"),
        ({"email": "nobody"}, "email"),
        ({"email": "a@b@example.com"}, "email"),
        ({"email": "two words@example.com"}, "email"),
        ({"email": "a\u0000@example.com"}, "email"),
        ({"email": f"{'a' * 250}@example.com"}, "email"),
        ({"id": "17"}, "UUID"),
        ({"id": 17}, "id is not a text"),
        ({"id": "{00000001-0000-4000-8000-000000000000}"}, "UUID"),
        ({"password": "secret"}, "no form that can be verified"),
        ({"password": 1}, "password is not a text"),
        ({"password": HASH.replace("$2a$", "$2x$")}, "no form"),
        ({"password": HASH[:-1]}, "no form"),
        ({"password": HASH.replace("$10$", "$15$")}, "cost"),
        ({"password": HASH.replace("$10$", "$03$")}, "cost"),
        ({"password": ...}, "without a password"),
        ({"password": None}, "without a password"),
        ({"password": "", "provider": ...}, "without a password"),
        ({"provider": "github"}, "provider"),
        ({"provider": 1}, "provider"),
        ({"name": ["Ada"]}, "name is not a text"),
        ({"name": "a" * 256}, "name is longer"),
        ({"name": "half \ud83d"}, "surrogate"),
        ({"name": "nul \u0000"}, "NUL"),
        ({"createdAt": "yesterday"}, "createdAt"),
        ({"createdAt": "2025-02-29T00:00:00Z"}, "createdAt"),
        ({"createdAt": "0001-01-01T00:00:00+14:00"}, "createdAt"),
        ({"updatedAt": 10**18}, "updatedAt"),
        ({"updatedAt": True}, "updatedAt"),
        ({"createdAt": 1749491652721, "created_at": 1749491652722}, "contradict"),
        ({"disabledAt": 1749491652721, "disabled_at": 1749491652722}, "contradict"),
        ({"locale": 1}, "locale is not a text"),
        ({"locale": "d" * 36}, "locale is longer"),
        ({"claims": ["admin"]}, "claims are not an object"),
        ({"claims": "admin"}, "claims are not an object"),
        ({"claims": {"role": "ä" * 510}}, "claims are longer than 1,024 bytes"),
        ({"claims": {"half \ud83d": 1}}, "surrogate"),
        ({"claims": {"number": float("inf")}}, "number that is none"),
        ({"claims": {"number": [InvalidRow("It holds NaN or Infinity.")]}}, "number that is none"),
        ({"totpSecret": "JBSWY3DPEHPK3PXP"}, "totpSecret is not one that an export has"),
        ({"totpSecret": 1}, "totpSecret is not a text"),
        ({"epoch": -1}, "epoch"),
        ({"epoch": "0"}, "epoch"),
        ({"epoch": 2**31}, "epoch"),
        ({"identities": {"issuer": "i", "subject": "s"}}, "identities"),
        ({"identities": ["i"]}, "identities"),
        ({"identities": [{"issuer": "i"}]}, "identities"),
        ({"identities": [{"issuer": "i", "subject": "s", "at": "x"}]}, "identities"),
        ({"identities": [{"issuer": "i", "subject": 1}]}, "identities"),
        ({"identities": [{"issuer": "i", "subject": ""}]}, "identities"),
        ({"identities": [{"issuer": "i", "subject": "s" * 256}]}, "identities"),
        ({"identities": [{"issuer": "i", "subject": "half \ud83d"}]}, "surrogate"),
        ({"identities": [{"issuer": "nul \u0000", "subject": "s"}]}, "NUL"),
        ({"identities": [{"issuer": "i", "subject": "s"}] * 2}, "identity twice"),
    ],
)
def test_a_row_that_cannot_be_brought_over_says_why_and_quotes_nothing(
    members: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRow, match=reason) as caught:
        digest(parse(user(1, **members)))
    assert "example.com" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        "1624041492226", "1612081210930", "1749491652721", "1749491652", "20230808120000Z",
        "20230808T120000Z", "20230808", "2023-08", "2023", "2023-W32-2", "2023-W32-2T12:00:00Z",
        "2023-220T12:00:00Z", "2023-08-08T12:00Z", "2023-08-08T12Z", "2023-08-08T120000Z",
        "2023-08-08T12:00:60Z", "2023-12-31T24:00:00Z", "2023-08-08T25:00:00Z", "2023-08-08T",
        "2023-08-08T12:00:00,5Z", "2023-08-08T12:00:00.Z", "2023-08-08T12:00:00.0123456789Z",
        "2023-08-08T12:00:00+16:00", "2023-08-08T12:00:00+02:00:30", "2023-08-08T12:00:00 +02",
        "2023-08-08T12:00:00Z\n", " 2023-08-08T12:00:00Z", "2023-08-08_12:00:00Z",
        "\uff12\uff10\uff12\uff13-08-08T12:00:00Z", "2023-08-08T12:00:00\u221202:00",
        "+002023-08-08T12:00:00Z",
        "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00",
        "08/08/2023", "Tue, 08 Aug 2023 12:00:00 GMT", "2023-08-08T12:00:00 UTC", "now",
        "infinity", "", "2023-08-08T12:00:00[Europe/Berlin]",
        0, -1, 1624041492, 1624041492.226, 99_999_999_999, 1624041492226000, 253402300800000,
        float("inf"), float("nan"), {"$date": "2023-08-08T12:00:00Z"}, ["2023-08-08"], False,
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["createdAt", "updated_at", "disabledAt", "email_verified_at"])
def test_what_has_no_one_meaning_as_a_time_is_none(name: str, value: Any) -> None:
    """Digits alone may be seconds, milliseconds or a date, and a small number may be seconds."""
    with pytest.raises(InvalidRow, match="is not a time: write it like"):
        parse(user(1, updatedAt=..., **{name: value}))


@pytest.mark.parametrize("row", [None, 1, "user", [], InvalidRow("no JSON")])
def test_what_is_no_object_is_no_user(row: object) -> None:
    with pytest.raises(InvalidRow):
        parse(row)


def test_the_hashes_that_a_login_here_writes_are_taken_over() -> None:
    long = f"$bcrypt-sha256$v=2,t=2b,r=12${'a' * 22}${'b' * 31}"
    for stored in (long, HASH.replace("$2a$", "$2b$"), HASH.replace("$2a$", "$2y$")):
        assert parse(user(1, password=stored)).password == stored


def test_users_without_a_local_password_come_over_with_their_provider() -> None:
    for provider in ("google", "firebase-google"):
        record = parse(user(1, password=..., provider=provider))
        assert (record.password, record.provider) == (None, provider)


@pytest.mark.parametrize("member", ["emailVerifiedAt", "unverified_since"])
def test_a_local_user_without_a_password_comes_where_mail_helps(member: str) -> None:
    record = parse(user(1, password=..., **{member: "2025-06-09T17:54:12.721Z"}))
    assert (record.password, record.provider) == (None, "local")


def test_a_missing_id_is_the_same_in_every_run_and_for_every_spelling() -> None:
    first = parse(user(1, id=..., email="Ada@Example.com"))
    assert parse(user(2, id=None, email=" ada@example.COM ")).id == first.id
    assert parse(user(1, id=..., email="adb@example.com")).id != first.id
    assert uuid.UUID(first.id).version == 5


def test_an_id_is_kept_and_an_address_keeps_its_spelling() -> None:
    record = parse(user(1, id="A63472B0-A053-5C05-A7E6-582AE2E0BD53", email="Ada@Example.com"))
    assert record.id == "a63472b0-a053-5c05-a7e6-582ae2e0bd53"
    assert (record.email, record.email_key) == ("Ada@Example.com", "ada@example.com")


def test_the_digest_covers_every_member_and_no_two_records_share_their_bytes() -> None:
    rows = [
        user(1),
        user(2),
        user(1, email="user10@example.com"),
        user(1, password=HASH.replace("$10$", "$11$")),
        user(1, name=""),
        user(1, name="-"),
        user(1, provider=...),
        user(1, provider="google"),
        user(1, createdAt="2025-06-09T17:54:12.722Z"),
        user(1, createdAt=...),
        user(1, updatedAt=...),
        user(1, epoch=1),
        user(1, epoch=11),
        user(1, identities=[{"issuer": "1:a", "subject": "b"}]),
        user(1, identities=[{"issuer": "1", "subject": "ab"}]),
        user(1, identities=[{"issuer": "b", "subject": "a"}]),
        user(1, identities=[{"issuer": "a", "subject": "b"}, {"issuer": "c", "subject": "d"}]),
        user(1, identities=[{"issuer": "c", "subject": "d"}, {"issuer": "a", "subject": "b"}]),
        user(1, identities=[{"issuer": "a", "subject": "b,1:c1:d"}]),
        user(1, epoch=1, identities=[{"issuer": "a", "subject": "b"}]),
    ]
    assert len({digest(parse(row)) for row in rows}) == len(rows)


def test_a_user_without_identities_has_the_digest_from_before_there_were_any() -> None:
    """Otherwise all users imported by an earlier release would count as changed."""
    expected = "cc3d6877500cf05110149bdfc2a1fdc5139064424be05c2178bc5ab69b0839c5"
    assert digest(parse(user(1))).hex() == expected


def test_a_record_is_written_as_the_old_server_does() -> None:
    path = ROOT / "tests" / "data" / "old-users.json"
    rows = json.loads(path.read_text())
    written = json.dumps([to_json(parse(row)) for row in rows], indent=2, ensure_ascii=False)
    assert written == path.read_text()
