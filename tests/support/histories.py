"""What can happen to two instances and their database, and what must hold then."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from shared.model.sessions import FRESH_SECONDS
from shared.store.json_file.store import JsonFileStore
from shared.transfer.reconciling import quarantine_of
from tests.support.outage import ADMIN, Site, token_of
from tests.support.redis_servers import RedisServer
from tests.support.relay import FORWARD, HANG_UP, Relay
from tests.support.stores import TOKENS

SNAPSHOT_MAX_AGE = 3600
EMAILS = st.sampled_from([f"{name}@example.com" for name in ("ada", "bob", "eve")])
PASSWORDS = st.sampled_from(["correct horse", "battery staple", "sincere pineapple"])
INSTANCES = st.sampled_from([0, 1])
ANY = st.integers(0, 1000)
"""Chooses one of those that there are."""


class Killed(BaseException):
    """The process ends here."""


@dataclass
class User:
    """A user whose sign-up was acknowledged."""

    email: str
    password: str
    old_passwords: list[str] = field(default_factory=list)
    is_deleted: bool = False


@dataclass
class Login:
    """A session that was begun."""

    token: str
    user_id: str
    sid: str
    expires_at: float
    ends_at: float
    is_degraded: bool
    epoch: int
    ended_on: set[int] = field(default_factory=set)
    """The instances on which its end was acknowledged and has to be known."""


class RedisLine:
    """The line to a Redis, which can be cut, and what has to be on the list there."""

    def __init__(self, server: RedisServer, relay: Relay) -> None:
        self._server, self._relay = server, relay
        self.port = relay.port
        self.listed: set[str | tuple[str, int]] = set()
        """Ids of sessions, and users with their epochs."""

    @property
    def is_away(self) -> bool:
        return self._relay.mode is not FORWARD

    def leave(self) -> None:
        self._relay.mode = HANG_UP
        self._relay.cut()

    def come_back(self) -> None:
        self._relay.mode = FORWARD

    def flush(self) -> None:
        self._server.run("FLUSHALL")
        self.listed.clear()

    def add(self, ended: str | tuple[str, int]) -> None:
        """Remember what was ended while nothing keeps it from being told."""
        if not self.is_away:
            self.listed.add(ended)


class World:
    """Two instances with a file each, on one database, and perhaps with a list in Redis."""

    def __init__(
        self, mode: str, connection: Any, sites: list[Site], redis: RedisLine | None = None
    ) -> None:
        self.mode, self._connection, self.sites = mode, connection, sites
        self.redis = redis
        self.offset = 0.0
        self.away = [False, False]

    def begin(self) -> None:
        """Begin a history with nothing."""
        for number, site in enumerate(self.sites):
            self.come_back(number)
            for path in site.file.parent.iterdir():
                path.unlink()
            self.crash(number)
        self._connection.run(
            "TRUNCATE users, identities, revoked_sessions, applied_ops, auth_attempts,"
            " auth_events, import_batches, import_records"
        )
        self.offset = 0.0
        if self.redis is not None:
            self.redis.come_back()
            self.redis.flush()

    def leave(self, number: int) -> None:
        self.sites[number].leave()
        self.away[number] = True

    def come_back(self, number: int) -> None:
        if self.away[number]:
            self.sites[number].come_back()
            self.away[number] = False

    def crash(self, number: int) -> None:
        """End the process, and start another one."""
        self.sites[number].restart()

    def is_listed(self, login: Login) -> bool:
        """Tell whether everybody has to know at once that a session has ended."""
        redis = self.redis
        return (
            redis is not None
            and not redis.is_away
            and not redis.listed.isdisjoint({login.sid, (login.user_id, login.epoch)})
        )

    def announce(self, login: Login, *, everywhere: bool) -> None:
        """Expect it to be told that a session has ended, or all of its user's of its epoch."""
        if self.redis is not None:
            self.redis.add((login.user_id, login.epoch) if everywhere else login.sid)

    def stored(self) -> dict[str, dict[str, Any]]:
        """Read the users of Postgres, by id."""
        rows = self._connection.run("SELECT id::text, email, password, epoch FROM users")
        return {row[0]: {"email": row[1], "password": row[2], "epoch": row[3]} for row in rows}

    def quarantined(self, number: int) -> list[str]:
        path = quarantine_of(self.sites[number].file)
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["user"]["id"] for line in lines]

    def pending(self, number: int) -> dict[str, str]:
        """Read who is pending: address by id."""
        return {record["id"]: record["email"] for record in self.sites[number].pending()}

    def migrate(self, number: int, action: str, **options: object) -> list[dict[str, Any]]:
        body = json.dumps({"action": action} | options)
        headers = [("Authorization", f"Bearer {ADMIN}"), ("Content-Type", "application/json")]
        answer = self.sites[number].app.send("POST", "/api/migrate", headers, body.encode())
        assert answer.status_code in (200, 400, 409, 503), answer.text
        return [json.loads(line) for line in answer.text.splitlines()]


class Histories(RuleBasedStateMachine):
    """What can happen, and what must hold then."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.world.begin()
        self.users: dict[str, User] = {}
        self.logins: list[Login] = []
        self.unanswered: set[tuple[str, str]] = set()
        """Address and password of sign-ups whose answer nobody has seen."""

    # What users do

    @rule(number=INSTANCES, email=EMAILS, password=PASSWORDS, is_answered=st.booleans())
    def sign_up(self, number: int, email: str, password: str, is_answered: bool) -> None:
        taken = self._owner(email) or email in self.world.pending(number).values()
        answer = self.world.sites[number].sign_up(email, password)
        if self.world.mode == "readonly" and self.world.away[number]:
            assert answer.status_code == 503
            return
        assert answer.status_code in (201, 409)
        if answer.status_code == 409:
            assert taken or email in [user.email for user in self.users.values()]
            return
        assert not taken or self.world.away[number]
        if not is_answered:
            self.unanswered.add((email, password))
            return
        user_id = (answer.json or {})["id"]
        assert user_id not in self.users
        self.users[user_id] = User(email, password)
        self._begin(token_of(answer), user_id)

    @rule(number=INSTANCES, email=EMAILS, password=PASSWORDS)
    def log_in(self, number: int, email: str, password: str) -> None:
        owner = self._owner(email)
        pending = [u for u, e in self.world.pending(number).items() if e == email]
        answer = self.world.sites[number].log_in(email, password)
        if answer.status_code == 200:
            self._check_login(answer.json or {}, email, password, owner, number)
            self._begin(token_of(answer), (answer.json or {})["id"])
            assert self.logins[-1].is_degraded == self.world.away[number]
            return
        assert answer.status_code == (503 if self.world.away[number] else 401)
        home = owner or (pending[0] if pending else None)
        if not self.world.away[number] and home in self.users:
            assert self.users[home].password != password, "a right password was refused"

    def _check_login(
        self, found: dict[str, Any], email: str, password: str, owner: str | None, number: int
    ) -> None:
        assert found["email"] == email
        user = self.users.get(found["id"])
        if user is None:
            assert (email, password) in self.unanswered
            return
        assert user.email == email
        if self.world.away[number]:
            assert password in (user.password, *user.old_passwords)
        else:
            assert (password, user.is_deleted) == (user.password, False)
            assert owner in (None, found["id"]), "Postgres wins"

    @precondition(lambda self: self.logins)
    @rule(number=INSTANCES, which=ANY)
    def look(self, number: int, which: int) -> None:
        self._look(number, self._login(which))

    @precondition(lambda self: self.logins)
    @rule(number=INSTANCES, which=ANY, everywhere=st.booleans())
    def log_out(self, number: int, which: int, everywhere: bool) -> None:
        login = self._login(which)
        site = self.world.sites[number]
        members = {"everywhere": True} if everywhere else {}
        answer = site.call("POST", "/api/logout", login.token, **members)
        assert answer.status_code in ((200, 401, 503) if everywhere else (200, 503))
        if answer.status_code == 503:
            assert self.world.away[number]
        if answer.status_code == 200:
            self.world.announce(login, everywhere=everywhere)
        if answer.status_code != 200 or self._has_ended(login):
            return
        # In an outage the file keeps it, until a reconciliation brings it to everybody.
        known = {number} if self.world.away[number] else {0, 1}
        ended = [login]
        if everywhere:
            ended = [one for one in self.logins if one.user_id == login.user_id]
        for one in ended:
            one.ended_on |= known
        self._look_everywhere(login)

    @precondition(lambda self: self.logins)
    @rule(number=INSTANCES, which=ANY, password=PASSWORDS)
    def change_password(self, number: int, which: int, password: str) -> None:
        login = self._login(which)
        user = self.users.get(login.user_id)
        if user is None:
            return
        answer = self.world.sites[number].call(
            "POST",
            "/api/password",
            login.token,
            currentPassword=user.password,
            newPassword=password,
        )
        possible = (401, 503, 400 if password == user.password else 200)
        assert answer.status_code in possible
        if answer.status_code == 200:
            assert not login.is_degraded
            assert not self._has_ended(login)
            assert number not in login.ended_on
            self.world.announce(login, everywhere=True)
            user.old_passwords.append(user.password)
            user.password = password
            for one in self.logins:
                if one.user_id == login.user_id:
                    one.ended_on |= {0, 1}
            self._begin(token_of(answer), login.user_id)
            self._look_everywhere(login)

    @precondition(lambda self: self.logins)
    @rule(number=INSTANCES, which=ANY)
    def look_at_what_is_stored(self, number: int, which: int) -> None:
        login = self._login(which)
        answer = self.world.sites[number].call("GET", "/api/account", login.token)
        assert answer.status_code in (200, 401, 403, 503)
        if answer.status_code == 200:
            assert (answer.json or {})["id"] == login.user_id
            assert not login.is_degraded
            assert number not in login.ended_on, "what was revoked stays revoked"
            assert not self.world.away[number]

    @precondition(lambda self: self.logins)
    @rule(number=INSTANCES, which=ANY)
    def delete_account(self, number: int, which: int) -> None:
        login = self._login(which)
        user = self.users.get(login.user_id)
        if user is None:
            return
        answer = self.world.sites[number].call(
            "DELETE", "/api/account", login.token, password=user.password
        )
        assert answer.status_code in (204, 401, 503)
        if answer.status_code == 204:
            assert not login.is_degraded
            assert number not in login.ended_on
            user.is_deleted = True
            self.world.announce(login, everywhere=True)
            assert login.user_id not in self.world.stored()
            self._look_everywhere(login)

    # What operators do

    @rule(number=INSTANCES)
    def reconcile(self, number: int) -> None:
        with self._keeping_credentials():
            lines = self.world.migrate(number, "reconcile")
        if not self.world.away[number]:
            assert lines[-1]["event"] == "result"
            assert not self.world.pending(number)
            self._spread(number)

    @rule(number=INSTANCES)
    def reconcile_and_be_killed(self, number: int) -> None:
        def kill(*_: object) -> None:
            raise Killed

        with self._keeping_credentials(), patch.object(JsonFileStore, "_write", kill):
            try:
                self.world.migrate(number, "reconcile")
            except Killed:
                self.world.crash(number)

    @rule(number=INSTANCES)
    def import_users(self, number: int) -> None:
        with self._keeping_credentials():
            self.world.migrate(number, "apply", skip_invalid=True)

    @rule(number=INSTANCES)
    def roll_back(self, number: int) -> None:
        """Nobody goes with it: whom an import has brought here has signed up in an outage."""
        last = self.world.migrate(number, "status")[-1]
        for batch in last.get("batches", [])[:1]:
            with self._keeping_credentials():
                self.world.migrate(number, "rollback", batch=batch["id"])

    @rule(number=INSTANCES)
    def take_snapshot(self, number: int) -> None:
        if not self.world.away[number]:
            self.world.sites[number].app.store.clean_up()

    # What befalls them

    @rule(number=INSTANCES)
    def leave(self, number: int) -> None:
        self.world.leave(number)

    @rule(number=INSTANCES, email=EMAILS, password=PASSWORDS)
    def leave_and_sign_up(self, number: int, email: str, password: str) -> None:
        """So that more than a few are pending."""
        self.world.leave(number)
        self.sign_up(number, email, password, is_answered=True)

    @rule(number=INSTANCES)
    def come_back(self, number: int) -> None:
        self.world.come_back(number)

    @rule(number=INSTANCES)
    def crash(self, number: int) -> None:
        self.world.crash(number)

    @precondition(lambda self: self.world.redis)
    @rule(happens=st.sampled_from([RedisLine.leave, RedisLine.come_back, RedisLine.flush]))
    def change_redis(self, happens: Callable[[RedisLine], None]) -> None:
        assert self.world.redis is not None
        happens(self.world.redis)

    @rule(seconds=st.sampled_from([FRESH_SECONDS + 1, SNAPSHOT_MAX_AGE + 1]))
    def wait(self, seconds: int) -> None:
        self.world.offset += seconds

    # What must hold at the end

    def teardown(self) -> None:
        for number in (0, 1):
            self.world.come_back(number)
        for number in (0, 1):
            self.reconcile(number)
        stored = self.world.stored()
        emails = [row["email"] for row in stored.values()]
        assert len(emails) == len(set(emails))
        quarantined = [*self.world.quarantined(0), *self.world.quarantined(1)]
        for user_id, user in self.users.items():
            places = (user_id in stored) + quarantined.count(user_id)
            assert places == (not user.is_deleted), "exactly once in Postgres or in the quarantine"
        for number in (0, 1):
            self._check_credentials(number, stored)
            self.world.offset += FRESH_SECONDS + 1
            for login in self.logins:
                self._look(number, login)

    def _check_credentials(self, number: int, stored: dict[str, dict[str, Any]]) -> None:
        for user_id in stored:
            if user := self.users.get(user_id):
                answer = self.world.sites[number].log_in(user.email, user.password)
                assert (answer.json or {}).get("id") == user_id
                for old in {*user.old_passwords} - {user.password}:
                    assert self.world.sites[number].log_in(user.email, old).status_code == 401

    # The model

    def _begin(self, token: str, user_id: str) -> None:
        session = TOKENS.read(token, time.time())
        assert session.user.id == user_id
        self.logins.append(
            Login(
                token,
                user_id,
                session.sid,
                session.expires_at,
                session.ends_at,
                session.user.is_degraded,
                session.user.epoch,
            )
        )

    def _look(self, number: int, login: Login) -> None:
        """Ask who is signed in, as the browser with this session does."""
        now = time.time()
        answer = self.world.sites[number].call("GET", "/api/user", login.token)
        found = answer.json or {}
        if answer.status_code == 200:
            assert found["id"] == login.user_id, "another user's row"
            if now < login.expires_at:
                has_ended = number in login.ended_on or self._has_ended(login)
                if has_ended and not self.world.away[number]:
                    assert not self.world.is_listed(login), "it is known at once"
                return
            assert number not in login.ended_on, "what was revoked stays revoked"
            assert not self._has_ended(login)
            assert not login.is_degraded
            assert login.user_id in self.world.stored() or login.user_id in self.world.pending(
                number
            )
            renewed = TOKENS.read(token_of(answer), time.time())
            assert renewed.sid == login.sid
            login.token, login.expires_at = token_of(answer), renewed.expires_at
            return
        if self.world.redis is not None and answer.status_code == 401:
            assert now >= login.expires_at - 1 or self._was_ended(login), "nobody is kept out"
        else:
            assert now >= login.expires_at - 1, "a fresh session goes on"
        if now >= login.ends_at - 1:
            assert answer.status_code == 401
        elif self.world.away[number]:
            assert answer.status_code == 503, "an outage is no logout"
        else:
            assert answer.status_code == 401
            assert login.ended_on or self._is_unknown(number, login.user_id)

    def _look_everywhere(self, login: Login) -> None:
        """Ask with a session that has just ended, where there is a list."""
        if self.world.redis is not None:
            for number in (0, 1):
                self._look(number, login)

    def _has_ended(self, login: Login) -> bool:
        user = self.users.get(login.user_id)
        return len(login.ended_on) == 2 or bool(user and user.is_deleted)

    def _was_ended(self, login: Login) -> bool:
        """Tell whether anybody was told that it has ended."""
        user = self.users.get(login.user_id)
        return bool(login.ended_on or (user and user.is_deleted))

    def _is_unknown(self, number: int, user_id: str) -> bool:
        return user_id not in self.world.stored() and user_id not in self.world.pending(number)

    def _spread(self, number: int) -> None:
        """What only one instance knew has come to Postgres with its users."""
        for login in self.logins:
            if number in login.ended_on:
                login.ended_on |= {0, 1}

    def _owner(self, email: str) -> str | None:
        owners = [u for u, row in self.world.stored().items() if row["email"] == email]
        return owners[0] if owners else None

    def _login(self, which: int) -> Login:
        """Choose a session, the latest most often: small numbers come more often than others."""
        return self.logins[-1 - which % len(self.logins)]

    @contextmanager
    def _keeping_credentials(self) -> Iterator[None]:
        before = self.world.stored()
        yield
        after = self.world.stored()
        for user_id, row in before.items():
            assert after[user_id]["password"] == row["password"]
            assert after[user_id]["epoch"] >= row["epoch"]
