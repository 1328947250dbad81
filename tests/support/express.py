"""Sessions of the old server, as real express-session and connect-pg-simple wrote them."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from urllib.parse import quote

from tests.support.emulator import ROOT, SECRET
from tests.support.postgres import USER, Server

RECORDED = json.loads((ROOT / "tests" / "data" / "express-sessions.json").read_text())
SECRETS = f"{SECRET},{RECORDED['secret']}"


def cookie(session: dict[str, str]) -> str:
    """Give a recorded cookie as a browser sends it back."""
    return session["cookie"].partition(";")[0]


def sign(sid: str, secret: str = SECRET) -> str:
    """Give the cookie that express-session would set."""
    digest = hmac.digest(secret.encode(), sid.encode(), "sha256")
    signature = b64encode(digest).decode().rstrip("=")
    return "connect.sid=" + quote(f"s:{sid}.{signature}", safe="")


def install(server: Server, database: str) -> None:
    """Make the recorded table, users and sessions; these expire in a day."""
    with server.connect(database, USER) as connection:
        connection.run(RECORDED["table"])
        for user in RECORDED["users"]:
            connection.run("INSERT INTO users (id, email) VALUES (:id, :email)", **user)
    for session in RECORDED["sessions"]:
        add(server, database, session["sid"], session["sess"])


def add(server: Server, database: str, sid: str, sess: str, *, seconds: int = 86_400) -> None:
    """Add a session as connect-pg-simple does, which expires in so many seconds."""
    with server.connect(database, USER) as connection:
        connection.run(
            "INSERT INTO session (sess, expire, sid) SELECT :sess,"
            " to_timestamp(ceil(extract(epoch FROM now())) + :seconds), :sid",
            sess=sess, seconds=seconds, sid=sid,
        )  # fmt: skip
