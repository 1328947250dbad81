"""What tests of deployments ask of a gcloud, and tell it to answer."""

from __future__ import annotations

import shlex
from typing import Any

from tests.support.emulator import SECRET
from tests.support.gcloud import Gcloud, parse

HOST = "ep-cool-name-a1b2c3d4-pooler.us-east-2.aws.neon.tech"
PASSWORD = "npg-canary"
TOKEN = "YWRtaW4gdG9rZW4gZm9yIHRoZSB0ZXN0cyBvbmx5IQ"
VALUES = {
    "SESSION_SECRET": SECRET,
    "DATABASE_URL": f"postgresql://app:{PASSWORD}@{HOST}/neondb?sslmode=require",
    "ADMIN_TOKEN": TOKEN,
}
WHERE = {"PROJECT": "my-project", "REGION": "us-east5"}
ACCOUNT = "ai-coder-auth@my-project.iam.gserviceaccount.com"
ADMIN_ACCOUNT = "ai-coder-auth-admin@my-project.iam.gserviceaccount.com"
WRITES = (
    "run deploy", "run services update-traffic", "services enable",
    "iam service-accounts create", "secrets create", "secrets add-iam-policy-binding",
)  # fmt: skip


def set_secret(gcloud: Gcloud, name: str, value: str, *, version: int = 7, **found: str) -> None:
    resource = f"projects/123/secrets/{name}/versions/{version}"
    asked = f"secrets versions describe latest --secret={name} "
    gcloud.say(asked, {"name": resource, "state": "ENABLED"} | found)
    gcloud.say(f"secrets versions access {version} --secret={name} ", value)


def lose_secret(gcloud: Gcloud, name: str) -> None:
    asked = f"secrets versions describe latest --secret={name} "
    gcloud.say(asked, error=f"NOT_FOUND: Secret [projects/123/secrets/{name}] not found.")


def commands_of(done: Any) -> list[tuple[str, list[str], dict[str, str]]]:
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert all(words[0] == "gcloud" for words in lines), done.stdout
    return [parse(words[1:]) for words in lines]


def dry_run(gcloud: Gcloud, **env: str) -> list[tuple[str, list[str], dict[str, str]]]:
    done = gcloud.run("apply", **WHERE, DRY_RUN="1", **env)
    assert done.returncode == 0, done.stderr
    return commands_of(done)


def variables_of(flags: dict[str, str]) -> dict[str, str]:
    text = flags["--set-env-vars"]
    assert text.startswith("^|^")
    return dict(pair.split("=", 1) for pair in text.removeprefix("^|^").split("|"))


def problems_of(done: Any) -> list[str]:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    lines: list[str] = done.stderr.splitlines()
    return [line.removeprefix("- ") for line in lines if line.startswith("- ")]


def revision(name: str, day: int, ready: str = "True") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "creationTimestamp": f"2026-11-{day:02}T10:00:00Z"},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def set_revisions(gcloud: Gcloud, serving: str, *found: dict[str, Any]) -> None:
    traffic = [{"revisionName": serving, "percent": 100}, {"revisionName": "a-1", "tag": "old"}]
    gcloud.say("run services describe", {"status": {"traffic": traffic}})
    gcloud.say("run revisions list", list(found))
