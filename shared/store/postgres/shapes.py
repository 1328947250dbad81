"""What the migrations make: tables with columns and keys, indexes, functions and triggers, by name.

A test holds this equal to a migrated database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A column as a statement of ours expects it."""

    type: str
    since: int = 0
    """The migration that adds it, where it is not the table's."""
    is_nullable: bool = False
    default: str = ""
    """Where some statement leaves it out."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table, the migration that makes it, and what is unique in it, the primary key first."""

    since: int
    columns: Mapping[str, Column]
    keys: tuple[tuple[str, ...], ...]
    follows_users: bool = False
    """Whether a row goes with its user."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index by what stands behind USING in its definition, and the migration that makes it."""

    since: int
    table: str
    definition: str
    is_unique: bool = False


_UUID, _TEXT, _INTEGER, _BIGINT = "uuid", "text", "integer", "bigint"
TIME = "timestamp with time zone"
_NULLABLE_UUID = Column(_UUID, is_nullable=True)
_NULLABLE_TEXT = Column(_TEXT, is_nullable=True)
_MADE_AT = Column(TIME, default="CURRENT_TIMESTAMP")


def _varchar(length: int, *, is_nullable: bool = True) -> Column:
    return Column(f"character varying({length})", is_nullable=is_nullable)


RECORD = "schema_migrations"
USERS = "users"

TABLES: dict[str, Table] = {
    RECORD: Table(
        0,
        {
            "version": Column(_INTEGER),
            "name": Column(_TEXT),
            "checksum": Column(_TEXT),
            "applied_at": _MADE_AT,
        },
        (("version",),),
    ),
    USERS: Table(
        1,
        {
            "id": Column(_UUID),
            "email": _varchar(255, is_nullable=False),
            "password": _varchar(255),
            "name": _varchar(255),
            "provider": _varchar(50),
            "created_at": Column(TIME, is_nullable=True, default="CURRENT_TIMESTAMP"),
            "updated_at": Column(TIME, is_nullable=True, default="CURRENT_TIMESTAMP"),
            "email_key": Column(_TEXT, since=2, is_nullable=True),
            "epoch": Column(_INTEGER, since=2, default="0"),
            "email_verified_at": Column(TIME, since=11, is_nullable=True),
            "unverified_since": Column(TIME, since=11, is_nullable=True),
            "disabled_at": Column(TIME, since=11, is_nullable=True),
            "locale": Column(_TEXT, since=11, is_nullable=True),
            "claims": Column(_TEXT, since=12, is_nullable=True),
            "totp_secret": Column(_TEXT, since=12, is_nullable=True),
        },
        (("id",), ("email",)),
    ),
    "import_batches": Table(
        3,
        {
            "number": Column(_BIGINT),
            "id": Column(_TEXT),
            "plan_sha256": Column(_TEXT),
            "source_sha256": Column(_TEXT),
            "users_sha256": Column(_TEXT),
            "counts": Column("jsonb"),
            "run_by": Column(_TEXT),
            "applied_at": _MADE_AT,
            "rolled_back_at": Column(TIME, is_nullable=True),
            "rolled_back_by": _NULLABLE_TEXT,
        },
        (("number",), ("id",)),
    ),
    "import_records": Table(
        3,
        {
            "user_id": Column(_UUID),
            "batch": Column(_BIGINT),
            "digest": Column("bytea"),
            "previous": Column("jsonb", is_nullable=True),
        },
        (("user_id", "batch"),),
    ),
    "identities": Table(
        4,
        {
            "issuer": Column(_TEXT),
            "subject": Column(_TEXT),
            "user_id": Column(_UUID),
            "created_at": _MADE_AT,
        },
        (("issuer", "subject"),),
        follows_users=True,
    ),
    "revoked_sessions": Table(
        4,
        {
            "sid": Column(_TEXT),
            "ends_at": Column(TIME),
            "user_id": Column(_UUID, since=5, is_nullable=True),
        },
        (("sid",),),
    ),
    "auth_attempts": Table(
        4,
        {
            "key": Column(_TEXT),
            "remaining": Column(_INTEGER),
            "expires_at": Column(TIME),
            "known_until": Column(TIME, default="'-infinity'"),
        },
        (("key",),),
    ),
    "auth_events": Table(
        4,
        {
            "id": Column(_UUID, default="gen_random_uuid()"),
            "at": Column(TIME),
            "kind": Column(_TEXT),
            "user_id": _NULLABLE_UUID,
            "actor": _NULLABLE_TEXT,
            "client": _NULLABLE_TEXT,
            "provider": Column(_TEXT, since=6, is_nullable=True),
        },
        (("id",),),
    ),
    "applied_ops": Table(
        5,
        {
            "operation": Column(_UUID),
            "outcome": Column(_TEXT),
            "user_id": _NULLABLE_UUID,
            "applied_at": _MADE_AT,
        },
        (("operation",),),
    ),
    "event_hours": Table(
        6,
        {
            "hour": Column(TIME),
            "version": Column(_INTEGER),
            "counts": Column("jsonb"),
        },
        (("hour",),),
    ),
    "changed_hours": Table(
        6,
        {"hour": Column(TIME), "transaction": Column("xid8", default="pg_current_xact_id()")},
        (("hour", "transaction"),),
    ),
    "pending_email_keys": Table(
        7, {"user_id": Column(_UUID), "former_key": _NULLABLE_TEXT}, (("user_id",),)
    ),
    "mail_outbox": Table(
        11,
        {
            "id": Column(_UUID),
            "kind": Column(_TEXT),
            "recipient": _NULLABLE_TEXT,
            "user_id": _NULLABLE_UUID,
            "epoch": Column(_INTEGER, is_nullable=True),
            "email_digest": _NULLABLE_TEXT,
            "locale": _NULLABLE_TEXT,
            "asked_from": _NULLABLE_TEXT,
            "created_at": _MADE_AT,
            "due_at": _MADE_AT,
            "tries": Column(_INTEGER, default="0"),
        },
        (("id",),),
    ),
}

INDEXES: dict[str, Index] = {
    "idx_users_email": Index(1, USERS, "btree (email)"),
    "idx_users_provider": Index(1, USERS, "btree (provider)"),
    "idx_users_created_at": Index(1, USERS, "btree (created_at)"),
    "idx_users_email_key": Index(2, USERS, "btree (email_key)", is_unique=True),
    "idx_identities_user_id": Index(4, "identities", "btree (user_id)"),
    "idx_revoked_sessions_ends_at": Index(4, "revoked_sessions", "btree (ends_at)"),
    "idx_auth_attempts_done": Index(
        4, "auth_attempts", "btree (GREATEST(expires_at, known_until))"
    ),
    "idx_auth_events_at": Index(4, "auth_events", "btree (at)"),
    "idx_auth_events_user_id": Index(4, "auth_events", "btree (user_id, at)"),
    "idx_revoked_sessions_user_id": Index(5, "revoked_sessions", "btree (user_id)"),
    "idx_mail_outbox_due_at": Index(11, "mail_outbox", "btree (due_at)"),
    "idx_mail_outbox_user_id": Index(11, "mail_outbox", "btree (user_id)"),
}

OLD_FUNCTION = "update_updated_at_column"
FUNCTIONS: dict[str, tuple[int, ...]] = {
    OLD_FUNCTION: (1, 3, 9),
    "email_key": (2, 7, 10),
    "set_users_email_key": (2, 3, 7, 9),
    "mark_changed_hour": (6, 9),
    "ai_coder_note_updated_at": (9,),
    "ai_coder_set_updated_at": (9,),
}
"""By name, and the migrations that need to own it: to make, replace, alter or grant it."""

OLD_TRIGGER = "update_users_updated_at"
TRIGGERS: dict[str, tuple[int, str]] = {
    OLD_TRIGGER: (1, USERS),
    "set_users_email_key": (2, USERS),
    "mark_hour_of_late_event": (6, "auth_events"),
    "mark_hour_of_deleted_event": (6, "auth_events"),
    "ai_coder_note_updated_at": (9, USERS),
    "zz_ai_coder_updated_at": (9, USERS),
}
"""By name, the migration that makes it, and its table. 0009 takes the old server's away again."""
