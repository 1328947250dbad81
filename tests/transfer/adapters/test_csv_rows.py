"""CSV as other systems write it, however the bytes arrive, and as nobody should."""

from __future__ import annotations

import csv
import hashlib
import io
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidSource
from shared.model.user_record import InvalidRow
from shared.transfer.adapters.csv_rows import CsvSource
from shared.transfer.sources import ROW_MAX_LENGTH

CELLS = st.lists(st.sampled_from(['"', ",", "\n", "\r\n", ";", "ä", "a", " ", "'"])).map("".join)


class _Trickle:
    """Gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._stream, self._size = io.BytesIO(data), size

    def read(self, _: int, /) -> bytes:
        return self._stream.read(self._size)


def _rows(data: bytes | str, size: int = 1 << 20, **options: Any) -> list[Any]:
    data = data.encode() if isinstance(data, str) else data
    return list(CsvSource(_Trickle(data, size), **options).rows())


@given(
    st.lists(st.tuples(CELLS, CELLS), max_size=5),
    st.integers(1, 9) | st.just(100_000),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_is_written_is_read_however_the_bytes_arrive(
    rows: list[tuple[str, str]], size: int, end: str
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    data = text.getvalue().encode()
    source = CsvSource(_Trickle(data, size))
    assert list(source.rows()) == [{"a": a, "b": b} for a, b in rows]
    assert (source.rows_read, source.bytes_read) == (len(rows), len(data))
    assert source.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "data", ["a,b\n1,2\n", "\ufeffa,b\r\n1,2", "a,b\n\n1,2\n\r\n\n", " a ,b\n1,2"]
)
def test_a_mark_at_the_start_blank_lines_and_line_ends_change_nothing(data: str) -> None:
    assert _rows(data) == [{"a": "1", "b": "2"}]


def test_without_a_header_the_names_are_the_places() -> None:
    assert _rows("x,,z\n", has_header=False) == [{"0": "x", "1": "", "2": "z"}]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("1", "It has 1 cells, and the header 2."),
        ("1,2,", "It has 3 cells, and the header 2."),
        ('1,"2"3"4"', "Its quotes are wrong."),
        ("1,\0", "It holds a NUL character."),
        (f"1,{'x' * ROW_MAX_LENGTH}", "It is longer than 1,048,576 characters."),
        (
            '"' + "x,\n" * 400_000 + '",2',
            (
                "It is longer than 1,048,576 characters. "
                "A quote has made one row of lines 3 to 400,003."
            ),
        ),
        (
            '5,"stray\n6,a\n7,b\n8,"c"',
            "Its quotes are wrong. A quote has made one row of lines 3 to 6.",
        ),
        (
            '5,"stray\n6,a\n\n8,",c',
            "It has 3 cells, and the header 2. A quote has made one row of lines 3 to 6.",
        ),
    ],
)
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_a_bad_row_is_named_and_costs_no_other(bad: str, problem: str, size: int) -> None:
    first, found, last = _rows(f"a,b\n1,2\n{bad}\n3,4\n", size)
    assert (first, last) == ({"a": "1", "b": "2"}, {"a": "3", "b": "4"})
    assert isinstance(found, InvalidRow)
    assert str(found) == problem


def test_the_lines_of_a_bad_row_are_counted_from_where_it_begins() -> None:
    *_, found = _rows('a,b\n"1\n2",3\n\n4,"5\n6"7')
    assert str(found) == "Its quotes are wrong. A quote has made one row of lines 5 to 6."


def test_a_cell_may_be_nearly_as_long_as_a_row() -> None:
    (row,) = _rows(f"a,b\n1,{'x' * 1_000_000}\n")
    assert len(row["b"]) == 1_000_000


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "line 1 is empty"),
        (b"\n\r\n", "line 2 is empty"),
        (b"a,a\n1,2\n", "line 1 names a column twice"),
        (b"a,b\0\n1,2\n", "is no header of a CSV file"),
        (b"a,b\r1,2\r", "is no header of a CSV file"),
        (b'a,b\n1,2\n3,"4\n5,6\n', "row 2, line 3 opens a quote that does not end"),
        ("a,b\n1,ä\n".encode("latin-1"), "is not in UTF-8; if it is Latin-1, convert the file"),
        ("a,b\n1,2\n".encode("utf-16"), "it is in UTF-16; save it as UTF-8"),
        (b"PK\3\4", "it is compressed; unpack it first"),
    ],
)
def test_what_is_no_csv_in_utf_8_is_refused_with_what_to_do(data: bytes, problem: str) -> None:
    with pytest.raises(InvalidSource) as refused:
        _rows(data)
    assert problem in refused.value.sentence


def test_memory_does_not_grow_with_the_file_or_with_a_line_of_it() -> None:
    chance = random.Random(1)
    line = f"{chance.random()},{'x' * 200}\n".encode()
    parts = [b"a,b\n", *[line] * 40_000, b"1," + b"y" * 8_000_000 + b"\n", line]

    class Stream:
        def __init__(self) -> None:
            self.rest, self.number = b"", 0

        def read(self, size: int, /) -> bytes:
            while len(self.rest) < size and self.number < len(parts):
                self.rest += parts[self.number]
                self.number += 1
            given, self.rest = self.rest[:size], self.rest[size:]
            return given

    tracemalloc.start()
    try:
        count = sum(1 for _ in CsvSource(Stream()).rows())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 40_002
    assert most < 40_000_000  # The line that is too long is 8 MB of this stream's own, thrice.
