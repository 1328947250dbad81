"""What tests ask of a store and of the accounts in it, as one client."""

from __future__ import annotations

import json
import uuid
from typing import Any

from shared.application import open_store
from shared.credentials.passwords import PasswordHasher
from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import Signing
from shared.formats.timestamps import now_iso
from shared.model.clients import Client
from shared.model.sessions import Session
from shared.model.users import IdToken, User
from shared.rules.accounts import Accounts
from shared.rules.bulkhead import Bulkhead
from shared.rules.gate import Gate
from shared.rules.sessions import Sessions
from shared.settings import Settings
from shared.store.contract import Attempt, Credentials, Store
from shared.store.fallback import FallbackStore
from shared.store.json_file.store import JsonFileStore
from shared.store.postgres.store import PostgresStore
from shared.store.snapshot import Snapshot
from tests.support.emulator import SECRET
from tests.support.postgres import TRANSPORT

NOW = 1_800_000_000.5
CLIENT = Client("203.0.113.7")
TOKENS = SessionTokens(Signing([SECRET]))


_AGE = """
WITH attempts AS (
    UPDATE auth_attempts SET expires_at = expires_at - s, known_until = known_until - s
    FROM cast(:age AS interval) s
), sessions AS (
    UPDATE revoked_sessions SET ends_at = ends_at - s FROM cast(:age AS interval) s
), mails AS (
    UPDATE mail_outbox SET created_at = created_at - s, due_at = due_at - s
    FROM cast(:age AS interval) s
)
UPDATE auth_events SET at = at - s FROM cast(:age AS interval) s
"""


def opened_store(**variables: str) -> Store:
    """Open the store that the variables name."""
    return open_store(Settings.from_env({"SESSION_SECRET": SECRET} | TRANSPORT | variables))


def postgres_store(**variables: str) -> PostgresStore:
    """Open the store of DATABASE_URL without a fallback."""
    settings = Settings.from_env({"SESSION_SECRET": SECRET} | TRANSPORT | variables)
    return PostgresStore(settings.store, settings.database, settings.credentials.session_secrets)


def snapshot_of(settings: Settings) -> Snapshot:
    """Give the snapshot that a process with these settings uses."""
    secrets = settings.credentials.session_secrets
    return Snapshot.of(settings.store, settings.database, secrets)


def pass_time(store: Store, seconds: float) -> None:
    """Make what is stored so much older: nobody can set the clock that a store goes by."""
    if isinstance(store, FallbackStore):
        pass_time(store._postgres, seconds)
        pass_time(store._file, seconds)
    elif isinstance(store, PostgresStore):
        store.database.execute(_AGE, age=f"{seconds} seconds")
    elif isinstance(store, JsonFileStore):
        for row in store.attempts._rows.values():
            row.expires_at -= seconds
            row.known_until -= seconds
        for networks in store.attempts._networks.values():
            networks.update({name: until - seconds for name, until in networks.items()})
        outbox = store.mail._outbox
        for mail in list(outbox._rows()):
            older = {name: mail[name] - seconds for name in ("created_at", "due_at")}
            outbox._write(mail | older)


def disable(store: Store, user_id: str) -> None:
    """Disable a user as an operator does: in psql, or in the file."""
    if isinstance(store, FallbackStore):
        store = store._postgres
    if isinstance(store, PostgresStore):
        statement = "UPDATE users SET disabled_at = now() WHERE id = cast(:id AS uuid)"
        store.database.execute(statement, id=user_id)
        return
    assert isinstance(store, JsonFileStore)
    records = json.loads(store._path.read_bytes())
    for record in records:
        if record["id"] == user_id:
            record["disabledAt"] = now_iso()
    store._path.write_text(json.dumps(records))


def credentials(store: Store, key: str) -> Credentials | None:
    """Look up an address as a login does that succeeds, so that no attempt is missing after it."""
    attempt = store.begin_login(key, CLIENT)
    assert attempt.locked_for is None
    if attempt.credentials is not None:
        store.end_login(attempt)
    return attempt.credentials


def session_of(user: User, *, now: float = NOW, method: str = "password") -> Session:
    """Give a session that has just begun."""
    return TOKENS.read(TOKENS.issue(user, now, method=method).text, now)


def user_of(members: dict[str, Any]) -> User:
    """Give the user of an answer."""
    named = {name: members[name] for name in ("id", "email", "name", "provider")}
    return User(**named, email_verified=members["emailVerified"])


def id_token(*, seconds: float = 3600) -> IdToken:
    """Give an ID token that nobody has used."""
    return IdToken(str(uuid.uuid4()), seconds)


def stored(store: Store, user: User) -> tuple[Attempt, Credentials]:
    """Find a user as a change of the password does."""
    attempt = store.begin_reauthentication(session_of(user), CLIENT)
    assert attempt.credentials is not None
    return attempt, attempt.credentials


def accounts_of(
    store: Store, hasher: PasswordHasher | None = None, gate: Gate | None = None
) -> Accounts:
    """Give the rules of accounts on a store, with the cheapest hashes."""
    return Accounts(
        store,
        hasher or PasswordHasher(4),
        gate or make_gate(),
        password_min_length=8,
        lockout_seconds=900,
    )


def sessions_of(store: Store, tokens: SessionTokens = TOKENS) -> Sessions:
    """Give the rules of sessions on a store."""
    return Sessions(lambda: store, tokens)


def sign_up(
    store: Store,
    hasher: PasswordHasher,
    email: str,
    password: str,
    *,
    gate: Gate | None = None,
    client: Client = CLIENT,
) -> User:
    accounts = accounts_of(store, hasher, gate)
    user, _ = accounts.sign_up(email=email, password=password, name=None, client=client)
    return user


def log_in(
    store: Store,
    hasher: PasswordHasher,
    email: str,
    password: str,
    *,
    gate: Gate | None = None,
    client: Client = CLIENT,
) -> User:
    accounts = accounts_of(store, hasher, gate)
    user, _ = accounts.log_in(email=email, password=password, client=client)
    return user


def make_gate(places: int = 2, room: int = 6) -> Gate:
    """Make a gate that nobody has passed, where nobody waits in vain because a test is slow."""
    return Gate(Bulkhead(places, room, patience=60))


def mails_written(store: Store) -> int:
    """Count what is in the outbox, for somebody or nobody."""
    if isinstance(store, FallbackStore):
        return mails_written(store._postgres)
    if isinstance(store, PostgresStore):
        return int(store.database.execute("SELECT count(*) FROM mail_outbox")[0][0])
    assert isinstance(store, JsonFileStore)
    return len(list(store.mail._outbox._rows()))
