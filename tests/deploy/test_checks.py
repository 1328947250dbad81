"""What is missing or odd before a deployment, and is said at once."""

from __future__ import annotations

import re
import shlex

import pytest

from deploy import services
from tests.support.deployments import (
    ACCOUNT,
    ADMIN_ACCOUNT,
    VALUES,
    WHERE,
    commands_of,
    dry_run,
    lose_secret,
    problems_of,
    set_secret,
    variables_of,
)
from tests.support.emulator import SECRET
from tests.support.gcloud import Gcloud, parse


def test_everything_that_is_missing_is_said_at_once(gcloud: Gcloud) -> None:
    for name in (*VALUES, *services.OPTIONAL_SECRETS):
        lose_secret(gcloud, name)
    for account in (ACCOUNT, ADMIN_ACCOUNT):
        gcloud.say(f"iam service-accounts describe {account}", error="NOT_FOUND: Unknown account")
    env = {
        "PROJECT": "my-project", "ENVIRONMENT": "development", "FALLBACK": "full",
        "FRONT": "hosting", "CONCURRENCY": "3",
    }  # fmt: skip
    problems = problems_of(gcloud.run("apply", **env))
    beginnings = (
        f"The service account {ACCOUNT} does not exist: `make deploy-setup`",
        f"The service account {ADMIN_ACCOUNT} does not exist: `make deploy-setup`",
        "The secret SESSION_SECRET has no value. After `make deploy-setup`: `openssl rand",
        "The secret DATABASE_URL has no value. After `make deploy-setup`: `cat | gcloud",
        "The secret ADMIN_TOKEN has no value. After `make deploy-setup`: `openssl rand",
        "ENVIRONMENT must be production or staging.",
        "FALLBACK=full would lose sign-ups",
        "CONCURRENCY is 3 and must be more",
        "TRUSTED_PROXIES is missing",
        "REGION is missing",
    )
    assert len(problems) == len(beginnings)
    assert all(any(p.startswith(b) for p in problems) for b in beginnings), problems
    for text in re.findall(r"`[^`]*\| (gcloud [^`]*)`", "\n".join(problems)):
        parse(shlex.split(text)[1:])


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SESSION_SECRET", "a-canary", "SESSION_SECRET holds a secret shorter than 32 bytes"),
        ("SESSION_SECRET", f"{SECRET},{SECRET}", "SESSION_SECRET lists the same secret twice"),
        ("DATABASE_URL", "mysql://x", "DATABASE_URL cannot be used: it must begin with"),
        ("ADMIN_TOKEN", "change-me-" * 4, "ADMIN_TOKEN looks like a placeholder"),
    ],
)
def test_a_value_in_secret_manager_is_refused_as_the_service_would(
    gcloud: Gcloud, name: str, value: str, sentence: str
) -> None:
    set_secret(gcloud, name, value)
    done = gcloud.run("apply", **WHERE)
    (problem,) = problems_of(done)
    assert problem.startswith(sentence)
    assert value not in done.stderr


def test_a_name_that_is_nearly_a_settings_stops_the_deployment(gcloud: Gcloud) -> None:
    (problem,) = problems_of(gcloud.run("apply", **WHERE, ALOWED_ORIGINS="https://app.example.com"))
    assert problem == "ALOWED_ORIGINS is no setting; perhaps ALLOWED_ORIGINS is meant."


@pytest.mark.parametrize(
    ("name", "value"), [("BCRYPT_ROUNDS", "4"), ("FALLBACK", "maybe"), ("LOCKOUT_TIME", "15")]
)
def test_a_setting_is_refused_as_the_service_would(gcloud: Gcloud, name: str, value: str) -> None:
    (problem,) = problems_of(gcloud.run("apply", **WHERE, **{name: value}))
    assert problem.startswith(f"{name} must be")


def test_a_newest_version_that_is_disabled_is_not_passed_over(gcloud: Gcloud) -> None:
    set_secret(gcloud, "SESSION_SECRET", SECRET, version=8, state="DISABLED")
    (problem,) = problems_of(gcloud.run("apply", **WHERE))
    assert problem.startswith("Version 8 of the secret SESSION_SECRET, the newest, is disabled")


def test_a_secret_that_exists_is_passed_on_at_the_version_that_was_checked(gcloud: Gcloud) -> None:
    set_secret(gcloud, "SESSION_SECRET", SECRET, version=12)
    (_, _, flags), *_ = dry_run(gcloud)
    assert "SESSION_SECRET=SESSION_SECRET:12" in flags["--set-secrets"].split(",")


def test_a_secret_in_the_environment_is_not_used_and_a_warning_says_so(gcloud: Gcloud) -> None:
    done = gcloud.run("apply", **WHERE, DRY_RUN="1", ALERT_WEBHOOK_URL="https://example.com/hook")
    assert done.returncode == 0
    assert "Warning: ALERT_WEBHOOK_URL comes from Secret Manager" in done.stderr
    assert "example.com/hook" not in done.stdout + done.stderr


def test_who_may_not_read_a_secret_is_warned_and_can_deploy(gcloud: Gcloud) -> None:
    gcloud.say("secrets versions access", error="PERMISSION_DENIED: no", code=1)
    for name in VALUES:
        del gcloud.answers[f"secrets versions access 7 --secret={name} "]
    done = gcloud.run("apply", **WHERE, DRY_RUN="1")
    assert done.returncode == 0
    assert done.stderr.count("You may not read the secret") == 3
    assert len(commands_of(done)) == 4


@pytest.mark.parametrize("may_read", [True, False])
def test_mail_is_checked_as_the_service_would_whoever_may_read_its_secret(
    gcloud: Gcloud, *, may_read: bool
) -> None:
    env = {"EMAIL_VERIFICATION": "required"}
    (problem,) = problems_of(gcloud.run("apply", **WHERE, **env))
    assert problem.startswith("EMAIL_VERIFICATION=required needs mail: set MAIL_URL")
    set_secret(gcloud, "MAIL_URL", "smtps://ada:canary@smtp.example.com")
    if not may_read:
        asked = "secrets versions access 7 --secret=MAIL_URL "
        gcloud.say(asked, error="PERMISSION_DENIED: no", code=1)
    problems = problems_of(gcloud.run("apply", **WHERE, **env))
    assert [problem.split()[0] for problem in problems] == ["MAIL_FROM", "PUBLIC_URL"]
    env |= {"MAIL_FROM": "AI <a@example.com>", "PUBLIC_URL": "https://app.example.com"}
    (_, _, flags), *_ = dry_run(gcloud, **env)
    assert "MAIL_URL=MAIL_URL:7" in flags["--set-secrets"].split(",")
    assert variables_of(flags)["MAIL_FROM"] == "AI <a@example.com>"


def test_redis_needs_its_package_in_the_file_that_a_build_installs(gcloud: Gcloud) -> None:
    set_secret(gcloud, "REDIS_URL", "rediss://:canary@redis.example.com")
    (problem,) = problems_of(gcloud.run("apply", **WHERE))
    assert problem.startswith("REDIS_URL needs the package redis, and a build installs")
    set_secret(gcloud, "REDIS_URL", "redis://:canary@redis.example.com")
    problems = problems_of(gcloud.run("apply", **WHERE))
    assert [problem.partition(":")[0] for problem in problems] == [
        "REDIS_URL must begin with rediss",
        "REDIS_URL needs the package redis, and a build installs requirements.txt alone",
    ]


def test_what_gcloud_cannot_see_is_told_in_its_words(gcloud: Gcloud) -> None:
    asked = "secrets versions describe latest --secret=SESSION_SECRET "
    gcloud.say(asked, error="PERMISSION_DENIED: the API is disabled")
    (problem,) = problems_of(gcloud.run("apply", **WHERE))
    assert problem.startswith("The secret SESSION_SECRET cannot be read: ERROR: (gcloud) PERMISSIO")


def test_administrators_by_service_account_need_no_token(gcloud: Gcloud) -> None:
    lose_secret(gcloud, "ADMIN_TOKEN")
    (problem,) = problems_of(gcloud.run("apply", **WHERE))
    assert problem.startswith("The secret ADMIN_TOKEN has no value")
    env = {"ADMIN_AUDIENCE": "https://x", "ADMIN_SERVICE_ACCOUNT": ACCOUNT}
    _, _, (_, _, admin), _ = dry_run(gcloud, **env)
    assert "ADMIN_TOKEN" not in admin["--set-secrets"]


def test_without_gcloud_or_login_or_project_the_settings_are_checked_all_the_same(
    gcloud: Gcloud,
) -> None:
    gcloud.say("auth list", "")
    gcloud.say("config get project", "")
    problems = problems_of(gcloud.run("apply", BCRYPT_ROUNDS="4"))
    assert [p.split()[0] for p in problems] == ["gcloud", "PROJECT", "BCRYPT_ROUNDS", "REGION"]
    mail = {"EMAIL_VERIFICATION": "required", "MAIL_FROM": "a@example.com"}
    problems = problems_of(gcloud.run("apply", **mail))
    assert [p.split()[0] for p in problems] == ["gcloud", "PROJECT", "PUBLIC_URL", "REGION"]
    (gcloud.folder / "bin" / "gcloud").unlink()
    problems = problems_of(gcloud.run("apply", BCRYPT_ROUNDS="4"))
    assert problems[0].startswith("gcloud is not installed: see")
    assert [p.split()[0] for p in problems] == ["gcloud", "BCRYPT_ROUNDS", "REGION"]


def test_the_project_is_gclouds_own_if_none_is_named(gcloud: Gcloud) -> None:
    done = gcloud.run("apply", REGION="us-east5", DRY_RUN="1")
    assert {flags["--project"] for _, _, flags in commands_of(done)} == {"configured-project"}


def test_a_missing_region_is_a_problem(gcloud: Gcloud) -> None:
    (problem,) = problems_of(gcloud.run("apply", PROJECT="my-project"))
    assert problem == "REGION is missing: set the one nearest to the database."
    assert "Warning" not in gcloud.run("apply", **WHERE, DRY_RUN="1").stderr


def test_neons_direct_host_is_a_warning_and_other_hosts_are_not(gcloud: Gcloud) -> None:
    set_secret(gcloud, "DATABASE_URL", VALUES["DATABASE_URL"].replace("-pooler", ""))
    assert "names Neon's direct host" in gcloud.run("apply", **WHERE, DRY_RUN="1").stderr
    set_secret(gcloud, "DATABASE_URL", "postgresql://u:p@db.example.com/db")
    assert "Warning" not in gcloud.run("apply", **WHERE, DRY_RUN="1").stderr
