"""Whatever is answered over HTTP, a statement has its rows or an error of ours, in time.

And whatever the stand-in is asked, it answers.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.database.pool import Database
from shared.database.statement import Statement
from shared.errors import StoreFault, StoreUnavailable
from tests.support.neon_pools import SETTINGS, by_http
from tests.support.neon_proxy import Answer, NeonProxy, answering, raw
from tests.support.postgres import Server

SECONDS = 8
"""More than a deadline of `settings`, with room for a busy machine."""
ROWS = [["1", "t", None, "0.5", "{}", "2026-01-02 03:04:05+00", "é"]]
KINDS = [23, 16, 25, 1700, 114, 1184, 25]
EXACT = [1, True, None]

TEXTS = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
MEMBERS = (
    "results",
    "fields",
    "rows",
    "dataTypeID",
    "message",
    "code",
    "severity",
    "msg",
    "where",
    "routine",
)
LIKELY = st.recursive(
    JSON | st.sampled_from([*KINDS, 17, 20, 700, 1082, 1083, 1114, 1186, 2950, 1007, 869, 1009]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5)
        | st.fixed_dictionaries({"results": st.lists(inner, min_size=2, max_size=2)})
        | st.fixed_dictionaries({"fields": st.lists(inner, max_size=3), "rows": inner})
    ),
    max_leaves=12,
)
CODES = st.sampled_from(["23505", "28P01", "3D000", "40001", "53300", "57014", "57P01", "57P03"])
ERRORS = st.fixed_dictionaries(
    {},
    optional={
        "message": JSON,
        "msg": JSON,
        "code": CODES | JSON,
        "severity": st.sampled_from(["ERROR", "FATAL"]) | JSON,
        "where": JSON,
        "table": JSON,
        "routine": st.sampled_from(["exec_stmt_raise", "aclcheck_error"]) | JSON,
    },
)
VALUES = st.sampled_from(
    [*KINDS, 17, 20, 21, 26, 700, 701, 1082, 1083, 1114, 1186, 1231, 2950, 3926]
)
VALUES |= st.sampled_from([1005, 1007, 1009, 1016, 1021, 1022, 1000, 1182, 1115, 1185, 1187, 1563])
HEADERS = st.dictionaries(
    st.sampled_from(["Connection", "Content-Type", "Content-Encoding", "X", "Retry-After"]),
    st.sampled_from(["close", "keep-alive", "text/html", "gzip", "x" * 70_000, "-1", ""]),
    max_size=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def proxy(postgres: Server) -> Iterator[NeonProxy]:
    with NeonProxy(postgres) as running:
        yield running


@pytest.fixture(scope="module")
def pool(postgres: Server, proxy: NeonProxy) -> Iterator[Database]:
    quick = SETTINGS._replace(connect_timeout=0.5, timeout=1, statement_timeout=0.5)
    with by_http(postgres.url("postgres"), proxy.port, quick) as opened:
        yield opened


def _outcome(pool: Database) -> list[list[Any]] | None:
    """Give the rows, or None where an error of ours was raised in time."""
    pool.breaker.close()
    began = time.monotonic()
    try:
        return pool.execute("SELECT 1")
    except (StoreUnavailable, StoreFault) as error:
        str(error)
        return None
    finally:
        assert time.monotonic() - began < SECONDS
        counts = pool.counts()
        assert counts.total == counts.idle


def _answer(kinds: list[int], rows: object) -> dict[str, Any]:
    fields = [{"name": "x", "dataTypeID": kind} for kind in kinds]
    return {"results": [{"fields": [], "rows": []}, {"fields": fields, "rows": rows}]}


@given(
    data=st.binary(max_size=300) | st.binary(max_size=80).map(lambda b: b"HTTP/1.1 200 OK\r\n" + b)
)
def test_bytes_are_no_answer(pool: Database, proxy: NeonProxy, data: bytes) -> None:
    proxy.fault = raw(data)
    assert _outcome(pool) is None


@given(
    status=st.sampled_from([200, 400, 500, 507, 302]), headers=HEADERS, body=st.binary(max_size=99)
)
def test_another_body_is_no_answer(
    pool: Database, proxy: NeonProxy, status: int, headers: dict[str, str], body: bytes
) -> None:
    proxy.fault = answering(Answer(status, headers, body))
    assert _outcome(pool) is None


@given(status=st.sampled_from([200, 400, 500]), body=LIKELY | ERRORS)
def test_another_document_is_no_answer(
    pool: Database, proxy: NeonProxy, status: int, body: object
) -> None:
    proxy.fault = answering(Answer.json(status, body))
    rows = _outcome(pool)
    if rows is not None:  # It was one after all: two results, and rows of texts.
        assert status == 200
        assert isinstance(body, dict)
        assert len(rows) == len(body["results"][1]["rows"])


@given(
    kind=VALUES, text=TEXTS | st.sampled_from(["NaN", "Infinity", "{", "{{}", "1e999999999", "("])
)
def test_a_text_that_is_none_of_its_type_is_an_error_or_itself(
    pool: Database, proxy: NeonProxy, kind: int, text: str
) -> None:
    proxy.fault = answering(Answer.json(200, _answer([kind], [[text]])))
    _outcome(pool)


@given(
    row=st.lists(st.none() | TEXTS | JSON, min_size=6, max_size=8)
    | TEXTS
    | st.text(min_size=7, max_size=7)
    | st.dictionaries(TEXTS, TEXTS, min_size=7, max_size=7)
)
def test_a_row_of_another_form_is_no_row(pool: Database, proxy: NeonProxy, row: object) -> None:
    proxy.fault = answering(Answer.json(200, _answer([25] * 7, [row])))
    rows = _outcome(pool)
    is_row = isinstance(row, list) and len(row) == 7
    assert rows is None or (is_row and rows == [row])


@given(data=st.data())
def test_half_of_a_true_answer_is_none(
    pool: Database, proxy: NeonProxy, data: st.DataObject
) -> None:
    whole = Answer.json(200, _answer(KINDS, ROWS)).wire()
    proxy.fault = raw(whole)
    rows = _outcome(pool)
    assert rows is not None
    assert rows[0][: len(EXACT)] == EXACT
    proxy.fault = raw(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert _outcome(pool) is None


@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=50),
    number=st.integers(-(2**63), 2**63 - 1),
)
def test_every_value_arrives_as_it_was_sent(
    pool: Database, proxy: NeonProxy, text: str, number: int
) -> None:
    proxy.fault = None
    pool.breaker.close()
    statement = Statement("echo", "SELECT :text::text, :number::bigint")
    assert pool.execute(statement, text=text, number=number) == [[text, number]]


@given(told=st.lists(JSON, min_size=3, max_size=3), kind=VALUES)
def test_settings_that_are_none_are_no_session(
    postgres: Server, proxy: NeonProxy, told: list[object], kind: int
) -> None:
    settings, statement = _answer([kind] * 3, [told]), _answer([23], [["1"]])
    body = {"results": [settings["results"][1], statement["results"][1]]}
    url = f"{postgres.url('postgres')}&options=-csearch_path=app"
    with by_http(url, proxy.port) as pool:
        proxy.fault = answering(Answer.json(200, body))
        assert _outcome(pool) is None or told[:2] == ["app", "origin"]


BODIES = JSON | st.fixed_dictionaries(
    {"query": JSON | st.just("SELECT 1"), "params": JSON | st.lists(JSON, max_size=2)}
)
NAMES = st.sampled_from(
    ["Neon-Connection-String", "Neon-Array-Mode", "Neon-Batch-Isolation-Level", "Content-Type", "X"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=BODIES | st.lists(BODIES, max_size=2).map(lambda queries: {"queries": queries}),
    headers=st.dictionaries(
        NAMES, st.sampled_from(["true", "x", "", "Serializable", "é"]), max_size=4
    ),
    knows=st.booleans(),
)
def test_the_stand_in_answers_whatever_it_is_asked(
    postgres: Server, proxy: NeonProxy, body: object, headers: dict[str, str], knows: bool
) -> None:
    proxy.fault = None
    if knows:
        headers = headers | {"Neon-Connection-String": postgres.url("postgres")}
    data = json.dumps(body).encode()
    lines = [f"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\nConnection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    context = ssl.create_default_context(cafile=str(postgres.authority.certificate))
    plain = socket.create_connection(("localhost", proxy.port), 10)
    with closing(context.wrap_socket(plain, server_hostname="localhost")) as tls:
        tls.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + data)
        answer = b""
        while chunk := tls.recv(65536):
            answer += chunk
    head, _, document = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status in (200, 400, 413, 500)
    assert isinstance(json.loads(document), dict)
    if status == 200:
        assert knows
