"""Who is an administrator."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from shared.credentials.settings import SECRET_MIN_BYTES, check_secrets
from shared.environment import Environment

_BEARER = r"[A-Za-z0-9\-._~+/]+=*"  # RFC 6750, section 2.1
_SERVICE_ACCOUNT = r"[^@\s]+@([a-z0-9-]+\.)+gserviceaccount\.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdministratorSettings:
    """A token, service accounts of Google's, or both."""

    token: str | None = field(default=None, repr=False)
    audience: str | None = None
    service_accounts: frozenset[str] = frozenset()

    @property
    def exist(self) -> bool:
        """Whether anybody at all can be an administrator."""
        return self.token is not None or self.audience is not None

    @classmethod
    def read(cls, env: Environment) -> AdministratorSettings:
        """Read them, and leave problems with the environment."""
        return cls(
            token=_token(env),
            audience=env.text("ADMIN_AUDIENCE"),
            service_accounts=_service_accounts(env),
        )


def _token(env: Environment) -> str | None:
    token = env.text("ADMIN_TOKEN")
    if token is None:
        return None
    if not re.fullmatch(_BEARER, token):
        env.problems.append(
            "ADMIN_TOKEN must consist of what base64 does, to fit into a header: "
            "make one with `openssl rand -base64 48`."
        )
    elif env.secure or len(token) < SECRET_MIN_BYTES:
        check_secrets(env, "ADMIN_TOKEN", (token,))
    return token


def _service_accounts(env: Environment) -> frozenset[str]:
    accounts = env.words("ADMIN_SERVICE_ACCOUNT")
    if bool(accounts) != bool(env.text("ADMIN_AUDIENCE")):
        env.problems.append(
            "ADMIN_AUDIENCE and ADMIN_SERVICE_ACCOUNT must be set together, or neither."
        )
    if not all(re.fullmatch(_SERVICE_ACCOUNT, account) for account in accounts):
        env.problems.append(
            "ADMIN_SERVICE_ACCOUNT must list service accounts' addresses, such as "
            "name@project.iam.gserviceaccount.com."
        )
    return frozenset(accounts)
