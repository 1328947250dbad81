"""What is deployed, what is missing before, and how it is taken back; gcloud only records."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from deploy import services
from shared.settings import Settings
from tests.support.emulator import ROOT, SECRET
from tests.support.gcloud import Gcloud, WrongUse, parse

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


def _secret(gcloud: Gcloud, name: str, value: str, *, version: int = 7, **found: str) -> None:
    resource = f"projects/123/secrets/{name}/versions/{version}"
    asked = f"secrets versions describe latest --secret={name} "
    gcloud.say(asked, {"name": resource, "state": "ENABLED"} | found)
    gcloud.say(f"secrets versions access {version} --secret={name} ", value)


def _missing(gcloud: Gcloud, name: str) -> None:
    asked = f"secrets versions describe latest --secret={name} "
    gcloud.say(asked, error=f"NOT_FOUND: Secret [projects/123/secrets/{name}] not found.")


@pytest.fixture
def gcloud(tmp_path: Path) -> Gcloud:
    """One that is logged in to a project with everything that a deployment needs."""
    made = Gcloud(tmp_path)
    made.say("auth list", "ada@example.com\n")
    made.say("config get project", "configured-project\n")
    for name, value in VALUES.items():
        _secret(made, name, value)
    for name in services.OPTIONAL_SECRETS:
        _missing(made, name)
    return made


def _commands(done: Any) -> list[tuple[str, list[str], dict[str, str]]]:
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert all(words[0] == "gcloud" for words in lines), done.stdout
    return [parse(words[1:]) for words in lines]


def _dry(gcloud: Gcloud, **env: str) -> list[tuple[str, list[str], dict[str, str]]]:
    done = gcloud.run("apply", **WHERE, DRY_RUN="1", **env)
    assert done.returncode == 0, done.stderr
    return _commands(done)


def _variables(flags: dict[str, str]) -> dict[str, str]:
    text = flags["--set-env-vars"]
    assert text.startswith("^|^")
    return dict(pair.split("=", 1) for pair in text.removeprefix("^|^").split("|"))


def _problems(done: Any) -> list[str]:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    lines: list[str] = done.stderr.splitlines()
    return [line.removeprefix("- ") for line in lines if line.startswith("- ")]


@pytest.mark.parametrize(
    "line",
    [
        "run deplot x",
        "run deploy x --entry-point=api",
        "run deploy x y",
        "run deploy --source=.",
        "run deploy x --cpu",
        "run deploy x --cpu-boost=yes",
        "run deploy x --ingress=everything",
        "run deploy x --cpu=1 --cpu=2",
        "run deploy x --no-source",
    ],
)
def test_the_gcloud_of_these_tests_refuses_what_the_real_one_would(
    gcloud: Gcloud, line: str
) -> None:
    with pytest.raises(WrongUse):
        parse(line.split())
    assert gcloud.run_program(["/bin/sh", "-c", f"gcloud {line}"], {}).returncode == 1


def test_a_dry_run_prints_commands_that_gcloud_takes_and_runs_none_that_writes(
    gcloud: Gcloud,
) -> None:
    commands = _dry(gcloud)
    assert [(command, words[0]) for command, words, _ in commands] == [
        ("run deploy", "ai-coder-auth"),
        ("run services update-traffic", "ai-coder-auth"),
        ("run deploy", "ai-coder-auth-admin"),
        ("run services update-traffic", "ai-coder-auth-admin"),
    ]
    assert [words for write in WRITES for words in gcloud.called(write)] == []


def test_no_command_and_no_sentence_has_a_secret_in_it(gcloud: Gcloud) -> None:
    for settings in ({"DRY_RUN": "1"}, {"DRY_RUN": "1", "BCRYPT_ROUNDS": "99"}):
        done = gcloud.run("apply", **WHERE, **settings)
        shown = done.stdout + done.stderr + str(gcloud.calls)
        assert not [value for value in (SECRET, PASSWORD, TOKEN) if value in shown]


def test_the_public_service_is_everybodys_and_knows_nothing_of_administrators(
    gcloud: Gcloud,
) -> None:
    env = {"ADMIN_AUDIENCE": "https://x", "ADMIN_SERVICE_ACCOUNT": ACCOUNT}
    (_, _, public), _, (_, _, admin), _ = _dry(gcloud, **env)
    assert "--allow-unauthenticated" in public
    assert public["--function"] == "api"
    assert public["--service-account"] == ACCOUNT
    assert public["--set-secrets"] == "SESSION_SECRET=SESSION_SECRET:7,DATABASE_URL=DATABASE_URL:7"
    assert "ADMIN" not in str(public)
    assert "--no-allow-unauthenticated" in admin
    assert admin["--function"] == "api"
    assert admin["--service-account"] == ADMIN_ACCOUNT
    assert admin["--set-secrets"].endswith(",ADMIN_TOKEN=ADMIN_TOKEN:7")
    assert _variables(admin) | env == _variables(admin)


def test_what_an_instance_is(gcloud: Gcloud) -> None:
    (_, _, public), *_ = _dry(gcloud)
    expected = {
        "--project": "my-project",
        "--region": "us-east5",
        "--source": ".",
        "--base-image": "python313",
        "--concurrency": "8",
        "--cpu": "1",
        "--memory": "512Mi",
        "--timeout": "60s",
        "--min-instances": "0",
        "--max-instances": "10",
        "--ingress": "all",
        "--cpu-boost": "",
        "--set-build-env-vars": "SOURCE_DATE_EPOCH=315532801",
    }
    assert public | expected == public
    assert _variables(public) == {
        "ENVIRONMENT": "production",
        "GOOGLE_CLOUD_PROJECT": "my-project",
        "THREADS": "8",
        "HASH_CONCURRENCY": "1",
        "TRUSTED_PROXIES": "1",
    }


def test_threads_are_as_many_as_requests_and_three_times_the_hashes_fewer(gcloud: Gcloud) -> None:
    (_, _, flags), *_ = _dry(gcloud, CPU="2", CONCURRENCY="16", MEMORY="1Gi", MAX_INSTANCES="3")
    assert (flags["--cpu"], flags["--concurrency"], flags["--max-instances"]) == ("2", "16", "3")
    assert _variables(flags)["THREADS"] == flags["--concurrency"]
    assert _variables(flags)["HASH_CONCURRENCY"] == "2"
    problems = _problems(gcloud.run("apply", **WHERE, CPU="4"))
    (problem,) = problems
    assert problem.startswith("CONCURRENCY is 8, and must be more than three times HASH_CONC")


@pytest.mark.parametrize(
    ("front", "proxies", "ingress"),
    [("run.app", "1", "all"), ("load-balancer", "2", "internal-and-cloud-load-balancing")],
)
def test_who_is_trusted_about_addresses_is_the_only_way_in(
    gcloud: Gcloud, front: str, proxies: str, ingress: str
) -> None:
    (_, _, public), _, (_, _, admin), _ = _dry(gcloud, FRONT=front)
    assert public["--ingress"] == ingress
    assert _variables(public)["TRUSTED_PROXIES"] == proxies
    assert (admin["--ingress"], _variables(admin)["TRUSTED_PROXIES"]) == ("all", "1")


def test_behind_firebase_hosting_the_cookie_has_the_one_name_that_gets_through(
    gcloud: Gcloud,
) -> None:
    done = gcloud.run("apply", **WHERE, FRONT="hosting")
    assert [p.partition(" is")[0] for p in _problems(done)] == ["TRUSTED_PROXIES"]
    (_, _, public), _, (_, _, admin), _ = _dry(gcloud, FRONT="hosting", TRUSTED_PROXIES="3")
    assert _variables(public)["COOKIE_NAME"] == "__session"
    assert _variables(public)["TRUSTED_PROXIES"] == "3"
    assert _variables(admin)["TRUSTED_PROXIES"] == "1"


def test_another_number_of_proxies_than_the_front_has_is_a_warning(gcloud: Gcloud) -> None:
    done = gcloud.run("apply", **WHERE, DRY_RUN="1", TRUSTED_PROXIES="2")
    assert done.returncode == 0
    assert "Warning: TRUSTED_PROXIES is 2, where it is 1 with FRONT=run.app" in done.stderr


def test_settings_of_the_environment_are_passed_on_with_commas_and_all(gcloud: Gcloud) -> None:
    origins = "https://a.example.com,https://b.example.com"
    (_, _, flags), *_ = _dry(gcloud, ALLOWED_ORIGINS=origins, AUDIT_DAYS="30", MAX_SIGNUPS=" ")
    assert _variables(flags)["ALLOWED_ORIGINS"] == origins
    assert _variables(flags)["AUDIT_DAYS"] == "30"
    assert "MAX_SIGNUPS" not in _variables(flags)
    (problem,) = _problems(gcloud.run("apply", **WHERE, COOKIE_NAME="a|b"))
    assert "COOKIE_NAME must not contain '|'" in problem


def test_every_setting_is_passed_on_decided_kept_secret_or_left_out() -> None:
    text = (ROOT / ".env.example").read_text()
    known = {
        *services.PASSED_ON, *services.ADMIN_PASSED_ON, *services.DECIDED, *services.NOT_DEPLOYED,
        *services.ADMIN.secrets,
    }  # fmt: skip
    assert set(re.findall(r"^# ([A-Z_]+)=", text, re.MULTILINE)) == known


def test_every_function_is_known_to_be_public_or_for_administrators() -> None:
    tree = ast.parse((ROOT / "main.py").read_text())
    (routes,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROUTES"
    )
    known = {*services.PUBLIC_FUNCTIONS, *services.ADMIN_FUNCTIONS}
    assert {*routes.values(), "api"} == known
    for_administrators = {
        path.stem
        for path in (ROOT / "functions").glob("*.py")
        if "admin" in path.read_text().lower() and path.stem in known
    }
    assert for_administrators == {*services.ADMIN_FUNCTIONS}


def test_one_function_is_deployed_alone(gcloud: Gcloud) -> None:
    command, words, flags = _dry(gcloud, FUNCTION="login")[0]
    assert command == "run deploy"
    assert words == ["ai-coder-auth-login"]
    assert flags["--function"] == "login"
    assert flags["--service-account"] == ACCOUNT
    assert "--allow-unauthenticated" in flags
    _, words, flags = _dry(gcloud, FUNCTION="migrate")[0]
    assert words == ["ai-coder-auth-migrate"]
    assert flags["--service-account"] == ADMIN_ACCOUNT
    assert "--no-allow-unauthenticated" in flags


def test_one_function_can_have_the_name_that_a_url_mask_looks_for(gcloud: Gcloud) -> None:
    _, words, flags = _dry(gcloud, FUNCTION="session", SERVICE="user")[0]
    assert (words, flags["--function"]) == (["user"], "session")
    done = gcloud.run("apply", **WHERE, SERVICE="user")
    assert done.returncode == 2
    assert "say which FUNCTION it is for" in done.stderr


def test_api_and_admin_can_be_deployed_alone_and_unknown_functions_cannot(gcloud: Gcloud) -> None:
    assert [words for _, words, _ in _dry(gcloud, FUNCTION="api")] == [["ai-coder-auth"]] * 2
    assert [w for _, w, _ in _dry(gcloud, FUNCTION="admin")] == [["ai-coder-auth-admin"]] * 2
    done = gcloud.run("apply", **WHERE, FUNCTION="logon")
    assert done.returncode == 2
    assert "'logon' is not one of" in done.stderr
    assert gcloud.calls == []


def test_everything_that_is_missing_is_said_at_once(gcloud: Gcloud) -> None:
    for name in (*VALUES, *services.OPTIONAL_SECRETS):
        _missing(gcloud, name)
    for account in (ACCOUNT, ADMIN_ACCOUNT):
        gcloud.say(f"iam service-accounts describe {account}", error="NOT_FOUND: Unknown account")
    env = {
        "PROJECT": "my-project", "ENVIRONMENT": "development", "FALLBACK": "full",
        "FRONT": "hosting", "CONCURRENCY": "3",
    }  # fmt: skip
    problems = _problems(gcloud.run("apply", **env))
    beginnings = (
        f"The service account {ACCOUNT} does not exist: `make deploy-setup`",
        f"The service account {ADMIN_ACCOUNT} does not exist: `make deploy-setup`",
        "The secret SESSION_SECRET has no value. After `make deploy-setup`: `openssl rand",
        "The secret DATABASE_URL has no value. After `make deploy-setup`: `cat | gcloud",
        "The secret ADMIN_TOKEN has no value. After `make deploy-setup`: `openssl rand",
        "ENVIRONMENT must be production or staging.",
        "FALLBACK=full would lose sign-ups",
        "CONCURRENCY is 3, and must be more",
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
    _secret(gcloud, name, value)
    done = gcloud.run("apply", **WHERE)
    (problem,) = _problems(done)
    assert problem.startswith(sentence)
    assert value not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("BCRYPT_ROUNDS", "4"), ("FALLBACK", "maybe"), ("LOCKOUT_TIME", "15")]
)
def test_a_setting_is_refused_as_the_service_would(gcloud: Gcloud, name: str, value: str) -> None:
    (problem,) = _problems(gcloud.run("apply", **WHERE, **{name: value}))
    assert problem.startswith(f"{name} must be")


def test_a_newest_version_that_is_disabled_is_not_passed_over(gcloud: Gcloud) -> None:
    _secret(gcloud, "SESSION_SECRET", SECRET, version=8, state="DISABLED")
    (problem,) = _problems(gcloud.run("apply", **WHERE))
    assert problem.startswith("Version 8 of the secret SESSION_SECRET, the newest, is disabled")


def test_a_secret_that_exists_is_passed_on_at_the_version_that_was_checked(gcloud: Gcloud) -> None:
    _secret(gcloud, "SESSION_SECRET", SECRET, version=12)
    (_, _, flags), *_ = _dry(gcloud)
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
    assert len(_commands(done)) == 4


def test_what_gcloud_cannot_see_is_told_in_its_words(gcloud: Gcloud) -> None:
    asked = "secrets versions describe latest --secret=SESSION_SECRET "
    gcloud.say(asked, error="PERMISSION_DENIED: the API is disabled")
    (problem,) = _problems(gcloud.run("apply", **WHERE))
    assert problem.startswith("The secret SESSION_SECRET cannot be seen: ERROR: (gcloud) PERMISSIO")


def test_administrators_by_service_account_need_no_token(gcloud: Gcloud) -> None:
    _missing(gcloud, "ADMIN_TOKEN")
    (problem,) = _problems(gcloud.run("apply", **WHERE))
    assert problem.startswith("The secret ADMIN_TOKEN has no value")
    env = {"ADMIN_AUDIENCE": "https://x", "ADMIN_SERVICE_ACCOUNT": ACCOUNT}
    _, _, (_, _, admin), _ = _dry(gcloud, **env)
    assert "ADMIN_TOKEN" not in admin["--set-secrets"]


def test_without_gcloud_or_login_or_project_the_settings_are_checked_all_the_same(
    gcloud: Gcloud,
) -> None:
    gcloud.say("auth list", "")
    gcloud.say("config get project", "")
    problems = _problems(gcloud.run("apply", BCRYPT_ROUNDS="4"))
    assert [p.split()[0] for p in problems] == ["gcloud", "PROJECT", "BCRYPT_ROUNDS", "REGION"]
    (gcloud.folder / "bin" / "gcloud").unlink()
    problems = _problems(gcloud.run("apply", BCRYPT_ROUNDS="4"))
    assert problems[0].startswith("gcloud is missing: install")
    assert [p.split()[0] for p in problems] == ["gcloud", "BCRYPT_ROUNDS", "REGION"]


def test_the_project_is_gclouds_own_if_none_is_named(gcloud: Gcloud) -> None:
    done = gcloud.run("apply", REGION="us-east5", DRY_RUN="1")
    assert {flags["--project"] for _, _, flags in _commands(done)} == {"configured-project"}


def test_a_missing_region_is_a_problem(gcloud: Gcloud) -> None:
    (problem,) = _problems(gcloud.run("apply", PROJECT="my-project"))
    assert problem == "REGION is missing: name the one nearest to the database."
    assert "Warning" not in gcloud.run("apply", **WHERE, DRY_RUN="1").stderr


def test_neons_direct_host_is_a_warning_and_other_hosts_are_not(gcloud: Gcloud) -> None:
    _secret(gcloud, "DATABASE_URL", VALUES["DATABASE_URL"].replace("-pooler", ""))
    assert "names Neon's direct host" in gcloud.run("apply", **WHERE, DRY_RUN="1").stderr
    _secret(gcloud, "DATABASE_URL", "postgresql://u:p@db.example.com/db")
    assert "Warning" not in gcloud.run("apply", **WHERE, DRY_RUN="1").stderr


def test_a_deployment_runs_what_the_dry_run_shows_and_then_tries_it(gcloud: Gcloud) -> None:
    shown = gcloud.run("apply", **WHERE, DRY_RUN="1").stdout.splitlines()
    gcloud.say("run services describe ai-coder-auth", "http://127.0.0.1:9")
    done = gcloud.run("apply", **WHERE)
    ran = [w for w in gcloud.calls if " ".join(w).startswith(WRITES)]
    assert [shlex.join(["gcloud", *words]) for words in ran] == shown
    assert done.stdout.splitlines()[:4] == shown
    assert "Trying http://127.0.0.1:9" in done.stdout
    assert done.returncode == 1
    assert "It is deployed, but: http://127.0.0.1:9 failed at: lives." in done.stderr
    assert "`make rollback` takes it back" in done.stderr


def test_nothing_is_deployed_that_could_not_be_tried_afterwards(gcloud: Gcloud) -> None:
    done = gcloud.run("apply", **WHERE, URL="example.com")
    assert done.returncode == 2
    assert "'example.com' is no URL to try" in done.stderr
    assert gcloud.calls == []


def test_what_only_a_load_balancer_reaches_is_not_tried_around_it(gcloud: Gcloud) -> None:
    done = gcloud.run("apply", **WHERE, FRONT="load-balancer")
    assert done.returncode == 0, done.stderr
    assert "Not tried" in done.stdout
    assert gcloud.called("run services describe") == []


def test_a_deployment_that_fails_ends_there(gcloud: Gcloud) -> None:
    gcloud.say("run deploy ai-coder-auth ", error="Build failed", code=3)
    done = gcloud.run("apply", **WHERE)
    assert done.returncode == 1
    assert "Build failed" in done.stderr
    assert "gcloud ended with exit code 3" in done.stderr
    assert [w[:2] for w in gcloud.calls if " ".join(w).startswith(WRITES)] == [["run", "deploy"]]


def _nothing_there(gcloud: Gcloud) -> None:
    for question in ("iam service-accounts describe", "secrets describe"):
        gcloud.say(question, error="NOT_FOUND: nothing")


def test_setting_up_makes_accounts_that_may_read_their_secrets_and_nothing_else(
    gcloud: Gcloud,
) -> None:
    _nothing_there(gcloud)
    done = gcloud.run("setup", PROJECT="my-project")
    assert done.returncode == 0, done.stderr
    assert [w[2] for w in gcloud.called("secrets create")] == [*VALUES]
    assert [w[3] for w in gcloud.called("iam service-accounts create")] == [
        "ai-coder-auth",
        "ai-coder-auth-admin",
    ]
    roles = [
        (words[0], flags["--member"].removeprefix("serviceAccount:"), flags["--role"])
        for _, words, flags in map(parse, gcloud.called("secrets add-iam-policy-binding"))
    ]
    reader = "roles/secretmanager.secretAccessor"
    assert roles == [
        ("SESSION_SECRET", ACCOUNT, reader),
        ("SESSION_SECRET", ADMIN_ACCOUNT, reader),
        ("DATABASE_URL", ACCOUNT, reader),
        ("DATABASE_URL", ADMIN_ACCOUNT, reader),
        ("ADMIN_TOKEN", ADMIN_ACCOUNT, reader),
    ]
    assert [" ".join(w) for w in gcloud.calls if "roles/" in " ".join(w)] == [
        " ".join(w) for w in gcloud.called("secrets add-iam-policy-binding")
    ]


def test_setting_up_again_makes_nothing_twice_and_finds_the_optional_secret(
    gcloud: Gcloud,
) -> None:
    done = gcloud.run("setup", PROJECT="my-project")
    assert done.returncode == 0
    assert gcloud.called("secrets create") == gcloud.called("iam service-accounts create") == []
    bound = [words[2] for words in gcloud.called("secrets add-iam-policy-binding")]
    assert bound.count("SESSION_PRIVATE_KEY") == 2


def test_a_dry_run_of_setting_up_writes_nothing_even_where_nothing_can_be_asked(
    gcloud: Gcloud,
) -> None:
    for question in ("iam service-accounts describe", "secrets describe"):
        gcloud.say(question, error="PERMISSION_DENIED: API not enabled")
    done = gcloud.run("setup", PROJECT="my-project", DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    assert len(_commands(done)) == 11
    assert [words for write in WRITES for words in gcloud.called(write)] == []
    done = gcloud.run("setup", PROJECT="my-project")
    assert done.returncode == 1
    assert "PERMISSION_DENIED: API not enabled Run it again" in done.stderr


def _revision(name: str, day: int, ready: str = "True") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "creationTimestamp": f"2026-11-{day:02}T10:00:00Z"},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def _revisions(gcloud: Gcloud, serving: str, *found: dict[str, Any]) -> None:
    traffic = [{"revisionName": serving, "percent": 100}, {"revisionName": "a-1", "tag": "old"}]
    gcloud.say("run services describe", {"status": {"traffic": traffic}})
    gcloud.say("run revisions list", list(found))


def test_a_rollback_serves_the_newest_older_revision_that_works(gcloud: Gcloud) -> None:
    found = [_revision("a-1", 1), _revision("a-2", 2), _revision("a-3", 3, "False")]
    _revisions(gcloud, "a-4", _revision("a-5", 5, "False"), *found, _revision("a-4", 4))
    shown = gcloud.run("rollback", **WHERE, DRY_RUN="1")
    assert gcloud.called("run services update-traffic") == []
    done = gcloud.run("rollback", **WHERE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown.stdout
    ((_, words, flags),) = _commands(done)
    assert words == ["ai-coder-auth"]
    assert flags["--to-revisions"] == "a-2=100"
    assert len(gcloud.called("run services update-traffic")) == 1
    assert [line.split("  ")[0::2] for line in done.stderr.splitlines()] == [
        ["a-5", "never worked"],
        ["a-4", "serves"],
        ["a-3", "never worked"],
        ["a-2", "will serve"],
        ["a-1"],
    ]


def test_a_rollback_can_name_the_revision_and_the_service(gcloud: Gcloud) -> None:
    _revisions(gcloud, "a-3", *(_revision(f"a-{n}", n) for n in (1, 2, 3)))
    service = "ai-coder-auth-admin"
    done = gcloud.run("rollback", **WHERE, REVISION="a-1", SERVICE=service)
    ((_, words, flags),) = _commands(done)
    assert (words, flags["--to-revisions"]) == ([service], "a-1=100")
    done = gcloud.run("rollback", **WHERE, REVISION="a-9")
    assert done.returncode == 2
    assert "has no revision a-9, but a-3, a-2, a-1." in done.stderr


def test_where_there_is_nothing_to_go_back_to_nothing_changes(gcloud: Gcloud) -> None:
    _revisions(gcloud, "a-1", _revision("a-1", 1), _revision("a-2", 2, "False"))
    done = gcloud.run("rollback", **WHERE)
    assert done.returncode == 1
    assert "There is no older revision that worked" in done.stderr
    gcloud.say("run services describe", error="Cannot find service [ai-coder-auth]")
    done = gcloud.run("rollback", **WHERE)
    assert done.returncode == 1
    assert "The revisions of ai-coder-auth cannot be seen" in done.stderr
    assert gcloud.called("run services update-traffic") == []
    assert _problems(gcloud.run("rollback", PROJECT="my-project")) == ["REGION is missing."]


def test_the_settings_that_are_deployed_are_those_that_the_service_takes(gcloud: Gcloud) -> None:
    (_, _, public), _, (_, _, admin), _ = _dry(gcloud)
    for flags in (public, admin):
        named = [pair.partition("=")[0] for pair in flags["--set-secrets"].split(",")]
        env = _variables(flags) | {name: VALUES[name] for name in named} | {"K_SERVICE": "x"}
        settings = Settings.from_env(env)
        assert settings.environment == "production"
        assert settings.has_admin == (flags is admin)
        assert settings.cookie_name == "__Host-session"
