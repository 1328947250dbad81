"""Every setting, typed and checked at start-up: each room declares its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from shared.credentials.settings import CredentialSettings
from shared.database.settings import DatabaseSettings
from shared.environment import Environment, InvalidSettings
from shared.mail.settings import MailSettings
from shared.observe.settings import AlertSettings
from shared.revocations.settings import RevocationSettings
from shared.rules.settings import AdministratorSettings
from shared.store.settings import DATA, StoreSettings
from shared.web.settings import WebSettings

_OF_OTHERS = ("http_proxy", "no_proxy")
"""Read by other programs, in capitals or not; they are like HTTPS_PROXY and NO_PROXY."""
_ALIKE = 0.9
"""Of 1: DATABSE_URL and DATABASE_URI are misspelt, PG_DATABASE_URL is a name of its own."""


class Settings(NamedTuple):
    """What the process was told."""

    environment: str = "development"
    database: DatabaseSettings = DatabaseSettings()
    store: StoreSettings = StoreSettings()
    credentials: CredentialSettings = CredentialSettings()
    administrators: AdministratorSettings = AdministratorSettings()
    web: WebSettings = WebSettings()
    alerts: AlertSettings = AlertSettings()
    mail: MailSettings = MailSettings()
    revocations: RevocationSettings = RevocationSettings()

    @classmethod
    def from_env(cls, variables: Mapping[str, str] | None = None) -> Settings:
        """Read and check the environment's variables; an empty one counts as absent.

        Raises InvalidSettings with every problem found.
        """
        env = Environment(os.environ if variables is None else variables)
        settings = cls._read(env)
        _check_proxy(env)
        if env.problems:
            raise InvalidSettings(env.problems)
        return settings

    @classmethod
    def _read(cls, env: Environment) -> Settings:
        return cls(
            environment=env.name,
            database=DatabaseSettings.read(env),
            store=StoreSettings.read(env),
            credentials=CredentialSettings.read(env),
            administrators=AdministratorSettings.read(env),
            web=WebSettings.read(env),
            alerts=AlertSettings.read(env),
            mail=MailSettings.read(env),
            revocations=RevocationSettings.read(env),
        )

    @classmethod
    def names(cls) -> frozenset[str]:
        """Name every setting that is read, and NO_PROXY, for which urllib looks."""
        env = Environment({})
        cls._read(env)
        _check_proxy(env)
        return frozenset(env.asked | {"NO_PROXY"})

    @classmethod
    def misspelt(cls, variables: Mapping[str, str]) -> list[str]:
        """Tell of each variable that is nearly a setting's name, while that setting has no value.

        Only commands ask, on behalf of whoever wrote the name: a server's environment has many
        other variables.
        """
        from difflib import get_close_matches  # No request needs it.

        names = cls.names()
        missing = [name for name in names if not variables.get(name, "").strip()]
        return [
            f"{name} is no setting; perhaps {close} is meant."
            for name in sorted(variables.keys() - names)
            if name.lower() not in _OF_OTHERS
            for close in get_close_matches(name.upper(), missing, 1, _ALIKE)
        ]

    def complete(self) -> Settings:
        """Give them with a session secret: in development one is made, once, and kept.

        Raises InvalidSettings where it cannot be kept.
        """
        if self.credentials.session_secrets:
            return self
        from shared.credentials import development_secret  # Production has no need of it.

        secrets = (development_secret.keep(DATA),)
        return self._replace(credentials=replace(self.credentials, session_secrets=secrets))


def _check_proxy(env: Environment) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        if text := env.text(name):
            from shared import https  # Only behind a proxy, before the first request.

            try:
                https.Proxy.parse(text)
            except https.InvalidProxy as error:
                env.problems.append(f"{name} cannot be used: {error}.")
