"""What the process may be told, and what it says to the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared import settings
from shared.environment import InvalidSettings
from shared.settings import Settings
from tests.support.emulator import ROOT, SECRET, ended, environment

URL = "postgresql://user:secret-canary@ep-x-pooler.eu.aws.neon.tech/db?sslmode=require"
ACCOUNT = "importer@project.iam.gserviceaccount.com"
CLIENT = "1234567890-0a1b2c3d4e5f.apps.googleusercontent.com"
OLD_CLIENT = "1234567890.apps.googleusercontent.com"
OTHER_SECRET = "b3RoZXIgb25lIGZvciB0aGUgdGVzdHMsIG5vd2hlcmUgZWxzZQ"


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for development's data that is not the project's own."""
    folder = tmp_path / ".data"
    monkeypatch.setattr(settings, "DATA", folder)
    return folder


def _problems(**env: str) -> list[str]:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_env(env).complete()
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def test_development_works_without_any_variable_and_keeps_its_secret(data_folder: Path) -> None:
    settings = Settings.from_env({})
    assert not data_folder.exists(), "to read them writes nothing"
    settings = settings.complete()
    assert settings.environment == "development"
    assert not settings.store.use_database
    assert not settings.web.secure
    assert settings.web.sign_in_page
    assert settings.web.cookie_name == "session"
    (secret,) = settings.credentials.session_secrets
    assert len(secret) >= 32
    assert Settings.from_env({}).complete().credentials.session_secrets == (secret,)
    kept = data_folder / "session-secret"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert data_folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in data_folder.iterdir()] == ["session-secret"]


@pytest.mark.parametrize("content", [b"", b"too short", b"\xff" * 64, b"x" * 64 + b"\xc3"])
def test_a_damaged_development_secret_is_named_and_left_alone(
    data_folder: Path, content: bytes
) -> None:
    data_folder.mkdir()
    kept = data_folder / "session-secret"
    kept.write_bytes(content)
    assert _problems() == [f"The development secret {kept} is damaged: delete it."]
    assert kept.read_bytes() == content


def test_the_development_secret_is_read_from_no_link(data_folder: Path, tmp_path: Path) -> None:
    data_folder.mkdir()
    (tmp_path / "elsewhere").write_text("x" * 64)
    (data_folder / "session-secret").symlink_to(tmp_path / "elsewhere")
    (problem,) = _problems()
    assert "is a symbolic link, not a regular file" in problem


def test_the_data_folder_is_ignored_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {".data/", ".env", ".venv"} <= set(ignored)


def test_many_processes_starting_at_once_agree_on_one_development_secret(
    tmp_path: Path,
) -> None:
    code = (
        "import pathlib, sys; from shared import settings;"
        "settings.DATA = pathlib.Path(sys.argv[1]);"
        "print(settings.Settings.from_env({}).complete().credentials.session_secrets)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "shared")]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment())
        for _ in range(6)
    ]
    assert len({process.communicate()[0] for process in processes}) == 1


def test_a_sound_production_is_accepted() -> None:
    settings = Settings.from_env(
        {"ENVIRONMENT": "production", "DATABASE_URL": URL, "SESSION_SECRET": SECRET}
    )
    assert settings.web.secure
    assert settings.store.use_database
    assert settings.web.cookie_name == "__Host-session"
    assert settings.credentials.bcrypt_rounds == 12
    assert settings.store.fallback == "off"
    assert not settings.web.sign_in_page
    assert Settings.from_env({}).store.fallback == "full"


def test_production_reports_all_its_problems_at_once() -> None:
    problems = _problems(
        ENVIRONMENT="production",
        DEBUG="1",
        BCRYPT_ROUNDS="4",
        PASSWORD_MIN_LENGTH="many",
        ALLOWED_ORIGINS="https://app.example.com/",
    )
    assert len(problems) == 6
    text = "\n".join(problems)
    for name in (
        "DEBUG",
        "BCRYPT_ROUNDS",
        "PASSWORD_MIN_LENGTH",
        "ALLOWED_ORIGINS",
        "SESSION_SECRET",
        "DATABASE_URL",
    ):
        assert name in text


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        ("", "is missing"),
        ("tooshort", "shorter than 32 bytes"),
        (f"{SECRET},short", "shorter than 32 bytes"),
        (f"{SECRET},", "shorter than 32 bytes"),
        ("your-super-secret-session-key-change-this-in-production", "placeholder"),
        ("a" * 64, "placeholder"),
        (f"{SECRET},{SECRET}", "twice"),
        (f"{SECRET},{OTHER_SECRET},{SECRET}", "twice"),
    ],
)
def test_production_refuses_weak_secrets_without_showing_them(secret: str, sentence: str) -> None:
    (problem,) = _problems(ENVIRONMENT="production", DATABASE_URL=URL, SESSION_SECRET=secret)
    assert sentence in problem
    assert not secret or secret not in problem


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ("tooshort", "ADMIN_TOKEN holds a secret shorter than 32 bytes"),
        ("a" * 64, "ADMIN_TOKEN looks like a placeholder"),
        ("replace-me-with-forty-random-characters-please", "ADMIN_TOKEN looks like a placeholder"),
    ],
)
def test_production_refuses_a_weak_admin_token_without_showing_it(
    token: str, sentence: str
) -> None:
    strict = {"ENVIRONMENT": "production", "DATABASE_URL": URL, "SESSION_SECRET": SECRET}
    (problem,) = _problems(**strict, ADMIN_TOKEN=token)
    assert sentence in problem
    assert token not in problem
    assert Settings.from_env(strict | {"ADMIN_TOKEN": OTHER_SECRET}).administrators.exist


def test_peppers_are_a_list_of_whatever_other_systems_had_and_are_not_shown() -> None:
    settings = Settings.from_env({"PASSWORD_PEPPERS": "short, jxspr8Ki0RY+/w=="})
    assert settings.credentials.password_peppers == ("short", "jxspr8Ki0RY+/w==")
    assert "short" not in repr(settings)
    assert _problems(PASSWORD_PEPPERS="short,,") == [
        "PASSWORD_PEPPERS has an empty entry in its list."
    ]


def test_administrators_are_a_token_or_the_service_accounts_of_a_list() -> None:
    assert not Settings.from_env({}).administrators.exist
    assert Settings.from_env({"ADMIN_TOKEN": OTHER_SECRET}).administrators.token == OTHER_SECRET
    settings = Settings.from_env(
        {"ADMIN_AUDIENCE": "https://a.example", "ADMIN_SERVICE_ACCOUNT": f" {ACCOUNT} ,x{ACCOUNT}"}
    )
    assert settings.administrators.exist
    assert settings.administrators.service_accounts == {ACCOUNT, f"x{ACCOUNT}"}


@pytest.mark.parametrize(
    "accounts",
    ["name", "ada@example.com", f"{ACCOUNT};{ACCOUNT}", "a@gserviceaccount.com.evil.example", "@"],
)
def test_only_service_accounts_can_be_administrators(accounts: str) -> None:
    (problem,) = _problems(ADMIN_AUDIENCE="https://a.example", ADMIN_SERVICE_ACCOUNT=accounts)
    assert "service accounts' addresses" in problem


def test_users_may_come_from_several_clients_of_google_or_from_a_firebase_project() -> None:
    settings = Settings.from_env({"GOOGLE_CLIENT_ID": f" {CLIENT} ,{OLD_CLIENT} {CLIENT}"})
    assert settings.credentials.google_client_ids == (CLIENT, OLD_CLIENT)
    assert settings.credentials.firebase_project_id is None
    settings = Settings.from_env({"FIREBASE_PROJECT_ID": "my-project-1a2b3"})
    assert settings.credentials.google_client_ids == ()
    assert settings.credentials.firebase_project_id == "my-project-1a2b3"


@pytest.mark.parametrize(
    "client_id",
    [
        "1234567890",
        "apps.googleusercontent.com",
        ".apps.googleusercontent.com",
        f"https://{CLIENT}",
        f"{CLIENT}/",
        f"{CLIENT}.evil.example",
        f"{CLIENT};{OLD_CLIENT}",
        f"{CLIENT},your-client-id",
        "https://api.example.com",
        "my-project-1a2b3",
    ],
)
def test_only_oauth_client_ids_are_taken_for_googles_clients(client_id: str) -> None:
    (problem,) = _problems(GOOGLE_CLIENT_ID=client_id)
    assert "GOOGLE_CLIENT_ID must list OAuth client ids" in problem


@pytest.mark.parametrize(
    "project_id",
    [
        "short",
        "x" * 31,
        "My-project",
        "1project",
        "project-",
        "my_project",
        "my project",
        "a-project,b-project",
        "123456789012",
        "https://my-project.firebaseapp.com",
        "my-project.firebaseapp.com",
    ],
)
def test_only_a_project_id_is_taken_for_a_firebase_project(project_id: str) -> None:
    (problem,) = _problems(FIREBASE_PROJECT_ID=project_id)
    assert "FIREBASE_PROJECT_ID must be the project's id" in problem


def test_secrets_are_a_list_in_the_order_of_use() -> None:
    settings = Settings.from_env({"SESSION_SECRET": f" {SECRET} , {OTHER_SECRET}"})
    assert settings.credentials.session_secrets == (SECRET, OTHER_SECRET)


def test_as_many_hashes_run_at_once_as_the_process_may_use_cpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from shared.settings import Settings;"
        "print(Settings.from_env().credentials.hash_concurrency)"
    )
    for variables, expected in (({}, b"1\n"), ({"HASH_CONCURRENCY": "3"}, b"3\n")):
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment(**variables),
            capture_output=True, check=True,
        )  # fmt: skip
        assert result.stdout == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    assert Settings().credentials.hash_concurrency == os.cpu_count()


def test_settings_never_show_their_secrets() -> None:
    settings = Settings.from_env(
        {
            "DATABASE_URL": URL,
            "SESSION_SECRET": SECRET,
            "ADMIN_TOKEN": OTHER_SECRET,
            "ALERT_WEBHOOK_URL": "https://hooks.example.com/webhook-canary",
        }
    )
    assert "webhook-canary" not in repr(settings)
    assert OTHER_SECRET not in repr(settings)
    assert "secret-canary" not in repr(settings)
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("env", "environment_name"),
    [
        ({"NODE_ENV": "production"}, "production"),
        ({"NODE_ENV": "production", "ENVIRONMENT": "development"}, "development"),
        ({"K_SERVICE": "api"}, "production"),
        ({"K_SERVICE": "api", "ENVIRONMENT": "staging"}, "staging"),
        ({"ENVIRONMENT": "Test"}, "test"),
    ],
)
def test_the_environment_is_told_as_in_the_old_system_or_guessed_strictly(
    env: dict[str, str], environment_name: str
) -> None:
    settings = Settings.from_env({"SESSION_SECRET": SECRET, "DATABASE_URL": URL} | env)
    assert settings.environment == environment_name


@pytest.mark.parametrize(
    ("env", "trusted_proxies"),
    [
        ({}, None),
        ({"ENVIRONMENT": "production"}, None),
        ({"TRUSTED_PROXIES": "0"}, 0),
        ({"K_SERVICE": "api"}, 1),
        ({"K_SERVICE": "api", "TRUSTED_PROXIES": "2"}, 2),
        ({"K_SERVICE": "api", "TRUSTED_PROXIES": "0"}, 0),
    ],
)
def test_no_proxy_is_trusted_but_cloud_runs_own_unless_the_settings_say_so(
    env: dict[str, str], trusted_proxies: int | None
) -> None:
    settings = Settings.from_env({"SESSION_SECRET": SECRET, "DATABASE_URL": URL} | env)
    assert settings.web.trusted_proxies == trusted_proxies


def test_the_json_file_in_production_must_be_asked_for_by_name() -> None:
    strict = {"ENVIRONMENT": "production", "SESSION_SECRET": SECRET, "USE_DATABASE": "false"}
    (problem,) = _problems(**strict)
    assert "USERS_FILE" in problem
    settings = Settings.from_env(strict | {"USERS_FILE": "/srv/users.json"})
    assert not settings.store.use_database


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ENVIRONMENT", "prod", "must be one of"),
        ("USE_DATABASE", "maybe", "must be true or false"),
        ("USE_DATABASE", "true", "DATABASE_URL is missing"),
        ("DATABASE_URL", "mysql://x", "must begin with postgresql://"),
        ("FALLBACK", "always", "one of full, readonly, off"),
        ("SNAPSHOT_MAX_AGE", "-1", "from 0 to 604800"),
        ("SNAPSHOT_INTERVAL", "x", "a number"),
        ("BCRYPT_ROUNDS", "15", "from 4 to 14"),
        ("BCRYPT_ROUNDS", "12.5", "a whole number"),
        ("LOCKOUT_TIME", "15m", "a whole number from 1000 to 86400000."),
        ("MAX_LOGINS", "0", "a whole number from 1 to 1000000."),
        ("HASH_CONCURRENCY", "0", "from 1 to 64"),
        ("DATABASE_TIMEOUT", "nan", "from 0.1 to 300"),
        ("DATABASE_MAX_CONNECTIONS", "0", "from 1 to 100"),
        ("COOKIE_NAME", "a b", "HTTP token"),
        ("COOKIE_NAME", "__Host-session", "HTTPS only"),
        ("COOKIE_NAME", "x" * 65, "at most 64 characters"),
        ("ADMIN_TOKEN", "tooshort", "shorter than 32 bytes"),
        ("ADMIN_TOKEN", f"{OTHER_SECRET}é", "to fit into a header"),
        ("ADMIN_TOKEN", f"{OTHER_SECRET} {OTHER_SECRET}", "to fit into a header"),
        ("ADMIN_AUDIENCE", "https://api.example.com", "ADMIN_SERVICE_ACCOUNT must be set together"),
        ("ADMIN_SERVICE_ACCOUNT", ACCOUNT, "must be set together"),
        ("TRUSTED_PROXIES", "-1", "from 0 to 10"),
        ("TRUSTED_PROXIES", "true", "a whole number"),
        ("ALLOWED_ORIGINS", "*", "must list origins"),
        ("ALLOWED_ORIGINS", "https://a.example/path", "must list origins"),
        (
            "ALLOWED_ORIGINS",
            "https://*.example.com",
            "https://*.example.com can never match: a wildc",
        ),
        ("ALLOWED_ORIGINS", "https://a.example:99999", "its port is not a number from 1 to 65535"),
        ("ALLOWED_ORIGINS", "https://a.example,https://u:p@b.example", "entry 2 can never match"),
        ("ALERT_WEBHOOK_URL", "http://hooks.example.com/x", "must be an https URL"),
        ("ALERT_WEBHOOK_URL", "https://user:pass@hooks.example.com/", "must be an https URL"),
        ("ALERT_ERROR_RATE", "5", "from 0 to 1"),
        ("DATABASE_SLOW_QUERY", "-1", "from 0 to 300"),
        ("REQUEST_TIMEOUT", "0", "from 0.1 to 300"),
        ("STREAM_TIMEOUT", "inf", "from 0.1 to 3600"),
        ("KEEP_ALIVE_TIMEOUT", "0", "from 1 to 3600"),
        ("PORT", "abc", "a whole number from 1 to 65535"),
        ("PORT", "0", "a whole number from 1 to 65535"),
        ("PORT", "80.5", "a whole number from 1 to 65535"),
        ("WORKERS", "auto", "a whole number from 1 to 100"),
        ("CLOUD_RUN_TIMEOUT_SECONDS", "60s", "a whole number from 0 to 86400"),
        ("FUNCTION_USE_ASGI", "true", "is set: the functions are WSGI"),
    ],
)
def test_a_wrong_setting_is_one_clear_sentence(name: str, value: str, sentence: str) -> None:
    first, *_ = _problems(**{name: value})
    assert sentence in first
    assert name in first


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DATABSE_URL", "DATABASE_URL"), ("DATABASE_URI", "DATABASE_URL"),
        ("database_url", "DATABASE_URL"), ("USERS_FLE", "USERS_FILE"), ("FALLBAK", "FALLBACK"),
        ("SESSION_SECRETS", "SESSION_SECRET"), ("ENVIROMENT", "ENVIRONMENT"),
        ("SERVICE", None), ("PG_DATABASE_URL", None), ("GOOGLE_CLIENT_SECRET", None),
        ("MAX_INSTANCES", None), ("PATH", None), ("BCRYPT_ROUNDS", None),
        ("HTTP_PROXY", None), ("http_proxy", None), ("no_proxy", None),
    ],
)  # fmt: skip
def test_a_name_that_is_nearly_a_settings_is_told(name: str, meant: str | None) -> None:
    expected = [f"{name} is no setting; perhaps {meant} is meant."] if meant else []
    assert Settings.misspelt({name: "x"}) == expected
    assert (
        Settings.misspelt({name: "x"} | dict.fromkeys(Settings.names() - {"APPLICATIONS"}, "set"))
        == []
    )


def test_an_unusable_development_secret_is_reported(data_folder: Path) -> None:
    data_folder.write_text("a file where a folder should be")
    (problem,) = _problems()
    assert "SESSION_SECRET" in problem


def test_the_server_does_not_start_on_wrong_settings_and_says_why() -> None:
    wrong = {"ENVIRONMENT": "production", "SESSION_SECRET": "hunter2", "DEBUG": "true"}
    result = ended("--port", "1", **wrong)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    for word in ("SESSION_SECRET", "DEBUG", "DATABASE_URL"):
        assert word in result.stderr
    assert "hunter2" not in result.stderr + result.stdout


def test_the_example_and_the_readme_name_every_setting() -> None:
    example = (ROOT / ".env.example").read_text()
    readme = (ROOT / "README.md").read_text()
    # Variables of the platform and of functions-framework, of which only a wrong value is ours.
    foreign = {"K_SERVICE", "DEBUG", "WORKERS", "CLOUD_RUN_TIMEOUT_SECONDS", "FUNCTION_USE_ASGI"}
    names = Settings.names() - foreign - {"https_proxy"}
    assert len(names) > 40
    for name in names:
        assert name in example, name
        assert f"`{name}`" in readme, name
