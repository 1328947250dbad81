"""What is deployed: the commands, and the settings and secrets in them."""

from __future__ import annotations

import ast
import re

import pytest

from deploy import services
from shared.settings import Settings
from tests.support.deployments import (
    ACCOUNT,
    ADMIN_ACCOUNT,
    PASSWORD,
    TOKEN,
    VALUES,
    WHERE,
    WRITES,
    dry_run,
    problems_of,
    variables_of,
)
from tests.support.emulator import ROOT, SECRET
from tests.support.gcloud import Gcloud, WrongUse, parse


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
    commands = dry_run(gcloud)
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
    (_, _, public), _, (_, _, admin), _ = dry_run(gcloud, **env)
    assert "--allow-unauthenticated" in public
    assert public["--function"] == "api"
    assert public["--service-account"] == ACCOUNT
    assert public["--set-secrets"] == "SESSION_SECRET=SESSION_SECRET:7,DATABASE_URL=DATABASE_URL:7"
    assert "ADMIN" not in str(public)
    assert "--no-allow-unauthenticated" in admin
    assert admin["--function"] == "api"
    assert admin["--service-account"] == ADMIN_ACCOUNT
    assert admin["--set-secrets"].endswith(",ADMIN_TOKEN=ADMIN_TOKEN:7")
    assert variables_of(admin) | env == variables_of(admin)


def test_what_an_instance_is(gcloud: Gcloud) -> None:
    (_, _, public), *_ = dry_run(gcloud)
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
    assert variables_of(public) == {
        "ENVIRONMENT": "production",
        "GOOGLE_CLOUD_PROJECT": "my-project",
        "THREADS": "8",
        "HASH_CONCURRENCY": "1",
        "TRUSTED_PROXIES": "1",
    }


def test_threads_are_as_many_as_requests_and_three_times_the_hashes_fewer(gcloud: Gcloud) -> None:
    (_, _, flags), *_ = dry_run(gcloud, CPU="2", CONCURRENCY="16", MEMORY="1Gi", MAX_INSTANCES="3")
    assert (flags["--cpu"], flags["--concurrency"], flags["--max-instances"]) == ("2", "16", "3")
    assert variables_of(flags)["THREADS"] == flags["--concurrency"]
    assert variables_of(flags)["HASH_CONCURRENCY"] == "2"
    problems = problems_of(gcloud.run("apply", **WHERE, CPU="4"))
    (problem,) = problems
    assert problem.startswith("CONCURRENCY is 8 and must be more than three times HASH_CONC")


@pytest.mark.parametrize(
    ("front", "proxies", "ingress"),
    [("run.app", "1", "all"), ("load-balancer", "2", "internal-and-cloud-load-balancing")],
)
def test_who_is_trusted_about_addresses_is_the_only_way_in(
    gcloud: Gcloud, front: str, proxies: str, ingress: str
) -> None:
    (_, _, public), _, (_, _, admin), _ = dry_run(gcloud, FRONT=front)
    assert public["--ingress"] == ingress
    assert variables_of(public)["TRUSTED_PROXIES"] == proxies
    assert (admin["--ingress"], variables_of(admin)["TRUSTED_PROXIES"]) == ("all", "1")


def test_behind_firebase_hosting_the_cookie_has_the_one_name_that_gets_through(
    gcloud: Gcloud,
) -> None:
    done = gcloud.run("apply", **WHERE, FRONT="hosting")
    assert [p.partition(" is")[0] for p in problems_of(done)] == ["TRUSTED_PROXIES"]
    (_, _, public), _, (_, _, admin), _ = dry_run(gcloud, FRONT="hosting", TRUSTED_PROXIES="3")
    assert variables_of(public)["COOKIE_NAME"] == "__session"
    assert variables_of(public)["TRUSTED_PROXIES"] == "3"
    assert variables_of(admin)["TRUSTED_PROXIES"] == "1"


def test_another_number_of_proxies_than_the_front_has_is_a_warning(gcloud: Gcloud) -> None:
    done = gcloud.run("apply", **WHERE, DRY_RUN="1", TRUSTED_PROXIES="2")
    assert done.returncode == 0
    assert "Warning: TRUSTED_PROXIES is 2, but FRONT=run.app has 1" in done.stderr


def test_settings_of_the_environment_are_passed_on_with_commas_and_all(gcloud: Gcloud) -> None:
    origins = "https://a.example.com,https://b.example.com"
    (_, _, flags), *_ = dry_run(gcloud, ALLOWED_ORIGINS=origins, AUDIT_DAYS="30", MAX_SIGNUPS=" ")
    assert variables_of(flags)["ALLOWED_ORIGINS"] == origins
    assert variables_of(flags)["AUDIT_DAYS"] == "30"
    assert "MAX_SIGNUPS" not in variables_of(flags)
    (problem,) = problems_of(gcloud.run("apply", **WHERE, COOKIE_NAME="a|b"))
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
        if "admin=True" in path.read_text() and path.stem in known
    }
    assert for_administrators == {*services.ADMIN_FUNCTIONS}


def test_one_function_is_deployed_alone(gcloud: Gcloud) -> None:
    command, words, flags = dry_run(gcloud, FUNCTION="login")[0]
    assert command == "run deploy"
    assert words == ["ai-coder-auth-login"]
    assert flags["--function"] == "login"
    assert flags["--service-account"] == ACCOUNT
    assert "--allow-unauthenticated" in flags
    _, words, flags = dry_run(gcloud, FUNCTION="migrate")[0]
    assert words == ["ai-coder-auth-migrate"]
    assert flags["--service-account"] == ADMIN_ACCOUNT
    assert "--no-allow-unauthenticated" in flags


def test_one_function_can_have_the_name_that_a_url_mask_looks_for(gcloud: Gcloud) -> None:
    _, words, flags = dry_run(gcloud, FUNCTION="session", SERVICE="user")[0]
    assert (words, flags["--function"]) == (["user"], "session")
    done = gcloud.run("apply", **WHERE, SERVICE="user")
    assert done.returncode == 2
    assert "SERVICE requires FUNCTION" in done.stderr


def test_api_and_admin_can_be_deployed_alone_and_unknown_functions_cannot(gcloud: Gcloud) -> None:
    assert [words for _, words, _ in dry_run(gcloud, FUNCTION="api")] == [["ai-coder-auth"]] * 2
    assert [w for _, w, _ in dry_run(gcloud, FUNCTION="admin")] == [["ai-coder-auth-admin"]] * 2
    done = gcloud.run("apply", **WHERE, FUNCTION="logon")
    assert done.returncode == 2
    assert "'logon' is not one of" in done.stderr
    assert gcloud.calls == []


def test_the_settings_that_are_deployed_are_those_that_the_service_takes(gcloud: Gcloud) -> None:
    (_, _, public), _, (_, _, admin), _ = dry_run(gcloud)
    for flags in (public, admin):
        named = [pair.partition("=")[0] for pair in flags["--set-secrets"].split(",")]
        env = variables_of(flags) | {name: VALUES[name] for name in named} | {"K_SERVICE": "x"}
        settings = Settings.from_env(env)
        assert settings.environment == "production"
        assert settings.administrators.exist == (flags is admin)
        assert settings.web.cookie_name == "__Host-session"
