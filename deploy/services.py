"""The deployed services with their settings, secrets and accounts.

Only data and pure functions; nothing here queries the cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from shared.environment import Environment, overlaid
from shared.settings import OF_ONE

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
    "email",
    "email_verification",
    "email_verify",
    "login_mail",
    "login_mail_verify",
    "mail_delivery",
    "password_forgot",
    "password_reset",
)
ADMIN_FUNCTIONS = ("migrate", "stats", "metrics", "dashboard")
BASE_IMAGE = "python313"

PASSED_ON = (
    "APPLICATIONS",
    "HOSTS",
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
    "DATABASE_TRANSPORT",
    "DATABASE_HTTP_URL",
    "ALERT_ERROR_RATE",
    "ALERT_DATABASE_AWAY",
    "ALERT_FAILED_LOGINS",
    "ALERT_SLOW_LOGIN",
    "SIGN_IN_PAGE",
    "MAIL_FROM",
    "MAIL_REPLY_TO",
    "PUBLIC_URL",
    "APPLICATION_NAME",
    "EMAIL_VERIFICATION",
    "SIGN_IN_BY_MAIL",
    "MAIL_DELIVERY",
)
"""Settings that every service gets unchanged from the environment of the deployment."""
ADMIN_PASSED_ON = ("ADMIN_AUDIENCE", "ADMIN_SERVICE_ACCOUNT")
"""With ADMIN_TOKEN these enable administrators: the public services never get them."""
DECIDED = (
    "ENVIRONMENT",
    "GOOGLE_CLOUD_PROJECT",
    "TRUSTED_PROXIES",
    "TRUST_FORWARDED_HOST",
    "HASH_CONCURRENCY",
)
"""Settings that are also passed on, but whose default depends on the deployment."""
NOT_DEPLOYED = (
    "APPLICATION",
    "HTTPS_PROXY",
    "NO_PROXY",
    "PORT",
    "THREADS",
    "USE_DATABASE",
    "USERS_FILE",
)
"""For commands; the proxy of the machine that deploys; set by the platform or by CONCURRENCY; or
only for a users file: there is no disk."""

REQUIRED_SECRETS = ("SESSION_SECRET", "DATABASE_URL")
OPTIONAL_SECRETS = (
    "SESSION_PRIVATE_KEY",
    "ENCRYPTION_KEY",
    "ALERT_WEBHOOK_URL",
    "MAIL_URL",
    "MAIL_HOOK_SECRET",
    "REDIS_URL",
    "DATABASE_READ_URL",
    "PASSWORD_PEPPERS",
)
COMMON_SECRETS = (*REQUIRED_SECRETS, *OPTIONAL_SECRETS)
ADMIN_SECRET = "ADMIN_TOKEN"  # noqa: S105  # its name


@dataclass(frozen=True)
class Front:
    """The proxies between a browser and a public service."""

    trusted_proxies: str | None
    """The number that append to X-Forwarded-For; None if undocumented."""
    ingress: str
    cookie_name: str | None = None


FRONTS = {
    "run.app": Front("1", "all"),
    # Clients that could bypass the load balancer could forge their address.
    "load-balancer": Front("2", "internal-and-cloud-load-balancing"),
    "hosting": Front(None, "all", cookie_name="__session"),
}


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service on Cloud Run."""

    name: str
    entry_point: str
    public: bool
    timeout: str
    applications: tuple[str, ...] = ()
    """The names of several; empty where there is only one."""

    @property
    def account(self) -> str:
        """The id of the service account: one for all public services, one for the others."""
        return NAME if self.public else f"{NAME}-admin"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that it may read; it gets those that have a value."""
        common = COMMON_SECRETS if self.public else (*COMMON_SECRETS, ADMIN_SECRET)
        if not self.applications:
            return common
        own = (overlaid(app, name) for app in self.applications for name in common)
        return (*(name for name in common if name not in OF_ONE), *own)


API = Service(name=NAME, entry_point="api", public=True, timeout="60s")
ADMIN = Service(name=f"{NAME}-admin", entry_point="api", public=False, timeout="3600s")
FUNCTIONS = (*PUBLIC_FUNCTIONS, "admin", *ADMIN_FUNCTIONS)
"""Functions that can be deployed alone; `admin` is the private service of all of them."""


def applications(env: Mapping[str, str]) -> tuple[str, ...]:
    """Name several applications, or none where there is only one."""
    return tuple(Environment(env).words("APPLICATIONS"))


def chosen(
    function: str | None, name: str | None = None, applications: tuple[str, ...] = ()
) -> list[Service]:
    """Give the service of one function, or the public and the private service."""
    return [replace(service, applications=applications) for service in _chosen(function, name)]


def _chosen(function: str | None, name: str | None) -> list[Service]:
    if function is None:
        return [API, ADMIN]
    if function in ("api", "admin"):
        service = API if function == "api" else ADMIN
        return [replace(service, name=name or service.name)]
    kind = API if function in PUBLIC_FUNCTIONS else ADMIN
    return [replace(kind, name=name or f"{NAME}-{function}", entry_point=function)]


@dataclass(frozen=True, kw_only=True)
class Place:
    """The target of a deployment, and the size of an instance."""

    project: str
    region: str
    front: str = "run.app"
    cpu: int = 1
    memory: str = "512Mi"
    concurrency: int = 8
    min_instances: int = 0
    max_instances: int = 10

    def account(self, service: Service) -> str:
        """Give the email address of a service's account."""
        return f"{service.account}@{self.project}.iam.gserviceaccount.com"

    def front_of(self, service: Service) -> Front:
        """Give a service's front; a private one is reached only through Cloud Run."""
        return FRONTS[self.front] if service.public else FRONTS["run.app"]


def settings(service: Service, place: Place, env: Mapping[str, str]) -> dict[str, str]:
    """Give the variables of a service without its secrets; empty ones count as absent."""
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
        if service.applications:
            # It has one host, and whoever reaches it at all may say which application is meant.
            given["TRUST_FORWARDED_HOST"] = "true"
    names |= {overlaid(app, name) for app in service.applications for name in names}
    return given | {name: env[name].strip() for name in sorted(names) if env.get(name, "").strip()}
