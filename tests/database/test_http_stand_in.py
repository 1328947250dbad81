"""The stand-in for Neon's proxy answers Neon's own driver as that expects, and ours asks alike."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest

from shared.database.pool import Database
from shared.database.statement import Statement
from shared.settings import Settings
from tests.support.emulator import SECRET
from tests.support.neon_driver import ask
from tests.support.neon_proxy import NeonProxy, Request
from tests.support.postgres import Server
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("driver_of_neon")

TYPES = """
SELECT $1::int AS number, $2 AS text, true AS yes, 9007199254740993 AS big, $3::bytea AS bytes,
    '{"a": 1}'::jsonb AS document, NULL AS nothing, '{1,2}'::int[] AS list, 0.5::float8 AS half
"""
VALUES = [5, 'é"\\', {"bytes": "00ff"}]


def _result(server: Server, proxy: NeonProxy, **call: Any) -> Any:
    (outcome,) = ask(server, proxy, call)
    assert "error" not in outcome, outcome["error"]
    return outcome["result"]


def test_the_options_give_the_forms_that_the_driver_promises(
    postgres: Server, neon: NeonProxy
) -> None:
    asked = {"query": TYPES, "params": VALUES}
    flags = [(arrays, full) for arrays in (False, True) for full in (False, True)]
    calls = [
        asked | {"options": {"arrayMode": arrays, "fullResults": full}} for arrays, full in flags
    ]
    names = ["number", "text", "yes", "big", "bytes", "document", "nothing", "list", "half"]
    values = [
        5,
        'é"\\',
        True,
        "9007199254740993",
        {"type": "Buffer", "data": [0, 255]},
        {"a": 1},
        None,
        [1, 2],
        0.5,
    ]
    for (arrays, full), outcome in zip(flags, ask(postgres, neon, *calls), strict=True):
        row = values if arrays else dict(zip(names, values, strict=True))
        if not full:
            assert outcome["result"] == [row]
            continue
        result = outcome["result"]
        assert (result["rows"], result["rowAsArray"]) == ([row], arrays)
        assert (result["command"], result["rowCount"]) == ("SELECT", 1)
        assert [field["name"] for field in result["fields"]] == names
        kinds = [field["dataTypeID"] for field in result["fields"]]
        assert kinds == [23, 25, 16, 20, 17, 3802, 25, 1007, 701]


def test_a_command_tells_what_it_did_and_to_how_many_rows(
    postgres: Server, neon: NeonProxy
) -> None:
    outcome = _result(
        postgres,
        neon,
        queries=[
            {"query": "CREATE TEMPORARY TABLE things (number int)"},
            {"query": "INSERT INTO things VALUES (1), (2)"},
            {"query": "UPDATE things SET number = 3 RETURNING number"},
            {"query": "DELETE FROM things WHERE number = 7"},
        ],
        options={"fullResults": True},
    )
    assert [(found["command"], found["rowCount"]) for found in outcome] == [
        ("CREATE", None),
        ("INSERT", 2),
        ("UPDATE", 2),
        ("DELETE", 0),
    ]


@pytest.mark.parametrize(
    ("call", "code", "routine", "message"),
    [
        ({"query": "SELECT 1/0"}, "22012", "int4div", "division by zero"),
        ({"query": "SELEC 1"}, "42601", "scanner_yyerror", "syntax error"),
        ({"query": "SELECT * FROM nowhere"}, "42P01", "parserOpenTable", "does not exist"),
        ({"query": "SELECT 1; SELECT 2"}, "42601", "exec_parse_message", "multiple commands"),
        ({"query": "SELECT $1 || $2", "params": ["1"]}, "08P01", "exec_bind_message", "requires 2"),
        (
            {"query": "SELECT $1::int", "params": ["1", "2"]},
            "08P01",
            "exec_bind_message",
            "requires 1",
        ),
        ({"query": "SELECT $1::int", "params": ["one"]}, "22P02", "pg_strtoint32_safe", "one"),
        (
            {"queries": [{"query": "CREATE TABLE mine ()"}], "options": {"readOnly": True}},
            "25006",
            "PreventCommandIfReadOnly",
            "read-only",
        ),
    ],
)  # fmt: skip
def test_an_error_of_postgresql_has_its_code_and_its_routine(
    postgres: Server, neon: NeonProxy, call: dict[str, Any], code: str, routine: str, message: str
) -> None:
    (outcome,) = ask(postgres, neon, call)
    error = outcome["error"]
    assert (error["name"], error["severity"], error["code"]) == ("NeonDbError", "ERROR", code)
    if postgres.version == 17:
        assert error["routine"] == routine
    assert message in error["message"]


def test_what_the_proxy_finds_out_by_itself_has_no_code(postgres: Server, neon: NeonProxy) -> None:
    wrong, level = ask(
        postgres,
        neon,
        {"query": "SELECT 1", "url": postgres.url("postgres", password="wrong")},
        {"queries": [{"query": "SELECT 1"}], "options": {"isolationLevel": "Chaos"}},
    )
    assert wrong["error"]["message"] == "password authentication failed for user 'app'"
    assert "neon-batch-isolation-level" in level["error"]["message"]
    assert "code" not in wrong["error"].keys() | level["error"].keys()


def test_another_database_is_refused_by_postgresql(postgres: Server, neon: NeonProxy) -> None:
    (outcome,) = ask(postgres, neon, {"query": "SELECT 1", "url": postgres.url("nowhere")})
    assert (outcome["error"]["severity"], outcome["error"]["code"]) == ("FATAL", "3D000")


def test_a_batch_is_one_transaction_with_the_options_that_it_has(
    postgres: Server, neon: NeonProxy
) -> None:
    shown = [
        {"query": f"SHOW transaction_{name}"} for name in ("isolation", "read_only", "deferrable")
    ]
    levels = {
        "ReadUncommitted": "read uncommitted",
        "ReadCommitted": "read committed",
        "RepeatableRead": "repeatable read",
        "Serializable": "serializable",
    }
    calls = [
        {
            "queries": shown,
            "options": {"isolationLevel": level, "readOnly": flag, "deferrable": flag},
        }
        for level in levels
        for flag in (False, True)
    ]
    for call, outcome in zip(calls, ask(postgres, neon, *calls), strict=True):
        options = call["options"]
        assert isinstance(options, dict)
        switch = "on" if options["readOnly"] else "off"
        level = options["isolationLevel"]
        assert [list(rows[0].values()) for rows in outcome["result"]] == [
            [levels[level]],
            [switch],
            [switch],
        ]
        answered = outcome["asked"][0]["answered"]
        assert answered["neon-request-id"]
        assert answered["neon-batch-isolation-level"] == level
        assert answered.get("neon-batch-read-only") == ("true" if options["readOnly"] else None)


def test_the_first_error_of_a_batch_leaves_nothing_and_stands_alone(
    postgres: Server, neon: NeonProxy, database: str
) -> None:
    url = postgres.url(database)
    (failed,) = ask(
        postgres,
        neon,
        {
            "url": url,
            "queries": [
                {"query": "CREATE TABLE mine AS SELECT 1"},
                {"query": "SELECT 1/0"},
                {"query": "SELECT * FROM nowhere"},
            ],
        },
    )
    assert failed["error"]["code"] == "22012"
    (left,) = ask(postgres, neon, {"url": url, "query": "SELECT to_regclass('mine') AS found"})
    assert left["result"] == [{"found": None}]


def test_an_empty_batch_has_no_results(postgres: Server, neon: NeonProxy) -> None:
    assert _result(postgres, neon, queries=[]) == []


def test_who_hangs_up_cancels_what_runs(postgres: Server, neon: NeonProxy) -> None:
    running = (
        "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state <> 'idle'"
    )
    (outcome,) = ask(postgres, neon, {"query": "SELECT pg_sleep(60)", "abortAfter": 300})
    assert "aborted" in outcome["error"]["message"]
    until(lambda: not postgres.run(running))


def test_no_state_of_a_session_outlives_a_request(postgres: Server, neon: NeonProxy) -> None:
    outcomes = ask(
        postgres,
        neon,
        {"query": "SET search_path = elsewhere"},
        {"query": "SELECT pg_advisory_lock(4711)"},
        {"query": "CREATE TEMPORARY TABLE mine ()"},
        {"query": "SHOW search_path"},
        {"query": "SELECT count(*)::int AS held FROM pg_locks WHERE objid = 4711"},
        {"query": "SELECT to_regclass('mine') AS found"},
        {"query": "SELECT pg_backend_pid()"},
        {"query": "SELECT pg_backend_pid()"},
    )  # fmt: skip
    *_, path, held, found, one, another = (outcome["result"] for outcome in outcomes)
    assert (path, held, found) == (
        [{"search_path": '"$user", public'}],
        [{"held": 0}],
        [{"found": None}],
    )
    assert one == another, "the session itself is kept"


def test_what_is_too_large_is_told_by_a_status_of_its_own(
    postgres: Server, neon: NeonProxy
) -> None:
    neon.max_body, neon.max_answer = 1000, 2000
    request, answer = ask(
        postgres,
        neon,
        {"query": "SELECT $1", "params": ["x" * 1000]},
        {"query": "SELECT repeat('x', 2000)"},
    )
    assert request["error"]["message"].startswith("Server error (HTTP status 413)")
    assert answer["error"]["message"].startswith("Server error (HTTP status 507)")


def test_a_compute_that_cannot_be_reached_is_an_error_of_the_server(
    postgres: Server, neon: NeonProxy
) -> None:
    away = postgres.url("postgres", port=1)
    (outcome,) = ask(postgres, neon, {"query": "SELECT 1", "url": away})
    assert outcome["error"]["message"].startswith("Server error (HTTP status 500)")


def test_our_request_is_the_drivers_for_the_same_batch(
    postgres: Server, neon: NeonProxy, database: str
) -> None:
    statement = Statement(
        "typed", "SELECT :name AS name, :number::int + 1, :nothing::text, :on::bool"
    )
    url = postgres.url(database)
    read = Settings.from_env({"DATABASE_URL": url, "SESSION_SECRET": SECRET} | neon.settings)
    assert read.database.url
    with closing(Database(read.database.url, read.database)) as pool:
        rows = pool.execute(statement, name='é"\\', number=1, nothing=None, on=True)
    (ours,) = neon.requests
    queries = json.loads(ours.body)["queries"]
    (outcome,) = ask(
        postgres,
        neon,
        {
            "url": url,
            "queries": [*queries[:1], {"query": statement.text, "params": ['é"\\', 1, None, True]}],
            "options": {"isolationLevel": "ReadCommitted", "arrayMode": True},
        },
    )
    theirs = neon.requests[1]
    # pg writes a boolean as "true", and we as Python does; PostgreSQL reads both.
    assert json.loads(theirs.body)["queries"] == [
        queries[0],
        {"query": statement.text, "params": ['é"\\', "1", None, "true"]},
    ]
    assert queries[1]["params"] == ['é"\\', "1", None, "True"]
    assert _of_neon(ours) == _of_neon(theirs)
    assert _without_query(ours) == _without_query(theirs)
    assert rows == outcome["result"][1] == [['é"\\', 2, None, True]]
    assert ours.path == theirs.path


def _of_neon(request: Request) -> dict[str, str]:
    """Give the headers of the protocol but the one that has the parameters of a URL."""
    return {
        name: value
        for name, value in request.headers.items()
        if name.startswith("neon-") and name != "neon-connection-string"
    }


def _without_query(request: Request) -> str:
    return request.headers["neon-connection-string"].partition("?")[0]
