"""Where the server listens, what it says when it cannot, and what when it does."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.settings import Settings
from shared.web import listening
from tests.support.emulator import ROOT, SECRET, ended, running_emulator
from tests.support.postgres import free_port

TOKEN = "T2YgdGhlIGRhc2hib2FyZCwgYW5kIG9mIG5vdGhpbmcgZWxzZQ"


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    """A port on which somebody else listens, on 127.0.0.1 only."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_port_in_use_ends_the_server_with_a_sentence(taken: int) -> None:
    done = ended("--host", "127.0.0.1", PORT=str(taken))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"Port {taken} is in use. End what listens there, or set PORT to another.\n"
    )


def test_make_dev_ends_too_instead_of_waiting_for_a_change(taken: int) -> None:
    done = subprocess.run(
        ["make", "-s", "-o", ".venv/.runtime", "dev"], cwd=ROOT,
        env={"PATH": os.environ["PATH"], "SESSION_SECRET": SECRET, "PORT": str(taken)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, "make's own"
    assert done.stderr.startswith(f"Port {taken} is in use. End what listens there")
    assert "Serving" not in done.stdout + done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])  # noqa: S104
def test_a_port_is_in_use_where_anybody_listens_who_would_get_our_requests(
    taken: int, host: str
) -> None:
    with pytest.raises(listening.CannotListen, match=f"Port {taken} is in use"):
        listening.addresses(host, taken)


@pytest.mark.parametrize(
    ("host", "port", "sentence"),
    [
        ("localhost", 0, "PORT is 0: it must be a whole number from 1 to 65535."),
        ("localhost", 65536, "PORT is 65536: it must be"),
        ("192.0.2.1", 8080, "The host '192.0.2.1' is not this machine: set HOST to another."),
        ("host.invalid", 8080, "The host 'host.invalid' has no address: set HOST"),
        ("a..b", 8080, "The host 'a..b' has no address"),
        ("x" * 64, 8080, "has no address"),
    ],
)
def test_what_cannot_be_listened_at_is_named(host: str, port: int, sentence: str) -> None:
    with pytest.raises(listening.CannotListen) as raised:
        listening.addresses(host, port)
    assert sentence in str(raised.value)


def test_each_address_is_listened_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # So glibc answers where /etc/hosts names localhost for ::1 as well.
    found = socket.getaddrinfo("127.0.0.1", free_port(), type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found * 2)
    port = int(found[0][4][1])
    assert listening.addresses("localhost", port) == [f"127.0.0.1:{port}"]


def test_a_developer_is_told_when_it_serves_and_where_everything_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = str(tmp_path / "users.json")
    with running_emulator(ENVIRONMENT="development", USERS_FILE=users) as emulator:
        lines = emulator.output().splitlines()
        assert [line for line in lines if not line.startswith("{")] == [
            f"Serving on {emulator.url} (Ctrl-C ends it)",
            f"  users      in the file {users}",
            f"  sign-in    {emulator.url}/",
            f"  mail       {emulator.url}/mail (none leaves this machine)",
            "  dashboard  off: set ADMIN_TOKEN (openssl rand -base64 48)",
        ]
    url = "postgresql://ada:canary@db.example.com/auth"
    variables = {"DATABASE_URL": url, "ADMIN_TOKEN": TOKEN, "SIGN_IN_PAGE": "no"}
    variables |= {"MAIL_URL": "smtps://ada:canary@smtp.example.com", "MAIL_FROM": "a@example.com"}
    settings = Settings.from_env(variables | {"SESSION_SECRET": SECRET})
    for host, shown in (("0.0.0.0", "localhost"), ("::", "localhost"), ("::1", "[::1]")):  # noqa: S104
        here = f"http://{shown}:8080"
        listening.announce([settings], host, 8080)
        assert capsys.readouterr().err.splitlines() == [
            f"Serving on {here} (Ctrl-C ends it)",
            "  users      in the database auth of db.example.com",
            "  sign-in    off: set SIGN_IN_PAGE=true",
            "  mail       leaves by smtp.example.com",
            f"  dashboard  {here}/api/dashboard (any name; the password is ADMIN_TOKEN)",
        ]
