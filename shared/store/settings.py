"""Where the users are, what serves while the database is away, and how much is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from shared.environment import Environment
from shared.model.throttling import Limits

DATA = Path(__file__).resolve().parents[2] / ".data"
"""Of development: its users and its secret."""

Fallback = Literal["full", "readonly", "off"]


class StoreSettings(NamedTuple):
    """Durations are in seconds."""

    use_database: bool = False
    users_file: Path = DATA / "users.json"
    fallback: Fallback = "off"
    snapshot_max_age: float = 3600.0
    snapshot_interval: float = 600.0
    limits: Limits = Limits()
    audit_days: int = 90

    @property
    def snapshot_file(self) -> Path:
        """Where the copy of the users is that logins are served from in an outage."""
        return self.users_file.with_name(f"{self.users_file.name}.snapshot")

    @property
    def snapshot_lag(self) -> float:
        """How far a replica may be behind that a snapshot is taken of.

        The next one is due when it is an interval old, and would be due at once.
        """
        return min(self.snapshot_max_age, self.snapshot_interval / 2 or self.snapshot_max_age)

    @classmethod
    def read(cls, env: Environment) -> StoreSettings:
        """Read them, and leave problems with the environment."""
        default = cls()
        has_url = env.text("DATABASE_URL") is not None
        use_database = env.boolean("USE_DATABASE", default=has_url or env.secure)
        if use_database and not has_url:
            env.problems.append(
                "DATABASE_URL is missing: set it to the connection string from Neon, or set "
                "USE_DATABASE=false to use the JSON file."
            )
        if env.secure and not use_database and env.text("USERS_FILE") is None:
            env.problems.append(
                "USERS_FILE is missing: production with USE_DATABASE=false must say where its "
                "users are."
            )
        return cls(
            use_database=use_database,
            users_file=users_file(env),
            fallback=_fallback(env),
            snapshot_max_age=env.number("SNAPSHOT_MAX_AGE", default.snapshot_max_age, 0, 604_800),
            snapshot_interval=env.number("SNAPSHOT_INTERVAL", default.snapshot_interval, 0, 86_400),
            limits=_limits(env),
            audit_days=env.number("AUDIT_DAYS", default.audit_days, 1, 3650),
        )


def users_file(env: Environment) -> Path:
    """Name the users file; in development each application has one."""
    return Path(env.text("USERS_FILE") or DATA / env.application / "users.json")


def _fallback(env: Environment) -> Fallback:
    value = (env.text("FALLBACK") or ("off" if env.secure else "full")).lower()
    if value not in get_args(Fallback):
        env.problems.append(f"FALLBACK must be one of {', '.join(get_args(Fallback))}.")
        return "off"
    return cast("Fallback", value)


def _limits(env: Environment) -> Limits:
    default = Limits()
    most = 1_000_000
    milliseconds = int(default.lockout_seconds * 1000)
    return Limits(
        login=env.number("MAX_LOGIN_ATTEMPTS", default.login, 1, most),
        account=env.number("MAX_ACCOUNT_ATTEMPTS", default.account, 1, most),
        client=env.number("MAX_CLIENT_ATTEMPTS", default.client, 1, most),
        sign_up=env.number("MAX_SIGNUPS", default.sign_up, 1, most),
        success=env.number("MAX_LOGINS", default.success, 1, most),
        # The old system counts milliseconds; the bounds catch whoever means seconds or minutes.
        lockout_seconds=env.number("LOCKOUT_TIME", milliseconds, 1000, 86_400_000) / 1000,
    )
