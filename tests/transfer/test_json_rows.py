"""The forms of a users file, read as a stream."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidSource
from shared.model.user_record import InvalidRow
from shared.transfer.json_rows import JsonSource, copy_rows
from shared.transfer.sources import ROW_MAX_LENGTH
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


@given(st.lists(JSON), st.integers(1, 9) | st.sampled_from([30, 100, 1_000_000]), st.booleans())
def test_rows_are_the_same_however_the_bytes_arrive(
    rows: list[Any], size: int, is_ascii: bool
) -> None:
    data = json.dumps(rows, indent=1, ensure_ascii=is_ascii).encode()
    source = JsonSource(_Trickle(data, size))
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
        b'{"posts": [{"x": "]"}, {}], "users": [{"a": 1}, {"b": [2]}]}',
        b'{"posts": [{"users": 1}], "users": [{"a": 1}, {"b": [2]}]}\n',
        b'{"posts": [\n{"x": 1}\n],\n"users": [\n{"a": 1},\n{"b": [2]}\n]}\n',
        b'{"posts": ' + b"[" * 200 + b"]" * 200 + b', "users": [{"a": 1}, {"b": [2]}]}',
        b'{"users": [\n{"a": 1},\n{"b": [2]}\n], "posts": {}}',
        b'{\n  "posts": {},\n  "users": [\n    {"a": 1}, {"b": [2]}\n  ]\n}\n',
        b'{"a": 1}\n{"b": [2]}',
        b'\n{"a": 1}\r\n\n  {"b": [2]}  \n',
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_every_form_gives_the_same_rows(data: bytes, size: int) -> None:
    assert list(JsonSource(_Trickle(data, size)).rows()) == [{"a": 1}, {"b": [2]}]


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
        ('["ü"]'.encode("utf-16"), "it is in UTF-16; save it as UTF-8"),
        (b'[{"a": "\xff"}]', "UTF-8"),
        (b'[{"a": "\xc3', "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'["' + b"x" * (ROW_MAX_LENGTH + 300_000), "row 1, line 1 breaks off in a value that is"),
        (b"[1, }]" + b" " * 3_000_000, "row 2, line 1 is no JSON"),
        (b'[1,\n{"a": "O"Brien", "b": 1}, 2]', "row 2, line 2 is no JSON"),
        (b'[{},\n{"a": [{}, tru, {}, {}]},\n{}, {}]', "row 2, line 2 is no JSON"),
        (b"[{},\n{}, {},\n{}} ,{}]", "row 4, line 3 lacks a ']'"),
        (b"[{},\n{}, {}]\n, {}, {}", "row 3, line 3 goes on after its end"),
        (
            b'[{}, {"a": ' + b"[" * 200 + b"1, tru, {}]}, {}]",
            "breaks off in a value that is nested",
        ),
        (b'[{"a": tru, "b": 1, "c": 2}, ' + b"[" * 200 + b"]" * 200 + b"]", "row 1, line 1 is no"),
        (b'{7: 1, "users": [1]}', "is no JSON"),
        (b'{"posts": [1, 2', "breaks off"),
        (b'{"posts": [], "users": [1],}', "is no JSON"),
        (b'{"posts": tru, "users": [1], "more": 1}', "is no JSON"),
        (b'{"users": {"u1": {"a": 1}}}', "its users are not an array. Write an array of users"),
        (b'{\n"users":\n{"u1": {"a": 1}}}', "its users are not an array"),
        (b'{"users": 7}', "its users are not an array"),
        (b'{"posts": [{"a": 1}]}', "it is one object, and has no array of users"),
        (b'{"data": {"users": [1]}}', "it is one object, and has no array of users"),
        (b'{"u1": {"a": 1}, "u2": {"b": [2]}}\n', "it is one object, and has no array of users"),
        (b'{\n  "a": 1,\n  "b": [2]\n}\n', "it is one object, and has no array of users"),
        (b'{\n  "a": 1\n}\n{\n  "b": [2]\n}\n', "its objects do not stand one on a line"),
        (b'{"a": 1}{"b": [2]}', "its objects do not stand one on a line"),
        (gzip.compress(b"[]", mtime=0), "it is compressed; unpack it first"),
        (b"PK\x03\x04users.json", "it is compressed; unpack it first"),
        ("[1]".encode("utf-16-le"), "it is in UTF-16; save it as UTF-8"),
        ('{"users": []}'.encode("utf-16-be"), "it is in UTF-16; save it as UTF-8"),
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


@pytest.mark.parametrize("bad", [b'{"a": ', b'{"a": "x', b'{"a": 1},', b"{", b"{'a': 1}", b"x"])
def test_a_bad_line_of_json_lines_is_only_a_row(bad: bytes) -> None:
    good, odd, also_good = source_of(b'{"a": 1}\n' + bad + b'\n{"b": 2}').rows()
    assert (good, also_good) == ({"a": 1}, {"b": 2})
    assert isinstance(odd, InvalidRow)


@pytest.mark.parametrize("bad", [b'{"a": ', b'{"a": "x', b'{"a": 1},', b"{'a': 1}"])
def test_so_is_the_first_line(bad: bytes) -> None:
    odd, good = source_of(bad + b'\n{"b": 2}').rows()
    assert isinstance(odd, InvalidRow)
    assert good == {"b": 2}


@pytest.mark.parametrize("line", [b'{"email": "a@example.com"}', b'{"email": 1}\n\n'])
def test_one_user_on_a_line_of_its_own_is_a_row(line: bytes) -> None:
    assert list(source_of(line).rows()) == [json.loads(line)]


_AVATARS = {
    "of text": b'{"b": "' + rb"\"[\\" * 350_000 + b'"}',
    "of numbers": b'{"b": [' + b"7, " * 360_000 + b"7]}",
    "bare": b'"' + b"\xc3\xbc" * (ROW_MAX_LENGTH + 1) + b'"',
}
_FILES = {
    "array": (b"[1, %s, 2]", b"[\n  1,\n  %s\n]\n"),
    "first of an array": (b"[%s, 1, 2]", b"[\n  %s\n]\n"),
    "users": (b'{"users": [1,\n%s, 2]}', b"[\n  1,\n  %s\n]\n"),
    "lines": (b'{"a": 1}\n%s\n{"a": 2}', b'{"a": 1}\n%s\n'),
}


@pytest.mark.parametrize("form", _FILES)
@pytest.mark.parametrize("avatar", _AVATARS)
def test_a_row_that_is_too_long_is_one_bad_row_and_is_copied_as_it_stands(
    form: str, avatar: str
) -> None:
    template, copied = _FILES[form]
    data = template % _AVATARS[avatar]
    source = source_of(data)
    (long,) = [row for row in source.rows() if isinstance(row, InvalidRow)]
    assert "is longer than 1,048,576 characters" in str(long)
    assert source.rows_read == 3
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    written = io.BytesIO()
    again = JsonSource(io.BytesIO(data), is_json_lines=source.is_json_lines)
    copy_rows(again, {1} if form.startswith("first") else {1, 2}, written.write)
    assert written.getvalue() == copied % _AVATARS[avatar]


def test_the_first_line_of_json_lines_may_be_too_long() -> None:
    avatar = _AVATARS["of numbers"]
    data = avatar + b'\n{"a": 1}\n' + avatar
    source = source_of(data)
    long, row, last = source.rows()
    assert isinstance(long, InvalidRow)
    assert row == {"a": 1}
    assert isinstance(last, InvalidRow)
    assert source.is_json_lines
    written = io.BytesIO()
    copy_rows(JsonSource(io.BytesIO(data), is_json_lines=True), {1}, written.write)
    assert written.getvalue() == avatar + b"\n"


@pytest.mark.parametrize("space", [b"", b"\n"])
def test_what_stands_beside_the_users_may_be_of_any_length(space: bytes) -> None:
    more = b'"posts": [' + b'{"text": "[[["},' * 80_000 + b"{}]"
    data = b"{" + space + more + b', "users": [{"a": 1}, 2], ' + more.replace(b"p", b"q") + b"}"
    assert list(source_of(data).rows()) == [{"a": 1}, 2]


def test_a_row_that_is_just_short_enough_is_one_whatever_is_read_at_once() -> None:
    row = b'"' + b"x" * (ROW_MAX_LENGTH - 2) + b'"'
    data = b"[" + row + b"," + row[:-1] + b'x",1]'
    for size in (10_007, 131_072, len(data)):
        fits, long, last = JsonSource(_Trickle(data, size)).rows()
        assert (type(fits), type(long), last) == (str, InvalidRow, 1)


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
