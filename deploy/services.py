"""What is deployed: the services, and for each its settings, its secrets and who it runs as.

Everything here is data and plain functions of it; nothing asks the cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

NAME = "ai-coder-auth"
PUBLIC_FUNCTIONS = (
    "api",
    "signup",
    "login",
    "google",
    "logout",
    "session",
    "password",
    "account",
    "health",
    "jwks",
)
ADMIN_FUNCTIONS = ("migrate", "stats", "metrics", "dashboard")
BASE_IMAGE = "python313"

PASSED_ON = (
    "AUTO_MIGRATE",
    "FALLBACK",
    "SNAPSHOT_MAX_AGE",
    "SNAPSHOT_INTERVAL",
    "COOKIE_NAME",
    "EXPRESS_SESSIONS",
    "ALLOWED_ORIGINS",
    "GOOGLE_CLIENT_ID",
    "FIREBASE_PROJECT_ID",
    "BCRYPT_ROUNDS",
    "PASSWORD_MIN_LENGTH",
    "REQUEST_TIMEOUT",
    "STREAM_TIMEOUT",
    "KEEP_ALIVE_TIMEOUT",
    "MAX_LOGIN_ATTEMPTS",
    "LOCKOUT_TIME",
    "MAX_ACCOUNT_ATTEMPTS",
    "MAX_CLIENT_ATTEMPTS",
    "MAX_SIGNUPS",
    "MAX_LOGINS",
    "AUDIT_DAYS",
    "DATABASE_TIMEOUT",
    "DATABASE_CONNECT_TIMEOUT",
    "DATABASE_STATEMENT_TIMEOUT",
    "DATABASE_MAX_CONNECTIONS",
    "DATABASE_MAX_IDLE",
    "DATABASE_SLOW_QUERY",
    "ALERT_ERROR_RATE",
    "ALERT_DATABASE_AWAY",
    "ALERT_FAILED_LOGINS",
    "ALERT_SLOW_LOGIN",
    "SIGN_IN_PAGE",
)
"""Settings that every service gets as they stand in the environment of the deployment."""
ADMIN_PASSED_ON = ("ADMIN_AUDIENCE", "ADMIN_SERVICE_ACCOUNT")
"""Without these and ADMIN_TOKEN nobody is an administrator: the public services never get them."""
DECIDED = ("ENVIRONMENT", "GOOGLE_CLOUD_PROJECT", "TRUSTED_PROXIES", "HASH_CONCURRENCY")
"""Settings that are passed on, too, but depend on what is deployed where."""
NOT_DEPLOYED = ("PORT", "THREADS", "USE_DATABASE", "USERS_FILE")
"""The platform's own, what CONCURRENCY decides, and those of a users file: there is no disk."""

REQUIRED_SECRETS = ("SESSION_SECRET", "DATABASE_URL")
OPTIONAL_SECRETS = ("SESSION_PRIVATE_KEY", "ALERT_WEBHOOK_URL")
COMMON_SECRETS = (*REQUIRED_SECRETS, *OPTIONAL_SECRETS)
ADMIN_SECRET = "ADMIN_TOKEN"  # noqa: S105  # its name


@dataclass(frozen=True)
class Front:
    """What stands between a browser and a public service."""

    trusted_proxies: str | None
    """How many of them append to X-Forwarded-For; None where it has to be looked up."""
    ingress: str
    cookie_name: str | None = None


FRONTS = {
    "run.app": Front("1", "all"),
    # Whoever could go around it would write the address that is believed.
    "load-balancer": Front("2", "internal-and-cloud-load-balancing"),
    "hosting": Front(None, "all", cookie_name="__session"),
}


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service of Cloud Run: a name, an entry point, and whom it is for."""

    name: str
    entry_point: str
    public: bool
    timeout: str

    @property
    def account(self) -> str:
        """The id of its service account: one for the public services, one for the others."""
        return NAME if self.public else f"{NAME}-admin"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that it may read, and gets if they have a value."""
        return COMMON_SECRETS if self.public else (*COMMON_SECRETS, ADMIN_SECRET)


API = Service(name=NAME, entry_point="api", public=True, timeout="60s")
ADMIN = Service(name=f"{NAME}-admin", entry_point="api", public=False, timeout="3600s")
FUNCTIONS = (*PUBLIC_FUNCTIONS, "admin", *ADMIN_FUNCTIONS)
"""What one can deploy alone; `admin` is the private service of all of them."""


def chosen(function: str | None, name: str | None = None) -> list[Service]:
    """Give the service of one function, perhaps by another name, or the two usual ones."""
    if function is None:
        return [API, ADMIN]
    if function in ("api", "admin"):
        service = API if function == "api" else ADMIN
        return [replace(service, name=name or service.name)]
    kind = API if function in PUBLIC_FUNCTIONS else ADMIN
    return [replace(kind, name=name or f"{NAME}-{function}", entry_point=function)]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where it is deployed, and how large an instance is."""

    project: str
    region: str
    front: str = "run.app"
    cpu: int = 1
    memory: str = "512Mi"
    concurrency: int = 8
    min_instances: int = 0
    max_instances: int = 10

    def account(self, service: Service) -> str:
        """Give the address of a service's account."""
        return f"{service.account}@{self.project}.iam.gserviceaccount.com"

    def front_of(self, service: Service) -> Front:
        """Tell what stands before a service: before a private one nothing but Cloud Run."""
        return FRONTS[self.front] if service.public else FRONTS["run.app"]


def settings(service: Service, place: Place, env: Mapping[str, str]) -> dict[str, str]:
    """Give the variables of a service, secrets apart; an empty one counts as absent."""
    front = place.front_of(service)
    given = {
        "ENVIRONMENT": "production",
        "GOOGLE_CLOUD_PROJECT": place.project,
        "THREADS": str(place.concurrency),  # functions-framework's
        "HASH_CONCURRENCY": str(place.cpu),
    }
    if front.trusted_proxies:
        given["TRUSTED_PROXIES"] = front.trusted_proxies
    if front.cookie_name:
        given["COOKIE_NAME"] = front.cookie_name
    names = {*PASSED_ON, *DECIDED}
    if not service.public:
        names = names - {"TRUSTED_PROXIES"} | {*ADMIN_PASSED_ON}
    return given | {name: env[name].strip() for name in sorted(names) if env.get(name, "").strip()}
