"""What is missing or wrong before a deployment: everything at once, each in one sentence.

The values of secrets are read to check them as the service will, and appear in no sentence.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deploy import commands, services
from deploy.gcloud import Gcloud, NotFound, Refused
from deploy.services import Place, Service
from shared.database.url import DatabaseUrl, InvalidDatabaseUrl
from shared.settings import InvalidSettings, Settings


@dataclass
class Findings:
    """Problems stop a deployment, warnings don't."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    """The newest version of each secret that has a value."""
    values: dict[str, str] = field(default_factory=dict, repr=False)
    """What these versions hold, as far as it may be read."""


def find_project(gcloud: Gcloud, given: str, findings: Findings) -> str:
    """Name the project, and find what keeps gcloud from answering any question about it."""
    if not gcloud.is_installed:
        findings.problems.append(
            "gcloud is missing: install the Google Cloud CLI (https://cloud.google.com/sdk)."
        )
        return given
    if not _ask(gcloud, "auth", "list", "--filter=status:ACTIVE", "--format=value(account)"):
        findings.problems.append("gcloud is not logged in: run `gcloud auth login`.")
    project = given or _ask(gcloud, "config", "get", "project")
    if not project:
        findings.problems.append(
            "PROJECT is missing: name it, or run `gcloud config set project …`."
        )
    return project


def _ask(gcloud: Gcloud, *arguments: str) -> str:
    try:
        return gcloud.ask(*arguments)
    except Refused:
        return ""


def check(
    gcloud: Gcloud,
    place: Place,
    deployed: Sequence[Service],
    env: Mapping[str, str],
    findings: Findings,
) -> None:
    """Add what is wrong; the cloud is asked only if nothing is known to keep it from answering."""
    if not findings.problems:
        _check_accounts(gcloud, place, deployed, findings)
        _check_secrets(gcloud, place, deployed, env, findings)
    for service in deployed:
        _check_settings(service, place, env, findings)
    _check_database(place, findings)
    findings.problems[:] = dict.fromkeys(findings.problems)
    findings.warnings[:] = dict.fromkeys(findings.warnings)


def _check_accounts(
    gcloud: Gcloud, place: Place, deployed: Sequence[Service], findings: Findings
) -> None:
    for address in dict.fromkeys(map(place.account, deployed)):
        try:
            gcloud.ask("iam", "service-accounts", "describe", address, f"--project={place.project}")
        except NotFound:
            findings.problems.append(
                f"The service account {address} does not exist: `make deploy-setup` makes it."
            )
        except Refused as error:
            findings.problems.append(f"The service account {address} cannot be seen: {error}")


def _check_secrets(
    gcloud: Gcloud,
    place: Place,
    deployed: Sequence[Service],
    env: Mapping[str, str],
    findings: Findings,
) -> None:
    for name in dict.fromkeys(name for service in deployed for name in service.secrets):
        if env.get(name):
            findings.warnings.append(
                f"{name} comes from Secret Manager: what the environment says is not used."
            )
        secret = (f"--secret={name}", f"--project={place.project}")
        try:
            found = gcloud.ask_json("secrets", "versions", "describe", "latest", *secret)
        except NotFound:
            if _is_required(name, env):
                findings.problems.append(
                    f"The secret {name} has no value. After `make deploy-setup`: "
                    f"`{commands.add_version(name, place)}`."
                )
            continue
        except Refused as error:
            findings.problems.append(f"The secret {name} cannot be seen: {error}")
            continue
        version = found["name"].rpartition("/")[2]
        if found["state"] != "ENABLED":
            findings.problems.append(
                f"Version {version} of the secret {name}, the newest, is {found['state'].lower()}: "
                "add a new one."
            )
            continue
        findings.versions[name] = version
        try:
            findings.values[name] = gcloud.ask("secrets", "versions", "access", version, *secret)
        except Refused:
            findings.warnings.append(
                f"You may not read the secret {name}: only the service will tell, when it starts, "
                "whether its value can be used."
            )


def _is_required(name: str, env: Mapping[str, str]) -> bool:
    if name == services.ADMIN_SECRET:
        return not env.get("ADMIN_AUDIENCE")
    return name in services.REQUIRED_SECRETS


def _check_settings(
    service: Service, place: Place, env: Mapping[str, str], findings: Findings
) -> None:
    settings = services.settings(service, place, env)
    unread = {
        "SESSION_SECRET": secrets.token_hex(32),
        "DATABASE_URL": "postgresql://user:password@host/database",
    }
    read = {name: findings.values[name] for name in service.secrets if name in findings.values}
    try:
        told = Settings.from_env(settings | unread | read | {"K_SERVICE": service.name})
    except InvalidSettings as error:
        findings.problems += error.problems
    else:
        findings.problems += _problems(told, place, settings)
    front = place.front_of(service)
    if "TRUSTED_PROXIES" not in settings:
        findings.problems.append(
            "TRUSTED_PROXIES is missing: behind Firebase Hosting it has to be found out "
            "(docs/DEPLOY.md)."
        )
    elif front.trusted_proxies not in (None, settings["TRUSTED_PROXIES"]):
        findings.warnings.append(
            f"TRUSTED_PROXIES is {settings['TRUSTED_PROXIES']}, where it is "
            f"{front.trusted_proxies} with FRONT={place.front}: too many, and a client can write "
            "its own address; too few, and all clients are one."
        )
    findings.problems += [
        f"{name} must not contain {commands.SEPARATOR!r}, which separates variables for gcloud."
        for name, value in settings.items()
        if commands.SEPARATOR in value
    ]


def _problems(told: Settings, place: Place, settings: Mapping[str, str]) -> list[str]:
    """Tell what the service would take, but must not get on Cloud Run."""
    problems = []
    if not told.secure:
        problems.append("ENVIRONMENT must be production or staging.")
    if settings.get("FALLBACK", "").lower() == "full":
        problems.append(
            "FALLBACK=full would lose sign-ups: the disk of Cloud Run ends with the instance."
        )
    if 3 * told.hash_concurrency >= place.concurrency:
        problems.append(
            f"CONCURRENCY is {place.concurrency}, and must be more than three times "
            f"HASH_CONCURRENCY ({told.hash_concurrency}), or logins take every thread."
        )
    return problems


def _check_database(place: Place, findings: Findings) -> None:
    try:
        url = DatabaseUrl.parse(findings.values.get("DATABASE_URL", ""))
    except InvalidDatabaseUrl:  # The settings' problems say so.
        url = None
    if not place.region:
        findings.problems.append("REGION is missing: name the one nearest to the database.")
    if url and url.host.endswith(".neon.tech") and url.direct_host() == url:
        findings.warnings.append(
            "DATABASE_URL names Neon's direct host. Let it name the pooled one (`-pooler`), which "
            "lets many instances share few connections; migrations go to the direct host anyway."
        )
