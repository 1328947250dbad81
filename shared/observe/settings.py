"""From where on an alert fires, and who is told."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from shared.environment import Environment

_HTTPS = r"https://[^/?#@\s]+(?:[/?][!-~]*)?"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """The threshold of each alert of `shared.observe.alerts`; 0 switches it off."""

    error_rate: float = 0.05
    """Of requests that were answered with 500 or more."""
    database_away: float = 60.0
    """Seconds."""
    failed_logins: int = 50
    """From one network."""
    slow_login: float = 3.0
    """Seconds, for one login of 20."""
    webhook: str | None = field(default=None, repr=False)

    @classmethod
    def read(cls, env: Environment) -> AlertSettings:
        """Read them, and leave problems with the environment."""
        default = cls()
        webhook = env.text("ALERT_WEBHOOK_URL")
        if webhook is not None and not re.fullmatch(_HTTPS, webhook):
            env.problems.append("ALERT_WEBHOOK_URL must be an https URL.")
        return cls(
            error_rate=env.number("ALERT_ERROR_RATE", default.error_rate, 0, 1),
            database_away=env.number("ALERT_DATABASE_AWAY", default.database_away, 0, 86_400),
            failed_logins=env.number("ALERT_FAILED_LOGINS", default.failed_logins, 0, 1_000_000),
            slow_login=env.number("ALERT_SLOW_LOGIN", default.slow_login, 0, 300),
            webhook=webhook,
        )
