"""What is called whole is whole for the parser that gets it, however it has arrived."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from gunicorn.http.errors import ParseException
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import HttpError
from shared.web import framing
from shared.web.framing import MAX_BODY, Arrival, Arriving
from tests.support.emulator import ROOT

EXAMPLES = 400
GET = b"GET /api/user HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /api/login HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


class NotThere(Exception):
    """The parser asks for more than it got: on a socket, a thread would wait now."""


def _parsed(data: bytes, size: int | None = None) -> bytes | None:
    """Read a request and of its body so much as a thread does, from these bytes and no others."""

    def source() -> Iterator[bytes]:
        yield data
        raise NotThere

    try:
        request = next(get_parser(Config(), source(), ("127.0.0.1", 1)))
        body: bytes = request.body.read(size)
    except ParseException:
        return None
    return body


def _arrival(*parts: bytes) -> Arrival:
    arriving = Arriving()
    return [arriving.add(part) for part in parts][-1]


@pytest.mark.parametrize(
    ("data", "arrival"),
    [
        (b"", Arrival.PARTIAL),
        (b"GET", Arrival.PARTIAL),
        (GET[:-1], Arrival.PARTIAL),
        (GET, Arrival.WHOLE),
        (b"\r\n" + GET, Arrival.WHOLE),
        (GET + GET, Arrival.WHOLE),
        (POST + b"Content-Length: 2\r\n\r\n{", Arrival.PARTIAL),
        (POST + b"content-length:2\r\n\r\n{}", Arrival.WHOLE),
        (POST + b"Content-Length: %d\r\n\r\n" % MAX_BODY, Arrival.PARTIAL),
        (POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1), Arrival.LARGE),
        (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", Arrival.LARGE),
        (POST + b"Content-Length: " + b"0" * 5000 + b"\r\n\r\n", Arrival.WHOLE),
        (CHUNKED, Arrival.PARTIAL),
        (CHUNKED + b"2\r\n{}\r\n", Arrival.PARTIAL),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", Arrival.PARTIAL),
        (CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", Arrival.WHOLE),
        (CHUNKED + b"2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n", Arrival.WHOLE),
        (CHUNKED + b"%x\r\n" % MAX_BODY, Arrival.PARTIAL),
        (CHUNKED + b"f" * 9000 + b"\r\n", Arrival.PARTIAL),
        (CHUNKED + b"f" * 9000 + b"\r\n" + b"x" * MAX_BODY, Arrival.PARTIAL),
        (CHUNKED + b"f" * 9000 + b"\r\n" + b"x" * (MAX_BODY + 1), Arrival.LARGE),
        (CHUNKED + b"2000\r\n%s\r\n" % (b"x" * 8192) * 2 + b"1\r\n", Arrival.PARTIAL),
        (CHUNKED + b"2000\r\n%s\r\n" % (b"x" * 8192) * 2 + b"1\r\nx", Arrival.LARGE),
        (POST.replace(b"\r\nHost", b"\nHost"), Arrival.WHOLE),
        (CHUNKED + b"2\r\n{}xx", Arrival.WHOLE),
        (CHUNKED + b"zz\r\n", Arrival.WHOLE),
        (POST + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\n", Arrival.WHOLE),
    ],
)
def test_a_request_has_arrived_when_its_head_and_a_small_body_have(
    data: bytes, arrival: Arrival
) -> None:
    assert _arrival(data) is arrival
    assert _arrival(*(data[at : at + 1] for at in range(len(data))), b"") is arrival


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"G" * (framing.MAX_LINE + 5), 414),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n", 414),
        (POST + b"X: " + b"a" * framing.MAX_HEAD, 431),
        (POST + b"X: " + b"a" * framing.MAX_HEAD + b"\r\n\r\n", 431),
        (CHUNKED + b"1;" + b"a" * 2 * MAX_BODY, 413),
        (CHUNKED + b"1\r\nx\r\n" * 6000, 413),
        (CHUNKED + b"0\r\nX: " + b"a" * 2 * MAX_BODY, 413),
    ],
)
def test_what_is_too_long_is_refused_before_it_has_ended(data: bytes, status: int) -> None:
    with pytest.raises(HttpError) as caught:
        _arrival(data)
    assert caught.value.status == status
    with pytest.raises(HttpError) as caught:
        _arrival(*(data[at : at + 100] for at in range(0, len(data), 100)))
    assert caught.value.status == status


def test_the_longest_line_that_is_taken_is_waited_for() -> None:
    line = b"GET /" + b"a" * (framing.MAX_LINE - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"
    for before in (b"", b"\r\n"):
        assert _arrival(before + line, b"\r\n", b"\r\n") is Arrival.WHOLE


_fields = st.sampled_from(
    [
        b"Content-Length: 3",
        b"Content-Length:\t3 ",
        b"CONTENT-LENGTH: 0003",
        b"Content-Length: +3",
        b"Content-Length: 3, 3",
        b"Content-Length: ",
        b"Content-Length : 3",
        b"Content-Length: \xb2",
        b"Content-Length: 3\r4",
        b"Content_Length: 9",
        b" Content-Length: 9",
        b"X: y\r\n Content-Length: 9",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: Chunked\t",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer_Encoding: chunked",
        b"Expect: 100-continue",
        b"Expect: other",
        b"Host: x",
        b"X: Content-Length: 9",
        b": x",
        b"",
    ]
)
_lines = st.sampled_from(
    [
        b"POST /api/login HTTP/1.1",
        b"POST /api/login HTTP/1.1",
        b"POST /api/login HTTP/1.0",
        b"POST /api/login HTTP/2.0",
        b"\r\nPOST /api/login HTTP/1.1",
        b"POST /",
        b"",
        b"\r\n",
    ]
)
_bodies = st.sampled_from(
    [
        b"",
        b"abc",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n",
        b"3 ;x\r\nabc\r\n00\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"1_0\r\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\n\n",
    ]
)
_requests = st.builds(
    lambda line, fields, body: b"\r\n".join([line, *fields, b"", body]),
    _lines,
    st.lists(_fields, max_size=4),
    _bodies,
)
_any = st.one_of(
    _requests,
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b":", b" ", b"GET / HTTP/1.1"])).map(b"".join),
    st.binary(max_size=40),
    st.builds(lambda data, junk, at: data[:at] + junk + data[at:], _requests, st.binary(max_size=3),
              st.integers(0, 60)),
)  # fmt: skip


@settings(max_examples=EXAMPLES)
@given(_any, st.lists(st.integers(0, 200), max_size=5))
@example(CHUNKED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: gzip\r\n\r\n"), [])
@example(POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", [])
def test_the_parser_never_waits_for_more_of_what_is_called_whole(
    data: bytes, cuts: list[int]
) -> None:
    arriving = Arriving()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        if arriving.add(data[start:end]) is Arrival.WHOLE:
            _parsed(bytes(arriving.data))  # Raises NotThere if it would wait.
            return
    assert Arriving().add(data) is not Arrival.WHOLE


@settings(max_examples=EXAMPLES // 5)
@given(st.lists(st.integers(1, 20_000), min_size=1), st.integers(1, 60_000))
def test_of_a_large_chunked_body_as_much_is_there_as_tells_that_it_is_one(
    sizes: list[int], cut: int
) -> None:
    data = CHUNKED + b"".join(b"%x\r\n%s\r\n" % (size, b"x" * size) for size in sizes)
    if Arriving().add(data[:cut]) is Arrival.LARGE:
        assert _parsed(data[:cut], MAX_BODY + 1) == b"x" * (MAX_BODY + 1)


@settings(max_examples=EXAMPLES // 5)
@given(st.binary(max_size=100), st.booleans(), st.lists(st.integers(1, 30), min_size=1))
def test_a_sound_request_is_whole_with_its_last_byte_and_not_before(
    body: bytes, is_chunked: bool, sizes: list[int]
) -> None:
    if is_chunked:
        chunks, rest = [], body
        for size in sizes * 100:
            if not rest:
                break
            chunks.append(b"%x\r\n%s\r\n" % (len(rest[:size]), rest[:size]))
            rest = rest[size:]
        data = CHUNKED + b"".join(chunks) + b"0\r\n\r\n"
    else:
        data = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    arriving = Arriving()
    for at in range(len(data) - 1):
        assert arriving.add(data[at : at + 1]) is Arrival.PARTIAL
    assert arriving.add(data[-1:]) is Arrival.WHOLE
    assert _parsed(data) == body


@pytest.mark.parametrize("name", ["Expect", "Content-Length", "Transfer-Encoding"])
@pytest.mark.parametrize("end", [r"\rx", r"x\rx"])
def test_a_field_full_of_blanks_is_read_in_a_time_that_grows_with_its_length(
    name: str, end: str
) -> None:
    head = rf"GET / HTTP/1.1\r\n{name}:' + b' ' * 30_000 + b'{end}\r\n\r\n"
    read = f"from shared.web.framing import Arriving; print(Arriving().add(b'{head}'))"
    # In a process of its own: the time was the cube of the length, days.
    done = subprocess.run(
        [sys.executable, "-c", read], cwd=ROOT, capture_output=True, timeout=60, check=True
    )
    assert done.stdout == b"Arrival.WHOLE\n"
