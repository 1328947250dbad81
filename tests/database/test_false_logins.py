"""A false or odd server gets no password of ours, and no work beyond what an honest one asks."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from shared.database.connection import MAX_ITERATIONS
from shared.database.pool import Database
from shared.database.url import DatabaseUrl
from tests.support.certificates import Authority
from tests.support.false_servers import SETTINGS, Behave, failure, lied_to
from tests.support.impostor import READY, authentication, log_in, message
from tests.support.postgres import Server, running_pgbouncer


def _asks(request: int, data: bytes = b"") -> Callable[[list[bytes]], Behave]:
    def asking(heard: list[bytes]) -> Behave:
        def behave(tls: ssl.SSLSocket) -> None:
            tls.sendall(authentication(request, data))
            heard.append(tls.recv(4096))

        return behave

    return asking


def _lets_in(heard: list[bytes]) -> Behave:
    def behave(tls: ssl.SSLSocket) -> None:
        tls.sendall(authentication(0) + READY)
        heard.append(tls.recv(4096))

    return behave


def _asks_nothing(heard: list[bytes]) -> Behave:
    def behave(tls: ssl.SSLSocket) -> None:
        tls.sendall(READY)
        heard.append(tls.recv(4096))

    return behave


ODD_LOGINS = {
    "clear text": (_asks(3), "asks for it in clear text"),
    "md5": (_asks(5, b"salt"), "asks for it as an MD5 hash"),
    "Kerberos": (_asks(2), "asks for it by method 2"),
    "SSPI": (_asks(9), "asks for it by method 9"),
    "none of all": (_asks(77), "asks for it by method 77"),
    "SCRAM-SHA-1": (_asks(10, b"SCRAM-SHA-1\0SCRAM-SHA-1-PLUS\0\0"), "offers no SCRAM-SHA-256"),
    "stronger": (_asks(10, b"SCRAM-SHA-512\0SCRAM-SHA3-512\0\0"), "offers no SCRAM-SHA-256"),
    "no mechanism": (_asks(10, b"\0"), "offers no SCRAM-SHA-256"),
    "trust": (_lets_in, "let us in without it"),
    "nothing": (_asks_nothing, "let us in without it"),
}


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("kind", ODD_LOGINS)
def test_nothing_but_scram_sha_256_is_answered(
    authority: Authority, kind: str, bound: bool
) -> None:
    asking, sentence = ODD_LOGINS[kind]
    heard: list[bytes] = []
    with lied_to(authority, asking(heard), bound=bound) as pool:
        cause = failure(pool)
    assert "no password was sent" in cause
    assert sentence in cause or (bound and "channel_binding=require" in cause)
    assert heard in ([b""], [message(b"X")]), "nothing but good-bye"


@pytest.mark.parametrize(
    ("auth_type", "sentence"),
    [
        ("plain", "asks for it in clear text"),
        ("md5", "asks for it as an MD5 hash"),
        ("trust", "let us in without it"),
    ],
)
def test_a_pooler_of_another_auth_type_is_refused_with_the_remedy(
    postgres: Server, database: str, pgbouncer_program: str, auth_type: str, sentence: str
) -> None:
    with running_pgbouncer(postgres, server_connections=1, auth_type=auth_type) as pooler:
        url = DatabaseUrl.parse(postgres.url(database, port=pooler.port))
        with closing(Database(url, SETTINGS)) as pool:
            cause = failure(pool)
    assert sentence in cause
    assert "PgBouncer needs auth_type = scram-sha-256" in cause


def test_among_others_scram_sha_256_is_chosen(authority: Authority) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        log_in(tls, mechanisms=b"SCRAM-SHA-1\0SCRAM-SHA-512\0SCRAM-SHA-256")
        tls.recv(4096)
        tls.sendall(message(b"C", b"SELECT 0\0") + READY)

    with lied_to(authority, behave) as pool:
        assert pool.execute("SELECT 1") == []


def test_who_knows_another_password_is_refused(authority: Authority) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        tls.sendall(authentication(10, b"SCRAM-SHA-256\0\0"))
        nonce = tls.recv(4096).rpartition(b"r=")[2]
        tls.sendall(authentication(11, b"r=" + nonce + b"x,s=c2FsdHNhbHRzYWx0,i=4096"))
        tls.recv(4096)
        tls.sendall(authentication(12, b"v=" + b"A" * 43 + b"=") + authentication(0) + READY)
        tls.recv(4096)

    with lied_to(authority, behave) as pool:
        assert "did not prove that it knows the password" in failure(pool)


@pytest.mark.parametrize("iterations", [1, 4095, MAX_ITERATIONS + 1, 10_000_000, 2**31, 10**30])
def test_a_server_cannot_ask_for_next_to_no_work_or_for_endless_work(
    authority: Authority, iterations: int
) -> None:
    heard: list[bytes] = []

    def behave(tls: ssl.SSLSocket) -> None:
        tls.sendall(authentication(10, b"SCRAM-SHA-256\0\0"))
        nonce = tls.recv(4096).rpartition(b"r=")[2]
        first = b"r=%bx,s=c2FsdHNhbHRzYWx0,i=%d" % (nonce, iterations)
        tls.sendall(authentication(11, first))
        heard.append(tls.recv(4096))

    with lied_to(authority, behave) as pool:
        began = time.process_time()
        cause = failure(pool)
        assert time.process_time() - began < 1.5, "processor time: 10 million take 8 s"
    assert "4096 to 600000 iterations" in cause
    assert heard in ([b""], [message(b"X")])


@pytest.mark.parametrize(
    "answers",
    [
        [authentication(11, b"r=x,s=eA==,i=4096")],
        [authentication(12, b"v=eA==")],
        [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(12, b"v=eA==")],
        [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(11, b"\xff\xfe")],
        [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(11, b"r=,s=,i=")],
        [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(11, b"e=other-error")],
        [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(10, b"SCRAM-SHA-256\0\0")],
        [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(0) + READY],
        [authentication(10, b"SCRAM-SHA-256\0\0"), READY],
        [authentication(10, b"\xff\0\0")],
        [message(b"R")],
        [message(b"R", b"\0\0")],
    ],
)
def test_a_login_in_another_order_or_of_other_bytes_is_refused(
    authority: Authority, answers: list[bytes]
) -> None:
    def behave(tls: ssl.SSLSocket) -> None:
        for answer in answers:
            tls.sendall(answer)
            tls.recv(4096)

    with lied_to(authority, behave) as pool:
        assert failure(pool)
