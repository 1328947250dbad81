"""What make doctor says of the list of revocations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.doctor import look, told
from tests.support.emulator import SECRET
from tests.support.postgres import free_port
from tests.support.redis_servers import PASSWORD, RedisServer, false_redis, running_redis
from tests.support.waiting import until


@pytest.fixture(scope="module")
def server(redis_program: str) -> Iterator[RedisServer]:
    with running_redis(redis_program) as running:
        yield running


def test_one_that_keeps_the_list_is_told_and_keeps_nothing_of_the_look(server: RedisServer) -> None:
    (found,) = look("redis", REDIS_URL=server.url, SESSION_SECRET=SECRET)
    assert found.verdict in ("ok", "note"), "on a busy machine it may be slow"
    assert "127.0.0.1" in found.sentence
    until(lambda: not server.keys(), 5)


def test_one_that_refuses_us_is_a_problem_without_its_password(server: RedisServer) -> None:
    with server.another_password():
        (problem,) = told(look("redis", REDIS_URL=server.url), "problem")
    assert "cannot be used: it refuses the user or the password of REDIS_URL." in problem
    assert PASSWORD not in problem
    with server.full():
        (problem,) = told(look("redis", REDIS_URL=server.url), "problem")
    assert "cannot be used: it is full (maxmemory)." in problem


def test_rights_that_are_missing_are_named(server: RedisServer) -> None:
    server.run("ACL", "SETUSER", "auth", "on", ">canary", "~ai-coder-auth:revoked:*", "+exists")
    url = f"redis://auth:canary@127.0.0.1:{server.port}"
    (problem,) = told(look("redis", REDIS_URL=url), "problem")
    assert "its user needs the rights to EXISTS and SET on our keys" in problem
    server.run("ACL", "SETUSER", "auth", "+set")
    assert told(look("redis", REDIS_URL=url), "problem") == [], "as the document has it"


def test_none_and_a_false_one_are_problems() -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    (problem,) = told(look("redis", REDIS_URL=url), "problem")
    assert "the connection to 127.0.0.1 failed: Connection refused" in problem
    with false_redis(lambda taken: taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        (problem,) = told(look("redis", REDIS_URL=server.url), "problem")
    assert "its answer is not one of Redis's" in problem
    with false_redis(lambda taken: taken.sendall(b"+OK\r\n:0\r\n")) as server:
        (problem,) = told(look("redis", REDIS_URL=server.url), "problem")
    assert "it does not keep what it is given" in problem


def test_without_the_setting_nothing_is_said() -> None:
    assert look("redis") == []
