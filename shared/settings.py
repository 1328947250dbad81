"""Every setting, typed and checked at start-up: all problems at once, each one sentence.

A problem names the setting and the shape of its value, never the value of a secret.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

from shared import files
from shared.credentials import session_keys
from shared.credentials.session_keys import InvalidSessionKeys, SessionKey
from shared.database.url import DatabaseUrl, InvalidDatabaseUrl
from shared.model.throttling import Limits

ENVIRONMENTS = ("development", "test", "staging", "production")
SECRET_MIN_BYTES = 32
"""HS256 needs a key at least as long as its hash (RFC 7518, section 3.2)."""

_DATA = Path(__file__).resolve().parent.parent / ".data"
_PLACEHOLDER = re.compile(
    r"change|replace|example|placeholder|default|your[-_ ]|secret|passw", re.IGNORECASE
)
_HTTPS = re.compile(r"https://[^/?#@\s]+(?:[/?][!-~]*)?")
_ORIGIN = re.compile(r"https?://[^/?#@*\s]+")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_COOKIE_NAME_MAX_LENGTH = 64
_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, section 2.1
_SERVICE_ACCOUNT = re.compile(r"[^@\s]+@([a-z0-9-]+\.)+gserviceaccount\.com")
_CLIENT_ID = re.compile(r"[A-Za-z0-9_-]+\.apps\.googleusercontent\.com")
_PROJECT_ID = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")

Fallback = Literal["full", "readonly", "off"]

T = TypeVar("T", int, float)


class InvalidSettings(Exception):
    """The process must not start; `problems` holds a sentence for each reason."""

    def __init__(self, problems: list[str]) -> None:
        """Join the problems into one message for the terminal."""
        self.problems = problems
        super().__init__("\n".join(("The settings are not usable:", *(f"- {p}" for p in problems))))


def _usable_cpus() -> int:
    """Count the CPUs that this process may use or, where nobody tells, those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From where on each alert of `shared.observe.alerts` fires; 0 switches it off."""

    error_rate: float = 0.05
    """Of requests that were answered with 500 or more."""
    database_away: float = 60.0
    """Seconds."""
    failed_logins: int = 50
    """From one network."""
    slow_login: float = 3.0
    """Seconds, for one login of 20."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the process was told. Durations are in seconds."""

    environment: str = "development"
    use_database: bool = False
    database_url: DatabaseUrl | None = None
    auto_migrate: bool = True
    database_timeout: float = 15.0
    database_connect_timeout: float = 10.0
    database_statement_timeout: float = 5.0
    database_max_connections: int = 4
    database_max_idle: float = 30.0
    database_slow_query: float = 1.0
    users_file: Path = _DATA / "users.json"
    fallback: Fallback = "off"
    snapshot_max_age: float = 3600.0
    snapshot_interval: float = 600.0
    session_secrets: tuple[str, ...] = field(default=(), repr=False)
    session_keys: tuple[SessionKey, ...] = ()
    cookie_name: str = "session"
    express_sessions: bool = True
    bcrypt_rounds: int = 12
    hash_concurrency: int = field(default_factory=_usable_cpus)
    threads: int = field(default_factory=lambda: 4 * (os.cpu_count() or 1))
    """Of the server: functions-framework reads the same variable, with the same default."""
    password_min_length: int = 8
    limits: Limits = field(default_factory=Limits)
    audit_days: int = 90
    allowed_origins: frozenset[str] = frozenset()
    trusted_proxies: int = 0
    request_timeout: float = 10.0
    stream_timeout: float = 30.0
    keep_alive_timeout: float = 75.0
    admin_token: str | None = field(default=None, repr=False)
    admin_audience: str | None = None
    admin_service_accounts: frozenset[str] = frozenset()
    google_client_ids: tuple[str, ...] = ()
    firebase_project_id: str | None = None
    google_cloud_project: str | None = None
    alert_webhook: str | None = field(default=None, repr=False)
    alerts: Thresholds = field(default_factory=Thresholds)
    sign_in_page: bool = False

    @property
    def secure(self) -> bool:
        """Whether the outside world speaks HTTPS to us and strict rules hold."""
        return self.environment in ("staging", "production")

    @property
    def snapshot_file(self) -> Path:
        """Where the copy of the users is that logins are served from in an outage."""
        return self.users_file.with_name(f"{self.users_file.name}.snapshot")

    @property
    def has_admin(self) -> bool:
        """Whether anybody at all can be an administrator."""
        return self.admin_token is not None or self.admin_audience is not None

    @property
    def has_google(self) -> bool:
        """Whether users can sign in with Google at all, directly or through Firebase."""
        return bool(self.google_client_ids) or self.firebase_project_id is not None

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read and check the environment's variables; an empty one counts as absent.

        Raises InvalidSettings with every problem found.
        """
        return _Reader(os.environ if env is None else env).settings()


class _Reader:
    """Collects problems instead of stopping at the first."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.problems: list[str] = []

    def settings(self) -> Settings:
        default = Settings(environment=self.environment())
        secure = default.secure
        has_url = self.text("DATABASE_URL") is not None
        use_database = self.boolean("USE_DATABASE", default=has_url or secure)
        rounds = self.number("BCRYPT_ROUNDS", default.bcrypt_rounds, 4, 14)
        if secure:
            self.check_secure(use_database, rounds)
        settings = replace(
            default,
            use_database=use_database,
            database_url=self.database_url(required=use_database),
            auto_migrate=self.boolean("AUTO_MIGRATE", default=default.auto_migrate),
            database_timeout=self.number("DATABASE_TIMEOUT", default.database_timeout, 0.1, 300),
            database_connect_timeout=self.number(
                "DATABASE_CONNECT_TIMEOUT", default.database_connect_timeout, 0.1, 300
            ),
            database_statement_timeout=self.number(
                "DATABASE_STATEMENT_TIMEOUT", default.database_statement_timeout, 0.1, 300
            ),
            database_max_connections=self.number(
                "DATABASE_MAX_CONNECTIONS", default.database_max_connections, 1, 100
            ),
            database_max_idle=self.number("DATABASE_MAX_IDLE", default.database_max_idle, 0, 3600),
            database_slow_query=self.number(
                "DATABASE_SLOW_QUERY", default.database_slow_query, 0, 300
            ),
            users_file=Path(self.text("USERS_FILE") or _DATA / "users.json"),
            fallback=self.fallback(secure=secure),
            snapshot_max_age=self.number("SNAPSHOT_MAX_AGE", default.snapshot_max_age, 0, 604_800),
            snapshot_interval=self.number(
                "SNAPSHOT_INTERVAL", default.snapshot_interval, 0, 86_400
            ),
            session_secrets=self.session_secrets(required=secure),
            session_keys=self.session_keys(),
            cookie_name=self.cookie_name(secure=secure),
            express_sessions=self.boolean("EXPRESS_SESSIONS", default=default.express_sessions),
            bcrypt_rounds=rounds,
            hash_concurrency=self.number("HASH_CONCURRENCY", default.hash_concurrency, 1, 64),
            threads=self.number("THREADS", default.threads, 1, 1000),
            password_min_length=self.number(
                "PASSWORD_MIN_LENGTH", default.password_min_length, 1, 64
            ),
            limits=self.limits(),
            audit_days=self.number("AUDIT_DAYS", default.audit_days, 1, 3650),
            allowed_origins=self.allowed_origins(),
            trusted_proxies=self.trusted_proxies(),
            request_timeout=self.number("REQUEST_TIMEOUT", default.request_timeout, 0.1, 300),
            stream_timeout=self.number("STREAM_TIMEOUT", default.stream_timeout, 0.1, 3600),
            keep_alive_timeout=self.number(
                "KEEP_ALIVE_TIMEOUT", default.keep_alive_timeout, 1, 3600
            ),
            admin_token=self.admin_token(secure=secure),
            admin_audience=self.text("ADMIN_AUDIENCE"),
            admin_service_accounts=self.admin_service_accounts(),
            google_client_ids=self.google_client_ids(),
            firebase_project_id=self.firebase_project_id(),
            google_cloud_project=self.text("GOOGLE_CLOUD_PROJECT"),
            alert_webhook=self.alert_webhook(),
            alerts=self.alerts(),
            sign_in_page=self.boolean("SIGN_IN_PAGE", default=default.environment == "development"),
        )
        if self.problems:
            raise InvalidSettings(self.problems)
        return settings

    def text(self, name: str) -> str | None:
        return self.env.get(name, "").strip() or None

    def environment(self) -> str:
        name = "ENVIRONMENT" if self.text("ENVIRONMENT") else "NODE_ENV"
        # Cloud Run sets K_SERVICE: a deployment that forgot to say what it is gets strict rules.
        default = "production" if self.text("K_SERVICE") else "development"
        value = (self.text(name) or default).lower()
        if value not in ENVIRONMENTS:
            self.problems.append(f"{name} must be one of {', '.join(ENVIRONMENTS)}.")
            return "production"
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        text = self.text(name)
        if text is None:
            return default
        if text.lower() in ("true", "1", "yes", "on"):
            return True
        if text.lower() not in ("false", "0", "no", "off"):
            self.problems.append(f"{name} must be true or false.")
        return False

    def number(self, name: str, default: T, at_least: float, at_most: float) -> T:
        """Read a number of the default's type."""
        text = self.text(name)
        if text is None:
            return default
        kind = type(default)
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is not None and at_least <= value <= at_most:
            return value
        noun = "a whole number" if kind is int else "a number"
        self.problems.append(f"{name} must be {noun} from {at_least:g} to {at_most:g}.")
        return default

    def fallback(self, *, secure: bool) -> Fallback:
        value = (self.text("FALLBACK") or ("off" if secure else "full")).lower()
        if value not in get_args(Fallback):
            self.problems.append(f"FALLBACK must be one of {', '.join(get_args(Fallback))}.")
            return "off"
        return cast("Fallback", value)

    def database_url(self, *, required: bool) -> DatabaseUrl | None:
        text = self.text("DATABASE_URL")
        if text is None:
            if required:
                self.problems.append(
                    "DATABASE_URL is missing: set it to the connection string from Neon, or set "
                    "USE_DATABASE=false to use the JSON file."
                )
            return None
        try:
            return DatabaseUrl.parse(text)
        except InvalidDatabaseUrl as error:
            self.problems.append(f"DATABASE_URL cannot be used: {error}.")
            return None

    def session_secrets(self, *, required: bool) -> tuple[str, ...]:
        text = self.text("SESSION_SECRET")
        if text is None:
            if required:
                self.problems.append(
                    "SESSION_SECRET is missing: make one with `openssl rand -base64 48`."
                )
                return ()
            return self.development_secret()
        keys = tuple(key.strip() for key in text.split(","))
        if required:
            self.check_secrets("SESSION_SECRET", keys)
        elif not all(keys):
            self.problems.append("SESSION_SECRET has an empty entry in its list.")
        return keys

    def check_secrets(self, name: str, keys: tuple[str, ...]) -> None:
        if any(len(key.encode()) < SECRET_MIN_BYTES for key in keys):
            self.problems.append(
                f"{name} holds a secret shorter than {SECRET_MIN_BYTES} bytes: "
                "make one with `openssl rand -base64 48`."
            )
        elif any(len(set(key)) < 10 or _PLACEHOLDER.search(key) for key in keys):
            self.problems.append(
                f"{name} looks like a placeholder: make one with `openssl rand -base64 48`."
            )
        if len(set(keys)) < len(keys):
            self.problems.append(f"{name} lists the same secret twice.")

    def development_secret(self) -> tuple[str, ...]:
        """Keep one generated secret beside the users, so that sessions outlive a restart."""
        path = _DATA / "session-secret"
        try:
            _DATA.mkdir(mode=0o700, exist_ok=True)
            # The first of several processes wins, with a whole file.
            with suppress(FileExistsError), files.creating(path) as file:
                file.write(secrets.token_urlsafe(48).encode())
            data, _ = files.read(path)
        except OSError as error:
            self.problems.append(
                f"The development secret {path} cannot be kept ({error.strerror or error}): "
                "set SESSION_SECRET."
            )
            return ()
        secret = data.decode("ascii", "ignore").strip()
        if len(secret) < SECRET_MIN_BYTES or not data.isascii():
            self.problems.append(f"The development secret {path} is damaged: delete it.")
        return (secret,)

    def session_keys(self) -> tuple[SessionKey, ...]:
        text = self.text("SESSION_PRIVATE_KEY")
        if text is None:
            return ()
        try:
            return session_keys.parse(text)
        except InvalidSessionKeys as error:
            self.problems.append(f"SESSION_PRIVATE_KEY cannot be used: {error}.")
            return ()

    def cookie_name(self, *, secure: bool) -> str:
        name = self.text("COOKIE_NAME") or ("__Host-session" if secure else "session")
        if not _TOKEN.fullmatch(name):
            self.problems.append("COOKIE_NAME must be an HTTP token, such as __Host-session.")
        if len(name) > _COOKIE_NAME_MAX_LENGTH:
            self.problems.append(
                f"COOKIE_NAME may have at most {_COOKIE_NAME_MAX_LENGTH} characters, because "
                "browsers drop a cookie that is too long as a whole."
            )
        if name.startswith(("__Host-", "__Secure-")) and not secure:
            self.problems.append(
                "COOKIE_NAME begins with a prefix that browsers accept over HTTPS only, and "
                "development is served without."
            )
        return name

    def limits(self) -> Limits:
        default = Limits()
        most = 1_000_000
        milliseconds = int(default.lockout_seconds * 1000)
        return Limits(
            login=self.number("MAX_LOGIN_ATTEMPTS", default.login, 1, most),
            account=self.number("MAX_ACCOUNT_ATTEMPTS", default.account, 1, most),
            client=self.number("MAX_CLIENT_ATTEMPTS", default.client, 1, most),
            sign_up=self.number("MAX_SIGNUPS", default.sign_up, 1, most),
            success=self.number("MAX_LOGINS", default.success, 1, most),
            # The old system counts milliseconds; whoever means seconds or minutes is told so.
            lockout_seconds=self.number("LOCKOUT_TIME", milliseconds, 1000, 86_400_000) / 1000,
        )

    def allowed_origins(self) -> frozenset[str]:
        origins = (self.text("ALLOWED_ORIGINS") or "").replace(",", " ").split()
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                self.problems.append(
                    "ALLOWED_ORIGINS must list origins such as https://app.example.com, without a "
                    "path or a trailing slash."
                )
                break
        return frozenset(origins)

    def trusted_proxies(self) -> int:
        # Whoever calls Cloud Run, its own front end appends the address.
        return self.number("TRUSTED_PROXIES", 1 if self.text("K_SERVICE") else 0, 0, 10)

    def admin_token(self, *, secure: bool) -> str | None:
        token = self.text("ADMIN_TOKEN")
        if token is None:
            return None
        if not _BEARER.fullmatch(token):
            self.problems.append(
                "ADMIN_TOKEN must consist of what base64 does, to fit into a header: "
                "make one with `openssl rand -base64 48`."
            )
        elif secure or len(token) < SECRET_MIN_BYTES:
            self.check_secrets("ADMIN_TOKEN", (token,))
        return token

    def admin_service_accounts(self) -> frozenset[str]:
        accounts = (self.text("ADMIN_SERVICE_ACCOUNT") or "").replace(",", " ").split()
        if bool(accounts) != bool(self.text("ADMIN_AUDIENCE")):
            self.problems.append(
                "ADMIN_AUDIENCE and ADMIN_SERVICE_ACCOUNT must be set together, or neither."
            )
        if not all(_SERVICE_ACCOUNT.fullmatch(account) for account in accounts):
            self.problems.append(
                "ADMIN_SERVICE_ACCOUNT must list service accounts' addresses, such as "
                "name@project.iam.gserviceaccount.com."
            )
        return frozenset(accounts)

    def google_client_ids(self) -> tuple[str, ...]:
        client_ids = (self.text("GOOGLE_CLIENT_ID") or "").replace(",", " ").split()
        # Google gives a client no other form of id; with a mistyped one nobody could sign in.
        if not all(_CLIENT_ID.fullmatch(client_id) for client_id in client_ids):
            self.problems.append(
                "GOOGLE_CLIENT_ID must list OAuth client ids, such as "
                "1234567890-abc123.apps.googleusercontent.com."
            )
        return tuple(dict.fromkeys(client_ids))

    def firebase_project_id(self) -> str | None:
        project_id = self.text("FIREBASE_PROJECT_ID")
        if project_id is not None and not _PROJECT_ID.fullmatch(project_id):
            self.problems.append(
                "FIREBASE_PROJECT_ID must be the project's id, such as my-project-1a2b3: 6 to 30 "
                "lower case letters, digits and hyphens."
            )
        return project_id

    def alert_webhook(self) -> str | None:
        url = self.text("ALERT_WEBHOOK_URL")
        if url is not None and not _HTTPS.fullmatch(url):
            self.problems.append("ALERT_WEBHOOK_URL must be an https URL.")
        return url

    def alerts(self) -> Thresholds:
        default = Thresholds()
        return Thresholds(
            error_rate=self.number("ALERT_ERROR_RATE", default.error_rate, 0, 1),
            database_away=self.number("ALERT_DATABASE_AWAY", default.database_away, 0, 86_400),
            failed_logins=self.number("ALERT_FAILED_LOGINS", default.failed_logins, 0, 1_000_000),
            slow_login=self.number("ALERT_SLOW_LOGIN", default.slow_login, 0, 300),
        )

    def check_secure(self, use_database: bool, rounds: int) -> None:
        if self.text("DEBUG"):
            self.problems.append(
                "DEBUG is set: it would expose an interactive debugger. Remove the variable."
            )
        if rounds < 10:
            self.problems.append("BCRYPT_ROUNDS must be at least 10 in production.")
        if not use_database and self.text("USERS_FILE") is None:
            self.problems.append(
                "USERS_FILE is missing: production with USE_DATABASE=false must say where its "
                "users are."
            )
