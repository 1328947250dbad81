"""The secrets, what a password has to be and may cost, and whose ID tokens are taken."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.environment import Environment

if TYPE_CHECKING:
    from shared.credentials.session_keys import SessionKey

ENCRYPTION_KEY_BYTES = 32
"""Of AES-256."""
SECRET_MIN_BYTES = 32
"""HS256 needs a key at least as long as its hash (RFC 7518, section 3.2)."""

# Patterns of settings are compiled where there is one to be checked, and not at each cold start.
_PLACEHOLDER = r"(?i)change|replace|example|placeholder|default|your[-_ ]|secret|passw"
_CLIENT_ID = r"[A-Za-z0-9_-]+\.apps\.googleusercontent\.com"
_PROJECT_ID = r"[a-z][a-z0-9-]{4,28}[a-z0-9]"


def _usable_cpus() -> int:
    """Count the CPUs that this process may use or, where nobody tells, those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSettings:
    """What `shared.credentials` is told."""

    session_secrets: tuple[str, ...] = field(default=(), repr=False)
    """In development there may be none: see `development_secret`."""
    session_keys: tuple[SessionKey, ...] = ()
    encryption_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """Of 32 bytes each; without them nothing can be kept that must be read again."""
    express_sessions: bool = True
    bcrypt_rounds: int = 12
    hash_concurrency: int = field(default_factory=_usable_cpus)
    password_peppers: tuple[str, ...] = field(default=(), repr=False)
    """Keys of other systems that hashes from there need."""
    password_min_length: int = 8
    google_client_ids: tuple[str, ...] = ()
    firebase_project_id: str | None = None

    @classmethod
    def read(cls, env: Environment) -> CredentialSettings:
        """Read them, and leave problems with the environment."""
        default = cls()
        rounds = env.number("BCRYPT_ROUNDS", default.bcrypt_rounds, 4, 14)
        if env.secure and rounds < 10:
            env.problems.append("BCRYPT_ROUNDS must be at least 10 in production.")
        return cls(
            session_secrets=_session_secrets(env),
            session_keys=_session_keys(env),
            encryption_keys=_encryption_keys(env),
            express_sessions=env.boolean("EXPRESS_SESSIONS", default=default.express_sessions),
            bcrypt_rounds=rounds,
            hash_concurrency=env.number("HASH_CONCURRENCY", default.hash_concurrency, 1, 64),
            password_peppers=_password_peppers(env),
            password_min_length=env.number(
                "PASSWORD_MIN_LENGTH", default.password_min_length, 1, 64
            ),
            google_client_ids=_google_client_ids(env),
            firebase_project_id=_firebase_project_id(env),
        )


def check_secrets(env: Environment, name: str, keys: tuple[str, ...]) -> None:
    """Leave a problem with the environment where a secret is weak."""
    if any(len(key.encode()) < SECRET_MIN_BYTES for key in keys):
        env.problems.append(
            f"{name} holds a secret shorter than {SECRET_MIN_BYTES} bytes: "
            "make one with `openssl rand -base64 48`."
        )
    elif any(len(set(key)) < 10 or re.search(_PLACEHOLDER, key) for key in keys):
        env.problems.append(
            f"{name} looks like a placeholder: make one with `openssl rand -base64 48`."
        )
    if len(set(keys)) < len(keys):
        env.problems.append(f"{name} lists the same secret twice.")


def _session_secrets(env: Environment) -> tuple[str, ...]:
    text = env.text("SESSION_SECRET")
    if text is None:
        if env.secure:
            env.problems.append(
                "SESSION_SECRET is missing: make one with `openssl rand -base64 48`."
            )
        return ()
    keys = tuple(key.strip() for key in text.split(","))
    if env.secure:
        check_secrets(env, "SESSION_SECRET", keys)
    elif not all(keys):
        env.problems.append("SESSION_SECRET has an empty entry in its list.")
    return keys


def _password_peppers(env: Environment) -> tuple[str, ...]:
    """Read them. They are as other systems made them, so nothing is asked of their strength."""
    text = env.text("PASSWORD_PEPPERS")
    peppers = tuple(pepper.strip() for pepper in text.split(",")) if text else ()
    if not all(peppers):
        env.problems.append("PASSWORD_PEPPERS has an empty entry in its list.")
    return peppers


def _session_keys(env: Environment) -> tuple[SessionKey, ...]:
    text = env.text("SESSION_PRIVATE_KEY")
    if text is None:
        return ()
    from shared.credentials import session_keys  # Only where there are key pairs.

    try:
        return session_keys.parse(text)
    except session_keys.InvalidSessionKeys as error:
        env.problems.append(f"SESSION_PRIVATE_KEY cannot be used: {error}.")
        return ()


def _encryption_keys(env: Environment) -> tuple[bytes, ...]:
    text = env.text("ENCRYPTION_KEY")
    if text is None:
        return ()
    from base64 import b64decode  # Only where there are keys.

    keys = []
    for entry in text.split(","):
        try:
            key = b64decode(entry.strip().replace("-", "+").replace("_", "/"), validate=True)
        except ValueError:
            key = b""
        keys.append(key)
    if any(len(key) != ENCRYPTION_KEY_BYTES or len(set(key)) < 10 for key in keys):
        env.problems.append(
            f"ENCRYPTION_KEY must list keys of {ENCRYPTION_KEY_BYTES} random bytes in base64: make "
            "one with `openssl rand -base64 32`."
        )
    elif len(set(keys)) < len(keys):
        env.problems.append("ENCRYPTION_KEY lists the same key twice.")
    return tuple(keys)


def _google_client_ids(env: Environment) -> tuple[str, ...]:
    client_ids = env.words("GOOGLE_CLIENT_ID")
    # Google gives a client no other form of id; with a mistyped one nobody could sign in.
    if not all(re.fullmatch(_CLIENT_ID, client_id) for client_id in client_ids):
        env.problems.append(
            "GOOGLE_CLIENT_ID must list OAuth client ids, such as "
            "1234567890-abc123.apps.googleusercontent.com."
        )
    return tuple(dict.fromkeys(client_ids))


def _firebase_project_id(env: Environment) -> str | None:
    project_id = env.text("FIREBASE_PROJECT_ID")
    if project_id is not None and not re.fullmatch(_PROJECT_ID, project_id):
        env.problems.append(
            "FIREBASE_PROJECT_ID must be the project's id, such as my-project-1a2b3: 6 to 30 "
            "lower case letters, digits and hyphens."
        )
    return project_id
