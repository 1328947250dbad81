"""A deployment and its setting up: what is run, what stops it; gcloud only records."""

from __future__ import annotations

import shlex

from deploy import services
from tests.support.deployments import (
    ACCOUNT,
    ADMIN_ACCOUNT,
    VALUES,
    WHERE,
    WRITES,
    commands_of,
    lose_secret,
    set_secret,
)
from tests.support.gcloud import Answer, Gcloud, parse


def test_a_deployment_runs_what_the_dry_run_shows_and_then_tries_it(gcloud: Gcloud) -> None:
    shown = gcloud.run("apply", **WHERE, DRY_RUN="1").stdout.splitlines()
    gcloud.say("run services describe ai-coder-auth", "http://127.0.0.1:9")
    done = gcloud.run("apply", **WHERE)
    ran = [w for w in gcloud.calls if " ".join(w).startswith(WRITES)]
    assert [shlex.join(["gcloud", *words]) for words in ran] == shown
    assert done.stdout.splitlines()[:4] == shown
    assert "Testing http://127.0.0.1:9" in done.stdout
    assert done.returncode == 1
    assert "Deployed, but: http://127.0.0.1:9 failed at: lives." in done.stderr
    assert "`make rollback` undoes it" in done.stderr


def test_nothing_is_deployed_that_could_not_be_tried_afterwards(gcloud: Gcloud) -> None:
    done = gcloud.run("apply", **WHERE, URL="example.com")
    assert done.returncode == 2
    assert "'example.com' cannot be tested" in done.stderr
    assert gcloud.calls == []


def test_what_only_a_load_balancer_reaches_is_not_tried_around_it(gcloud: Gcloud) -> None:
    done = gcloud.run("apply", **WHERE, FRONT="load-balancer")
    assert done.returncode == 0, done.stderr
    assert "Not tested" in done.stdout
    assert gcloud.called("run services describe") == []


def test_a_deployment_that_fails_ends_there(gcloud: Gcloud) -> None:
    gcloud.say("run deploy ai-coder-auth ", error="Build failed", code=3)
    done = gcloud.run("apply", **WHERE)
    assert done.returncode == 1
    assert "Build failed" in done.stderr
    assert "gcloud failed with exit code 3" in done.stderr
    assert [w[:2] for w in gcloud.calls if " ".join(w).startswith(WRITES)] == [["run", "deploy"]]


def test_a_dry_run_shows_its_commands_to_whoever_cannot_ask_the_cloud(gcloud: Gcloud) -> None:
    known = gcloud.run("apply", **WHERE, DRY_RUN="1").stdout
    refusal = Answer("", "ERROR: There was a problem refreshing your current auth tokens\n", 1)
    asked = dict.fromkeys((*gcloud.answers, "iam service-accounts describe"), refusal)
    gcloud.answers |= asked | {"auth list": Answer("ada@example.com\n")}
    program = gcloud.folder / "bin" / "gcloud"
    for obstacle in ("refreshing your current auth tokens", "gcloud is not installed"):
        shown = gcloud.run("apply", **WHERE, DRY_RUN="1")
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout == known.replace(":7", ":latest")
        assert obstacle in shown.stderr
        assert "The versions of SESSION_SECRET, DATABASE_URL, ADMIN_TOKEN are not" in shown.stderr
        program.unlink(missing_ok=True)
    commands = commands_of(gcloud.run("apply", DRY_RUN="1"))
    assert {(f["--project"], f["--region"]) for _, _, f in commands} == {("PROJECT", "REGION")}
    assert len(commands_of(gcloud.run("setup", PROJECT="my-project", DRY_RUN="1"))) == 11


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
    assert len(commands_of(done)) == 11
    assert [words for write in WRITES for words in gcloud.called(write)] == []
    done = gcloud.run("setup", PROJECT="my-project")
    assert done.returncode == 1
    assert "PERMISSION_DENIED: API not enabled Run it again" in done.stderr


APPLICATIONS = {
    "APPLICATIONS": "shop,blog",
    "SHOP__HOSTS": "shop.example.com",
    "BLOG__HOSTS": "blog.example.com",
    "BLOG__MAX_SIGNUPS": "5",
}


def _of_several(gcloud: Gcloud) -> None:
    lose_secret(gcloud, "DATABASE_URL")
    for name in services.chosen(None, applications=("shop", "blog"))[1].secrets:
        if "__" in name:
            lose_secret(gcloud, name)
    for name in ("SHOP", "BLOG"):
        url = VALUES["DATABASE_URL"].replace("ep-", f"ep-{name.lower()}-")
        set_secret(gcloud, f"{name}__DATABASE_URL", url)


def test_several_applications_get_their_settings_and_secrets_in_one_service(gcloud: Gcloud) -> None:
    _of_several(gcloud)
    done = gcloud.run("apply", **WHERE, **APPLICATIONS)
    assert done.returncode == 0, done.stderr
    assert "Not tested: run make smoke URL=" in done.stdout
    public, private = (parse(words)[2] for words in gcloud.called("run deploy"))
    for flags in (public, private):
        variables = flags["--set-env-vars"].removeprefix("^|^").split("|")
        assert {f"{name}={value}" for name, value in APPLICATIONS.items()} <= {*variables}
        assert {
            "SHOP__DATABASE_URL=SHOP__DATABASE_URL:7",
            "BLOG__DATABASE_URL=BLOG__DATABASE_URL:7",
        } <= {*flags["--set-secrets"].split(",")}
        assert ",DATABASE_URL" not in flags["--set-secrets"]
        # Nobody reaches the private one but through Cloud Run, by its only host.
        assert ("TRUST_FORWARDED_HOST=true" in variables) is (flags is private)


def test_an_application_without_a_database_or_a_host_is_named_before_anything_is_deployed(
    gcloud: Gcloud,
) -> None:
    _of_several(gcloud)
    lose_secret(gcloud, "BLOG__DATABASE_URL")
    done = gcloud.run("apply", **WHERE, **(APPLICATIONS | {"SHOP__HOSTS": ""}))
    assert done.returncode == 2
    assert "The secret BLOG__DATABASE_URL has no value" in done.stderr
    assert "shop: HOSTS is missing" in done.stderr
    assert gcloud.called("run deploy") == []


def test_a_setting_of_an_applications_own_that_nobody_reads_stops_a_deployment(
    gcloud: Gcloud,
) -> None:
    _of_several(gcloud)
    wrong = {"SHOP__COOKIE_NAM": "x", "SHPO__COOKIE_NAME": "x", "SHOP__PORT": "9", "HOSTS": "a"}
    done = gcloud.run("apply", **WHERE, **APPLICATIONS, **wrong)
    assert done.returncode == 2
    for name in wrong:
        assert f"- {name} " in done.stderr
    done = gcloud.run("apply", **WHERE, **APPLICATIONS, FRONT="hosting")
    assert "FRONT=hosting is one site's" in done.stderr


def test_setting_up_several_makes_a_secret_for_each_database(gcloud: Gcloud) -> None:
    _nothing_there(gcloud)
    done = gcloud.run("setup", PROJECT="my-project", **APPLICATIONS)
    assert done.returncode == 0, done.stderr
    assert {w[2] for w in gcloud.called("secrets create")} == {
        "SESSION_SECRET",
        "SHOP__DATABASE_URL",
        "BLOG__DATABASE_URL",
        "ADMIN_TOKEN",
    }
