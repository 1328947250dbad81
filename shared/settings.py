"""Every setting, typed and checked at start-up: each room declares its own."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, repeat
from typing import NamedTuple

from shared.credentials.settings import CredentialSettings
from shared.database.settings import DatabaseSettings
from shared.environment import OVERLAY, Environment, InvalidSettings, overlaid
from shared.formats import origins
from shared.mail.settings import MailSettings
from shared.observe.settings import AlertSettings
from shared.revocations.settings import RevocationSettings
from shared.rules.settings import AdministratorSettings
from shared.store.settings import DATA, StoreSettings
from shared.web.settings import WebSettings

_OF_OTHERS = ("http_proxy", "no_proxy")
"""Read by other programs, in capitals or not; they are like HTTPS_PROXY and NO_PROXY."""
_OF_THE_PROCESS = (
    "APPLICATION",
    "APPLICATIONS",
    "CLOUD_RUN_TIMEOUT_SECONDS",
    "DEBUG",
    "ENVIRONMENT",
    "FUNCTION_USE_ASGI",
    "GOOGLE_CLOUD_PROJECT",
    "HASH_CONCURRENCY",
    "HTTPS_PROXY",
    "https_proxy",
    "KEEP_ALIVE_TIMEOUT",
    "K_SERVICE",
    "NODE_ENV",
    "NO_PROXY",
    "PORT",
    "REQUEST_TIMEOUT",
    "STREAM_TIMEOUT",
    "THREADS",
    "TRUSTED_PROXIES",
    "TRUST_FORWARDED_HOST",
    "WORKERS",
)
"""Settings that several applications of a process have in common."""
OF_ONE = ("DATABASE_READ_URL", "DATABASE_URL", "HOSTS", "PUBLIC_URL", "USERS_FILE")
"""Settings that two applications never have in common."""
_APPLICATION = r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){0,30}"
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
    application: str = ""
    """The name of one of several applications; empty where there is only one."""

    @classmethod
    def from_env(cls, variables: Mapping[str, str] | None = None) -> Settings:
        """Read and check the environment's variables; an empty one counts as absent.

        Of several applications it is the one that APPLICATION names. Raises InvalidSettings with
        every problem found.
        """
        variables = os.environ if variables is None else variables
        env = Environment(variables)
        name, names = env.text("APPLICATION"), env.words("APPLICATIONS")
        found = cls.all_from_env(variables)
        if not names and name is None:
            return found[0]
        for settings in found:
            if settings.application == name:
                return settings
        problem = f"APPLICATION must be one of {', '.join(names)}: which one is meant?"
        if not names:
            problem = "APPLICATION is set, and APPLICATIONS is not: there is only one."
        raise InvalidSettings([problem])

    @classmethod
    def all_from_env(cls, variables: Mapping[str, str] | None = None) -> list[Settings]:
        """Do the same for each application that APPLICATIONS names, or for the only one."""
        variables = os.environ if variables is None else variables
        env = Environment(variables)
        if names := env.words("APPLICATIONS"):
            return _read_all(variables, names)
        settings = cls._read(env)
        if env.problems:
            raise InvalidSettings(env.problems)
        return [settings]

    @classmethod
    def _read(cls, env: Environment) -> Settings:
        _check_proxy(env)
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
            application=env.application,
        )

    @classmethod
    def names(cls) -> frozenset[str]:
        """Name every setting that is read, and NO_PROXY, for which urllib looks."""
        env = Environment({})
        cls._read(env)
        return frozenset(env.asked | {"APPLICATION", "APPLICATIONS", "NO_PROXY"})

    @classmethod
    def misspelt(cls, variables: Mapping[str, str]) -> list[str]:
        """Tell of each variable that is nearly a setting's name, while that setting has no value.

        Only commands ask, on behalf of whoever wrote the name: a server's environment has many
        other variables.
        """
        from difflib import get_close_matches  # No request needs it.

        names = cls.names()
        missing = [name for name in names if not variables.get(name, "").strip()]
        several = Environment(variables).words("APPLICATIONS")
        return [
            *(_wrong_variables(variables, several) if several else ()),
            *(
                f"{name} is no setting; perhaps {close} is meant."
                for name in sorted(variables.keys() - names)
                if name.lower() not in _OF_OTHERS
                for close in get_close_matches(name.upper(), missing, 1, _ALIKE)
            ),
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


def _read_all(variables: Mapping[str, str], names: list[str]) -> list[Settings]:
    """Read the settings of several applications. Raises InvalidSettings."""
    if problems := [*_wrong_names(names), *_wrong_variables(variables, names)]:
        raise InvalidSettings(problems)
    found, problems_of = [], defaultdict[str, list[str]](list)
    for name in names:
        env = Environment(variables, name)
        found.append(Settings._read(env))
        for problem in env.problems:
            problems_of[_with_own_names(problem, name, variables)].append(name)
    problems = [
        sentence
        if len(of) == len(names) or _is_of(sentence, of)
        else f"{', '.join(of)}: {sentence}"
        for sentence, of in problems_of.items()
    ]
    if problems := problems or [*_what_they_share(found)]:
        raise InvalidSettings(problems)
    return _with_a_share_each(found, variables)


def _wrong_names(names: list[str]) -> Iterator[str]:
    for name in names:
        if not re.fullmatch(_APPLICATION, name):
            yield (
                f"APPLICATIONS must list names such as shop: lower case letters, digits and "
                f"hyphens, and a letter first, not {name!r}."
            )
    if len(set(names)) < len(names):
        yield "APPLICATIONS names one twice."


def _wrong_variables(variables: Mapping[str, str], names: list[str]) -> Iterator[str]:
    """Tell of each variable that has the form of an application's own and is none, or should be."""
    for name in OF_ONE:
        if variables.get(name, "").strip():
            yield f"{name} cannot be common: set {overlaid(names[0], name)}, or delete it."
    known, prefixes = Settings.names(), {overlaid(name, "") for name in names}
    for variable in sorted(variables):
        prefix, is_overlay, name = variable.partition(OVERLAY)
        if not is_overlay:
            continue
        if prefix + OVERLAY not in prefixes:
            if name in known:
                yield f"{variable} is nobody's: APPLICATIONS names {', '.join(names)}."
        elif name in _OF_THE_PROCESS:
            yield f"{variable} cannot be an application's own: set {name} for all of them."
        elif name not in known:
            yield f"{variable} is no setting: there is no {name}."


def _with_own_names(problem: str, application: str, variables: Mapping[str, str]) -> str:
    """Name a variable in a sentence as it was given: SHOP__PORT where that is what was read."""

    def given(match: re.Match[str]) -> str:
        own = overlaid(application, match[0])
        return own if variables.get(own, "").strip() else match[0]

    return re.sub(r"\b[A-Z][A-Z0-9_]+\b", given, problem)


def _is_of(sentence: str, names: list[str]) -> bool:
    """Tell whether a sentence names a variable of the application that it is about."""
    return len(names) == 1 and overlaid(names[0], "") in sentence


def _what_they_share(found: list[Settings]) -> Iterator[str]:
    """Tell what two applications must not both have, and what leads to another one."""
    taken: dict[object, str] = {}
    for settings in found:
        name, url = settings.application, settings.mail.public_url
        for thing, what in _own_things(settings):
            if (other := taken.setdefault(thing, name)) != name:
                yield f"{other} and {name} have the same {what}: each application has its own."
        if url is not None and origins.parse(url).host not in settings.web.hosts:
            yield (
                f"{name}: the host of PUBLIC_URL is not in {overlaid(name, 'HOSTS')}, so that "
                "links in mails would lead to nobody."
            )


def _own_things(settings: Settings) -> Iterator[tuple[object, str]]:
    for host in settings.web.hosts:
        yield ("host", host), f"host {host}"
    store, url = settings.store, settings.database.url
    if store.use_database and url is not None:
        yield url.place, f"database {url.database} on {url.host}"
    yield store.users_file.resolve(), f"USERS_FILE {store.users_file}"
    if settings.mail.folder is not None:
        yield ("mail", settings.mail.folder.resolve()), f"folder of mails {settings.mail.folder}"


def _with_a_share_each(found: list[Settings], variables: Mapping[str, str]) -> list[Settings]:
    """Divide the connections among those with a database who have no number of their own.

    Whoever waits for a database that is silent holds all that it may, and takes nobody else's.
    """
    setting = "DATABASE_MAX_CONNECTIONS"
    total = Environment(variables).number(setting, DatabaseSettings().max_connections, 1, 100)
    connecting = [one for one in found if one.store.use_database]
    own = [
        one for one in connecting if variables.get(overlaid(one.application, setting), "").strip()
    ]
    taken, others = sum(one.database.max_connections for one in own), len(connecting) - len(own)
    if total < taken + others:
        problem = (
            f"{setting} must be at least {taken + others}: it is for all applications together, "
            "and each needs one."
        )
        raise InvalidSettings([problem])
    share, more = divmod(total - taken, max(others, 1))
    shares = chain(repeat(share + 1, more), repeat(share))
    return [
        one._replace(database=one.database._replace(max_connections=next(shares)))
        if one in connecting and one not in own
        else one
        for one in found
    ]
