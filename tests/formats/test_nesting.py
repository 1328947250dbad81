"""How deep JSON may nest: a hundred levels, on every interpreter and in the smallest stack."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.credentials.passwords import PasswordHasher
from shared.formats.strict_json import MAX_DEPTH, InvalidJson, depth, loads
from shared.model.user_record import InvalidRow
from tests.support.emulator import ROOT, Emulator, environment, running_emulator
from tests.support.transfers import source_of

JSON = {"Content-Type": "application/json"}
STACK = "128"
"""KiB, as musl gives a thread."""
PASSWORD = "correct horse battery staple"
TOO_DEEP = "The JSON is nested too deeply."
BROKEN = "The JSON cannot be parsed."


def _arrays(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def _objects(levels: int) -> bytes:
    return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)


def _mixed(levels: int) -> bytes:
    return b'[{"a":' * (levels // 2) + _arrays(levels % 2) + b"1" + b"}]" * (levels // 2)


def _spaced(levels: int) -> bytes:
    return b" [\r\n\t" * levels + b"]\n" * levels


def _beside_text(levels: int) -> bytes:
    return b'["]\\"]\\\\",' * levels + b"1" + b',"["]' * levels


def _after_a_flat_crowd(levels: int) -> bytes:
    return b"[" + b'[{"a": "}]"}],' * 300 + _arrays(levels - 1) + b"]"


SHAPES = [_arrays, _objects, _spaced, _beside_text, _after_a_flat_crowd]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hundred_levels_are_parsed_and_one_more_is_not(shape: Any) -> None:
    assert loads(shape(MAX_DEPTH)) == json.loads(shape(MAX_DEPTH))
    for levels in (MAX_DEPTH + 1, 1_000, 100_000):
        with pytest.raises(InvalidJson, match=TOO_DEEP):
            loads(shape(levels))


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b"[" * 1000 + b'"',
        b'["' + b'{\\"a\\":' * 1000 + b'\\\\"]',
        b'{"' + b"[{" * 1000 + b'": "' + b"]}" * 1000 + b'"}',
        b"[" + ",".join(['"ä[\\u005b[é"'] * 300).encode() + b"]",
        b"[" + b"[]," * 1000 + b"{}]",
    ],
)  # fmt: skip
def test_brackets_in_text_and_side_by_side_are_no_levels(data: bytes) -> None:
    assert loads(data) == json.loads(data)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"[" * 100, BROKEN),
        (b"[" * 101, TOO_DEEP),
        (b"[" * 1_000_000, TOO_DEEP),
        (b"]" * 1_000_000, BROKEN),
        (b"]" * 1000 + b"[" * 1000, BROKEN),
        (b'"' + b"[" * 1000, BROKEN),
        (b"[" * 60 + b"}" * 60 + b"{" * 60, BROKEN),
        (b'{"a":' * 101 + b"}" * 7, TOO_DEEP),
        (b'["a\n", ' + b"[" * 1000, TOO_DEEP),
    ],
)
def test_what_is_not_balanced_has_one_verdict_everywhere(data: bytes, sentence: str) -> None:
    with pytest.raises(InvalidJson, match=sentence):
        loads(data)


def _levels(data: str) -> int | None:
    """Count one character after the other; None where a backslash is outside of texts."""
    levels = most = 0
    in_text = is_escaped = False
    for character in data:
        if in_text:
            in_text = is_escaped or character != '"'
            is_escaped = character == "\\" and not is_escaped
        elif character == "\\":
            return None
        else:
            in_text = character == '"'
            levels += (character in "[{") - (character in "]}")
            most = max(most, levels)
    return most


_PIECE = st.sampled_from(["[", "{", "]", "}", '"', "\\", '\\"', "\\\\", ",", "ä", "[" * 30, '""'])


@given(pieces=st.lists(_PIECE, max_size=60), start=st.sampled_from([0, 70, 95, 101]))
def test_the_depth_is_what_counting_each_character_gives(pieces: list[str], start: int) -> None:
    data = "[" * start + "".join(pieces)
    levels = _levels(data)
    if levels is not None:
        assert (depth(data.encode()) > MAX_DEPTH) == (levels > MAX_DEPTH)


@pytest.fixture(scope="module")
def small_stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator whose threads have as little stack as musl gives them, and a nested user."""
    file = tmp_path_factory.mktemp("users") / "users.json"
    nested = json.loads(_mixed(MAX_DEPTH - 2))
    password = PasswordHasher(4).hash(PASSWORD)
    user = {"id": "u1", "email": "ada@example.com", "password": password, "posts": nested}
    file.write_text(json.dumps([user]))
    with running_emulator(
        stack=STACK, USERS_FILE=str(file), GOOGLE_CLIENT_ID="client.apps.googleusercontent.com"
    ) as running:
        yield running


def test_no_body_kills_a_worker_with_small_stacks(small_stacks: Emulator) -> None:
    worker = small_stacks.worker
    answers = {}
    # Who sends too much is hung up on.
    with small_stacks.client(headers=JSON | {"Connection": "close"}) as client:
        for levels in (MAX_DEPTH - 1, MAX_DEPTH, 1_000, 2_000, 7_500, 100_000):
            for shape in SHAPES[:-1]:
                for body in (b'{"x": ' + shape(levels) + b"}", shape(levels)[: 5 * levels]):
                    answer = client.post("/api/login", content=body)
                    answers[answer.json()["error"]] = answer.status_code
                    fits = len(body) <= 16 * 1024
                    assert answer.status_code == (400 if fits else 413)
                    if fits and levels > MAX_DEPTH:
                        assert answer.json()["error"] == TOO_DEEP
        assert {"Please enter your email", TOO_DEEP, "The JSON must be an object"} <= answers.keys()
        assert client.get("/api/livez").status_code == 200
    assert small_stacks.worker == worker


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("levels", [100, 1_000, 2_900])
def test_no_token_kills_a_worker_with_small_stacks(small_stacks: Emulator, levels: int) -> None:
    worker = small_stacks.worker
    deep, flat = _encoded(_arrays(levels)), _encoded(b'{"alg": "RS256", "kid": "x"}')
    with small_stacks.client() as client:
        for token in (f"{deep}.e30.AA", f"{flat}.{deep}.AA"):
            for name in ("session", "__Host-session"):
                answer = client.get("/api/user", headers={"Cookie": f"{name}={token}"})
                assert answer.status_code == 401
            answer = client.post("/api/auth/google", json={"idToken": token})
            assert answer.status_code == 401, answer.text
        assert client.get("/api/livez").status_code == 200
    assert small_stacks.worker == worker


def test_what_a_users_file_may_hold_can_be_written_again(small_stacks: Emulator) -> None:
    worker = small_stacks.worker
    with small_stacks.client() as client:
        credentials = {"email": "ada@example.com", "password": PASSWORD}
        assert client.post("/api/login", json=credentials).status_code == 200
        assert client.post("/api/logout", json={}).status_code == 200
        assert client.post("/api/login", json=credentials).status_code == 200
    assert small_stacks.worker == worker


_EVERY_READER = """
import io, threading
from shared.errors import InvalidSource, StoreRefused
from shared.store.json_file import users_file
from shared.store.postgres import rows
from shared.formats.strict_json import InvalidJson, loads
from shared.transfer.json_rows import JsonSource
deep = {shape}
def source_rows(data):
    for row in JsonSource(io.BytesIO(data)).rows():
        if not isinstance(row, int):
            raise InvalidSource(str(row))
readers = [
    loads, users_file.parse, lambda data: rows.parse_json(data.decode()), source_rows,
    lambda data: source_rows(b"[1, " + data),
    lambda data: source_rows(b'{{"users": [], "x": ' + data),
]
def read():
    for reader in readers:
        try:
            reader(deep)
        except (InvalidJson, InvalidSource, StoreRefused) as error:
            print(error)
threading.stack_size(128 * 1024)
thread = threading.Thread(target=read)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("shape", ['b"[" * 1_000_000', """b'{"a":' * 200_000"""])
def test_no_reader_of_json_needs_more_than_a_small_stack(shape: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _EVERY_READER.format(shape=shape)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert ["nested too deeply" in line for line in said] == [True] * 6


@pytest.mark.parametrize("before", [0, 1, 700, 1_000])
@pytest.mark.parametrize(
    "form", ["[{rows}]", '{{"users": [{rows}]}}', '{{"v": 1, "users":[{rows}]}}']
)
def test_a_row_has_a_hundred_levels_wherever_it_stands_in_the_file(form: str, before: int) -> None:
    flat = json.dumps({"name": "[{" * 100})
    fits, deep = (_objects(levels).decode() for levels in (MAX_DEPTH, MAX_DEPTH + 1))
    rows = [flat] * before + [fits, "{}"]
    *_, row, last = source_of(form.format(rows=",\n".join(rows)).encode()).rows()
    assert (row, last) == (json.loads(fits), {})
    rows[-1] = deep
    rows.append("{}")
    *_, fitting, bad, last = source_of(form.format(rows=",\n".join(rows)).encode()).rows()
    assert (fitting, last) == (json.loads(fits), {})
    assert isinstance(bad, InvalidRow)
    assert str(bad) == "It is nested too deeply."


@pytest.mark.parametrize("levels", [MAX_DEPTH + 2, 1_000, 200_000])
def test_a_row_that_is_too_deep_is_only_a_row_however_deep_it_is(levels: int) -> None:
    rows = ["{}", _mixed(levels).decode(), '{"a": "]]]"}', _mixed(levels).decode(), '{"b": 1}']
    first, bad, middle, worse, last = source_of(f"[{','.join(rows)}]".encode()).rows()
    assert (first, middle, last) == ({}, {"a": "]]]"}, {"b": 1})
    assert isinstance(bad, InvalidRow)
    assert isinstance(worse, InvalidRow)


def test_a_line_that_is_too_deep_is_only_a_row() -> None:
    lines = [b'{"a": 1}', _objects(MAX_DEPTH), _objects(MAX_DEPTH + 1), b'{"b": 2}']
    first, fits, deep, last = source_of(b"\n".join(lines)).rows()
    assert (first, last) == ({"a": 1}, {"b": 2})
    assert isinstance(fits, dict)
    assert isinstance(deep, InvalidRow)


def test_nothing_parses_json_but_what_measures_it_first() -> None:
    parsers = ("json.load(", "json.loads(", "JSONDecoder(", "raw_decode(", "get_json(")
    users = {
        str(path.relative_to(ROOT))
        for folder in ("functions", "shared", "deploy")
        for path in Path(ROOT, folder).rglob("*.py")
        if any(name in path.read_text() for name in parsers)
    }
    assert users == {"shared/formats/strict_json.py", "shared/transfer/json_rows.py"}
