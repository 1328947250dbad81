"""The times of a source: one meaning each, the same to PostgreSQL, and odd ones are told of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from shared.formats.timestamps import from_iso
from tests.support.postgres import Server
from tests.support.transfers import Target, nonzero, user

_DAYS = ("2024-02-29", "1900-01-01", "0001-01-02", "9999-12-30", "1582-10-10", "2023-03-26")
_CLOCKS = (
    "00:00:00",
    "23:59:59",
    "02:30:00.7",
    "23:59:59.123",
    "12:34:56.000001",
    "12:34:56.999999",
)
_OFFSETS = ("", "Z", "z", "+00", "-05", "+0530", "+05:30", "-15:59", "+15:59", "-0000")


def test_postgresql_reads_each_form_of_a_time_as_the_same_instant(postgres: Server) -> None:
    """The proof compares what was read with what is held, so a second parser reads the forms."""
    texts = [*_DAYS, *map("".join, product(_DAYS, "Tt ", _CLOCKS, _OFFSETS))]
    values = ", ".join(f"({number}, '{text}')" for number, text in enumerate(texts))
    rows = postgres.run(
        "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; "
        "SELECT (extract(epoch FROM text::timestamptz) * 1000000)::bigint "
        f"FROM (VALUES {values}) given (number, text) ORDER BY number"
    )
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for text, (theirs,) in zip(texts, rows, strict=True):
        ours = from_iso(text)
        assert ours is not None, text
        assert (ours - epoch) // timedelta(microseconds=1) == theirs, text


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01T24:00:00.000Z",
        "2024-01-01T23:60:00.000Z",
        "2023-02-29T00:00:00.000Z",
        "0000-01-01T00:00:00.000Z",
        "٢٠٢٤-01-01T00:00:00.000Z",
    ],
)
def test_what_is_only_formed_like_a_time_is_none(text: str) -> None:
    assert from_iso(text) is None


def test_a_plan_and_an_import_tell_of_times_that_cannot_be_right(target: Target) -> None:
    tomorrow = datetime.now(UTC) + timedelta(hours=20)
    rows = [
        user(1),
        user(2, createdAt="1970-01-19T19:07:21.492Z"),
        user(3, createdAt="1601-01-01T00:00:00Z", updatedAt="9999-12-31T23:59:59Z"),
        user(4, updatedAt=253402300799999),
        user(5, createdAt="2023-08-08T12:00:00"),
        user(6, createdAt=..., created_at="2023-08-08"),
        user(7, updatedAt=tomorrow.isoformat()),
        user(8, updatedAt="2023-08-08T12:00:00+02"),
    ]
    expected = {
        "before_1990": {"rows": 2, "first": 2},
        "in_the_future": {"rows": 2, "first": 3},
        "no_offset": {"rows": 2, "first": 5},
    }
    assert target.plan(rows)[0].doubtful_times == expected
    applied, _ = target.apply(rows)
    assert applied.plan.doubtful_times == expected
    assert target.verify(rows)[0].doubtful_times == expected
    assert nonzero(applied.plan.counts) == {"new": 8}
