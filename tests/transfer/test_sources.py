"""The forms of a users file, read as a stream."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidSource
from shared.model.user_record import InvalidRow
from shared.transfer.sources import ROW_MAX_LENGTH, Source, copy_rows
from tests.support.transfers import source_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


class _Trickle:
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._stream, self._size = io.BytesIO(data), size

    def read(self, _: int, /) -> bytes:
        return self._stream.read(self._size)


@given(st.lists(JSON), st.integers(1, 9), st.booleans())
def test_rows_are_the_same_however_the_bytes_arrive(
    rows: list[Any], size: int, is_ascii: bool
) -> None:
    data = json.dumps(rows, indent=1, ensure_ascii=is_ascii).encode()
    source = Source(_Trickle(data, size))
    assert list(source.rows()) == rows
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    assert (source.rows_read, source.bytes_read) == (len(rows), len(data))


@pytest.mark.parametrize(
    "data",
    [
        b'[{"a": 1}, {"b": [2]}]',
        b' \n[{"a":1},{"b":[2]}]\n ',
        b'{"users": [{"a": 1}, {"b": [2]}]}',
        b'{"version": 1, "from": "old", "users": [{"a": 1}, {"b": [2]}], "more": {"x": [1]}}',
        b'{"a": 1}\n{"b": [2]}',
        b'\n{"a": 1}\r\n\n  {"b": [2]}  \n',
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_every_form_gives_the_same_rows(data: bytes, size: int) -> None:
    assert list(Source(_Trickle(data, size)).rows()) == [{"a": 1}, {"b": [2]}]


@pytest.mark.parametrize("data", [b"[]", b" [ ] ", b'{"users": []}'])
def test_a_file_may_hold_nobody(data: bytes) -> None:
    assert list(source_of(data).rows()) == []


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "line 1 is empty"),
        (b" \n ", "line 2 is empty"),
        (b"[", "breaks off"),
        (b'[{"a": 1}', "row 1, line 1 breaks off"),
        (b'[{"a": 1},', "row 2, line 1 breaks off"),
        (b'[{"a": 1},]', "row 2, line 1 breaks off or is no JSON"),
        (b'[{"a": 1}\n{"a": 2}]', "row 1, line 2 lacks a ']'"),
        (b'[\n{"a": 1},\n{"a": "x', "row 2, line 3 breaks off"),
        (b"[1] [2]", "goes on after its end"),
        (b'{"users": [1]', "breaks off"),
        (b'{"users": [1]} x', "goes on after its end"),
        (b'{"users": [], "users": [1]}', "names users a second time"),
        (b'"users"', "neither an array of users nor"),
        (b"id,email\n", "neither an array of users nor"),
        (b"\xef\xbb\xbf[]", "byte order mark"),
        ('["ü"]'.encode("utf-16"), "UTF-8"),
        (b'[{"a": "\xff"}]', "UTF-8"),
        (b'[{"a": "\xc3', "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'["' + b"x" * (ROW_MAX_LENGTH + 300_000) + b'"]', f"longer than {ROW_MAX_LENGTH}"),
        (b"[1, }]" + b" " * 3_000_000, "is no JSON"),
    ],
)
def test_a_file_that_is_none_of_users_is_refused_with_the_place(data: bytes, problem: str) -> None:
    with pytest.raises(InvalidSource, match=problem):
        list(source_of(data).rows())


@pytest.mark.parametrize(
    "row",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": NaN}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_row_that_python_would_read_but_nobody_should_is_still_only_a_row(row: bytes) -> None:
    before, odd, after = source_of(b"[1, " + row + b", 2]").rows()
    assert (before, after) == (1, 2)
    values = odd.values() if isinstance(odd, dict) else [odd]
    assert any(isinstance(value, InvalidRow) for value in values)


def test_a_bad_line_of_json_lines_is_only_a_row() -> None:
    good, bad, also_good = source_of(b'{"a": 1}\n{"a": \n{"b": 2}').rows()
    assert (good, also_good) == ({"a": 1}, {"b": 2})
    assert isinstance(bad, InvalidRow)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'[{"a" :1.0},{"b":"\\u00e9"}, {"c": 3}]', b'[\n  {"a" :1.0},\n  {"c": 3}\n]\n'),
        (b'{"users":[{"a" :1.0},{"b":2}, {"c": 3}]}', b'[\n  {"a" :1.0},\n  {"c": 3}\n]\n'),
        (b'{"a" :1.0}\n{"b":2}\n{"c": ', b'{"a" :1.0}\n{"c":\n'),
    ],
)
def test_rejected_rows_are_copied_as_they_stand(data: bytes, expected: bytes) -> None:
    written = io.BytesIO()
    copy_rows(source_of(data), {1, 3}, written.write)
    assert written.getvalue() == expected
