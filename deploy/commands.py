"""gcloud's command lines. They contain the names of secrets, never the values."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.services import ADMIN_SECRET, BASE_IMAGE, Place, Service

SEPARATOR = "|"
"""Of variables, because their values contain commas (`gcloud topic escaping`)."""
SOURCE_DATE_EPOCH = "315532801"
"""Makes Python write hash-based bytecode, which does not depend on file times (PEP 552).

Google's builder compiles the functions and then sets every file's time to 1980, which invalidates
time-based bytecode: without this, each cold start would compile again.
"""
APIS = (
    "run.googleapis.com",
    "cloudbuild.googleapis.com",
    "artifactregistry.googleapis.com",
    "secretmanager.googleapis.com",
)


def deploy(
    service: Service,
    place: Place,
    settings: Mapping[str, str],
    versions: Mapping[str, str],
) -> list[str]:
    """Deploy a service, with each secret pinned to a version.

    A revision keeps its versions: a rollback restores the secrets that it ran with, and two
    instances never run with different ones.
    """
    front = place.front_of(service)
    variables = SEPARATOR.join(f"{name}={value}" for name, value in settings.items())
    secrets = ",".join(f"{name}={name}:{version}" for name, version in versions.items())
    return [
        "gcloud", "run", "deploy", service.name, *_where(place),
        "--source=.",
        f"--base-image={BASE_IMAGE}",
        f"--function={service.entry_point}",
        f"--ingress={front.ingress}",
        "--cpu-boost",
        "--allow-unauthenticated" if service.public else "--no-allow-unauthenticated",
        f"--service-account={place.account(service)}",
        f"--concurrency={place.concurrency}",
        f"--cpu={place.cpu}",
        f"--memory={place.memory}",
        f"--timeout={service.timeout}",
        f"--min-instances={place.min_instances if service.public else 0}",
        f"--max-instances={place.max_instances}",
        f"--set-env-vars=^{SEPARATOR}^{variables}",
        f"--set-secrets={secrets}",
        f"--set-build-env-vars=SOURCE_DATE_EPOCH={SOURCE_DATE_EPOCH}",
    ]  # fmt: skip


def serve_latest(name: str, place: Place) -> list[str]:
    """Send traffic to the newest revision, because a rollback pins it to an older one."""
    return ["gcloud", "run", "services", "update-traffic", name, *_where(place), "--to-latest"]


def serve(name: str, place: Place, revision: str) -> list[str]:
    """Send all traffic to one revision."""
    traffic = f"--to-revisions={revision}=100"
    return ["gcloud", "run", "services", "update-traffic", name, *_where(place), traffic]


def enable_apis(place: Place) -> list[str]:
    """Enable the APIs that a deployment needs."""
    return ["gcloud", "services", "enable", *APIS, f"--project={place.project}"]


def create_account(service: Service, place: Place) -> list[str]:
    """Create the account that a service runs as, without any role."""
    return [
        "gcloud", "iam", "service-accounts", "create", service.account,
        f"--project={place.project}",
    ]  # fmt: skip


def create_secret(name: str, place: Place) -> list[str]:
    """Create a secret without a value."""
    return [
        "gcloud", "secrets", "create", name, f"--project={place.project}",
        "--replication-policy=automatic",
    ]  # fmt: skip


def allow_secret(name: str, service: Service, place: Place) -> list[str]:
    """Let a service's account read one secret, its only role."""
    return [
        "gcloud", "secrets", "add-iam-policy-binding", name, f"--project={place.project}",
        f"--member=serviceAccount:{place.account(service)}",
        "--role=roles/secretmanager.secretAccessor", "--condition=None",
    ]  # fmt: skip


def add_version(name: str, place: Place) -> str:
    """Give the command with which a person sets a secret, bypassing the shell's history."""
    make = "openssl rand -base64 48" if name in ("SESSION_SECRET", ADMIN_SECRET) else "cat"
    return f"{make} | gcloud secrets versions add {name} --project={place.project} --data-file=-"


def _where(place: Place) -> list[str]:
    return [f"--project={place.project}", f"--region={place.region}"]
