"""Checks before a deployment. All findings are reported at once, each in one sentence.

Secrets are read to check their values as the service will; no sentence quotes them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy import commands, services
from deploy.gcloud import Gcloud, NotFound, Refused
from deploy.services import Place, Service
from shared.database.url import NEONS_DIRECT_HOST, POOLED_INSTEAD, DatabaseUrl, InvalidDatabaseUrl
from shared.environment import InvalidSettings, overlaid
from shared.settings import Settings

_REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"


@dataclass
class Findings:
    """The results of the checks: problems stop a deployment, warnings do not."""

    dry_run: bool = False
    can_ask: bool = True
    """Whether gcloud can be asked at all."""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    """The newest version of each secret that has a value."""
    values: dict[str, str] = field(default_factory=dict, repr=False)
    """The values of these versions, where they may be read."""

    def add_unknown(self, sentence: str) -> None:
        """Add what could not be found out: a dry run shows the commands all the same."""
        (self.warnings if self.dry_run else self.problems).append(sentence)


def find_project(gcloud: Gcloud, given: str, findings: Findings) -> str:
    """Give the project, and add what keeps gcloud from answering queries about it."""
    account = ("auth", "list", "--filter=status:ACTIVE", "--format=value(account)")
    obstacle = None
    if not gcloud.is_installed:
        obstacle = "gcloud is not installed: see https://cloud.google.com/sdk."
    elif not _ask(gcloud, *account):
        obstacle = "gcloud is not logged in: run `gcloud auth login`."
    if obstacle:
        findings.can_ask = False
        findings.add_unknown(obstacle)
    project = given or _ask(gcloud, "config", "get", "project")
    if not project and (gcloud.is_installed or findings.dry_run):
        findings.add_unknown("PROJECT is missing: set it, or run `gcloud config set project …`.")
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
    """Add all findings. Queries the cloud only if there is no problem so far."""
    if not (findings.can_ask and place.project):
        findings.warnings.append("The service accounts and the secrets were not checked.")
    elif not findings.problems:
        _check_accounts(gcloud, place, deployed, findings)
        _check_secrets(gcloud, place, deployed, env, findings)
    findings.problems += Settings.misspelt(env)
    for service in deployed:
        _check_settings(service, place, env, findings)
    _check_databases(place, deployed[0].applications, env, findings)
    _check_redis(findings)
    if findings.dry_run and not findings.problems:
        _assume_secrets(deployed, env, findings)
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
                f"The service account {address} does not exist: `make deploy-setup` creates it."
            )
        except Refused as error:
            findings.add_unknown(f"The service account {address} cannot be read: {error}")


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
                f"{name} comes from Secret Manager; its value in the environment is not used."
            )
        secret = (f"--secret={name}", f"--project={place.project}")
        try:
            found = gcloud.ask_json("secrets", "versions", "describe", "latest", *secret)
        except NotFound:
            if is_required(name, env):
                findings.problems.append(
                    f"The secret {name} has no value. After `make deploy-setup`: "
                    f"`{commands.add_version(name, place)}`."
                )
            continue
        except Refused as error:
            findings.add_unknown(f"The secret {name} cannot be read: {error}")
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
                f"You may not read the secret {name}: its value was not checked and may stop the "
                "service at start-up."
            )


def _assume_secrets(
    deployed: Sequence[Service], env: Mapping[str, str], findings: Findings
) -> None:
    """Let the commands show each required secret, also one whose version is not known."""
    names = dict.fromkeys(name for service in deployed for name in service.secrets)
    assumed = [n for n in names if is_required(n, env) and n not in findings.versions]
    findings.versions |= dict.fromkeys(assumed, "latest")
    if assumed:
        findings.warnings.append(
            f"The versions of {', '.join(assumed)} are not known: the commands show `latest`, and "
            "a deployment names the newest one's number."
        )


def is_required(name: str, env: Mapping[str, str]) -> bool:
    """Tell whether a service cannot start without a secret, or without administrators be of use."""
    if name == services.ADMIN_SECRET:
        return not env.get("ADMIN_AUDIENCE")
    if apps := services.applications(env):
        return name == "SESSION_SECRET" or name in _databases(apps)
    return name in services.REQUIRED_SECRETS


def _databases(applications: Sequence[str]) -> list[str]:
    """Name the secret that each database's address is in."""
    return [overlaid(app, "DATABASE_URL") for app in applications] or ["DATABASE_URL"]


def _check_settings(
    service: Service, place: Place, env: Mapping[str, str], findings: Findings
) -> None:
    settings = services.settings(service, place, env)
    unread = {"SESSION_SECRET": secrets.token_hex(32)} | {
        name: f"postgresql://user:password@host/{name.lower()}"
        for name in _databases(service.applications)
    }
    is_unknown = not (findings.can_ask and place.project)
    if "MAIL_URL" in findings.versions or (is_unknown and "MAIL_FROM" in settings):
        unread["MAIL_URL"] = "smtps://host"
    read = {name: findings.values[name] for name in service.secrets if name in findings.values}
    try:
        found = Settings.all_from_env(settings | unread | read | {"K_SERVICE": service.name})
    except InvalidSettings as error:
        findings.problems += error.problems
    else:
        for parsed in found:
            findings.problems += _platform_problems(parsed, place)
    front = place.front_of(service)
    if service.applications and place.front == "hosting":
        findings.problems.append(
            "FRONT=hosting is one site's, and calls the service by another name: deploy each "
            "application by itself (docs/APPLICATIONS.md)."
        )
    if "TRUSTED_PROXIES" not in settings:
        findings.problems.append(
            "TRUSTED_PROXIES is missing: determine it for Firebase Hosting (docs/DEPLOY.md)."
        )
    elif front.trusted_proxies not in (None, settings["TRUSTED_PROXIES"]):
        findings.warnings.append(
            f"TRUSTED_PROXIES is {settings['TRUSTED_PROXIES']}, but FRONT={place.front} has "
            f"{front.trusted_proxies}: if it is too high, clients can forge their address; if too "
            "low, all clients share one."
        )
    findings.problems += [
        f"{name} must not contain {commands.SEPARATOR!r}, which separates variables for gcloud."
        for name, value in settings.items()
        if commands.SEPARATOR in value
    ]


def _platform_problems(parsed: Settings, place: Place) -> list[str]:
    """Give the problems of settings that are valid, but wrong on Cloud Run."""
    problems = []
    if not parsed.web.secure:
        problems.append("ENVIRONMENT must be production or staging.")
    if parsed.store.fallback == "full":
        problems.append("FALLBACK=full would lose sign-ups: Cloud Run deletes an instance's disk.")
    hashes = parsed.credentials.hash_concurrency
    if 3 * hashes >= place.concurrency:
        problems.append(
            f"CONCURRENCY is {place.concurrency} and must be more than three times "
            f"HASH_CONCURRENCY ({hashes}), or logins occupy every thread."
        )
    return problems


def _check_redis(findings: Findings) -> None:
    pinned = _REQUIREMENTS.read_text(encoding="utf-8")
    has_redis = any(name.endswith("REDIS_URL") for name in findings.versions)
    if has_redis and "\nredis==" not in pinned:
        findings.problems.append(
            "REDIS_URL needs the package redis, and a build installs requirements.txt alone: run "
            "`cat requirements-redis.txt >> requirements.txt`."
        )


def _check_databases(
    place: Place, applications: Sequence[str], env: Mapping[str, str], findings: Findings
) -> None:
    if not place.region:
        findings.add_unknown("REGION is missing: set the one nearest to the database.")
    by_http = env.get("DATABASE_TRANSPORT", "").strip().lower() == "http"
    for name in _databases(applications):
        try:
            url = DatabaseUrl.parse(findings.values.get(name, ""))
        except InvalidDatabaseUrl:  # _check_settings reports it.
            continue
        if url.is_neons_direct_host and not by_http:
            findings.warnings.append(f"{NEONS_DIRECT_HOST} {POOLED_INSTEAD}")
