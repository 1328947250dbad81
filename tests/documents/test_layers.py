"""The house: which room stands on which floor, and that arrows go down only."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from tests.support.emulator import ROOT, environment

FLOORS = (
    ("main", "deploy"),
    ("functions",),
    ("shared.applications",),
    ("shared.web", "shared.mail.command"),
    ("shared.application", "shared.transfer"),
    ("shared.doctor",),
    ("shared.settings",),
    ("shared.web.settings", "shared.rules", "shared.mail"),
    ("shared.store",),
    ("shared.database", "shared.credentials", "shared.revocations"),
    ("shared.observe",),
    ("shared.model",),
    (
        "shared.files",
        "shared.https",
        "shared.environment",
        "shared.env_file",
        "shared.happy_eyeballs",
    ),
    ("shared.errors", "shared.deadlines", "shared.console", "shared.formats", "shared.ports"),
    ("shared",),
)
"""From the top. A module stands where the longest of these names that it begins with does; it may
import what is in its own room, and what stands on a lower floor, wherever the import is written."""

SOURCES = [
    path
    for folder in ("main.py", "functions", "shared", "deploy")
    for path in ([ROOT / folder] if folder.endswith(".py") else (ROOT / folder).rglob("*.py"))
]


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {_name(path): path for path in SOURCES}


def _imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Name the modules of ours that are imported, and others by what stands in the import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else str(node.module))
    return found


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


@cache
def _imported(module: str) -> set[str]:
    return _imports(ast.walk(_tree(module)))


@cache
def _loaded(module: str) -> set[str]:
    """Name what importing the module imports; an Application's parts import more when made."""
    return _imports(_tree(module).body)


def _room(module: str) -> str:
    rooms = [
        room
        for floor in FLOORS
        for room in floor
        if module == room or (module.startswith(f"{room}.") and room != "shared")
    ]
    assert rooms, f"{module} stands in no room: the table says where each one is"
    return max(rooms, key=len)


def _height(room: str) -> int:
    return next(-number for number, floor in enumerate(FLOORS) if room in floor)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_its_own_room_and_lower_floors_only(module: str) -> None:
    room = _room(module)
    others = {_room(name) for name in _imported(module) & MODULES.keys()} - {room}
    assert {other for other in others if _height(other) >= _height(room)} == set()


def _reach(module: str) -> set[str]:
    seen: set[str] = set()
    pending = [module]
    while pending:
        for name in _loaded(pending.pop()):
            if name in MODULES and name not in seen:
                seen.add(name)
                pending.append(name)
    return seen


def _users_of(package: str) -> set[str]:
    return {
        name
        for name in MODULES
        if any(
            imported == package or imported.startswith(f"{package}.")
            for imported in _imported(name)
        )
    }


def test_flask_is_known_to_the_edge_and_the_functions_only() -> None:
    rooms = {_room(name) for name in _users_of("flask") | _users_of("werkzeug")}
    assert rooms == {"main", "functions", "shared.web"}


def test_pg8000_is_known_to_the_connection_and_to_what_its_faults_mean() -> None:
    assert _users_of("pg8000") == {"shared.database.driver"}
    assert _users_of("shared.database.driver") == {
        "shared.database.connection",
        "shared.database.faults",
        "shared.database.http_connection",
    }


def test_redis_is_known_to_one_module_which_nothing_loads_before_a_list_is_used() -> None:
    assert _users_of("redis") == {"shared.revocations.redis_list"}
    assert not any("shared.revocations.redis_list" in _loaded(name) for name in MODULES)


def test_google_auth_is_known_to_two_modules_and_loaded_by_the_first_token() -> None:
    users = _users_of("google.auth")
    assert users == {"shared.credentials.id_tokens", "shared.credentials.certificates"}
    assert not any("google" in name for user in users for name in _loaded(user))


def test_sql_about_users_is_in_the_store_and_the_transfer_only() -> None:
    verbs = ("FROM", "JOIN", "INTO", "UPDATE")
    rooms = {
        _room(_name(path))
        for path in SOURCES
        if any(f"{verb} users" in path.read_text() for verb in verbs)
    }
    assert rooms - {"deploy"} == {"shared.store", "shared.transfer"}, "deploy names them in advice"


def test_plain_data_and_the_hashes_need_nothing_of_ours_but_errors_and_formats() -> None:
    for module in ("shared.model.users", "shared.model.statistics", "shared.errors"):
        assert _imported(module) & MODULES.keys() <= {"shared.formats.timestamps"}, module


@pytest.mark.parametrize("entry_point", ["health", "login", "session"])
def test_without_key_pairs_nothing_is_loaded_that_reads_or_uses_them(entry_point: str) -> None:
    code = (
        f"import sys, main; main.{entry_point}; main.applications.own.tokens; print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, check=True
    )
    assert not set(result.stdout.decode().split()) & {"jwt", "cryptography", "functions.jwks"}


@pytest.mark.parametrize("entry_point", ["health", "login"])
def test_who_needs_no_administrator_does_not_load_what_verifies_one(entry_point: str) -> None:
    code = f"import sys, main; main.{entry_point}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, check=True
    )
    loaded = set(result.stdout.decode().split())
    assert f"functions.{entry_point}" in loaded
    rules = "shared.rules.administrators"
    assert not loaded & {"google.auth", "shared.credentials.id_tokens", rules}


def test_a_probe_loads_neither_the_database_nor_the_password_hasher() -> None:
    heavy = {
        "shared.database.pool",
        "shared.credentials.passwords",
        "shared.credentials.session_tokens",
        "shared.model.emails",
    }
    assert heavy <= MODULES.keys()
    assert not _reach("main") & heavy
    assert not _reach("functions.health") & heavy


FIRST_LOGIN = """
import dataclasses, json, sys, main
main.login
app = main.applications.own
app.accounts, app.tokens, app.alerts, app.janitor
classes = {
    f"{name}.{key}"
    for name, module in list(sys.modules.items()) if name.startswith(("shared.", "functions."))
    for key, value in vars(module).items()
    if isinstance(value, type) and value.__module__ == name and dataclasses.is_dataclass(value)
}
print(json.dumps([sorted(sys.modules), sorted(classes)]))
"""


@pytest.fixture(scope="module")
def first_login(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """The modules that a first login on Postgres loads, and the dataclasses of ours in them."""
    variables = environment(
        DATABASE_URL="postgresql://user:password@localhost/database",
        # `make dev` may have left users in the usual one.
        USERS_FILE=str(tmp_path_factory.mktemp("login") / "users.json"),
    )
    done = subprocess.run(
        [sys.executable, "-c", FIRST_LOGIN],
        cwd=ROOT, env=variables, capture_output=True, check=True,
    )  # fmt: skip
    modules, classes = json.loads(done.stdout)
    return set(modules), set(classes)


def test_a_first_login_loads_nothing_that_only_later_requests_or_a_migration_need(
    first_login: tuple[set[str], set[str]],
) -> None:
    modules, _ = first_login
    later = {
        "shared.credentials.foreign_hashes",
        "shared.database.endpoint",
        "shared.database.http_connection",
        "shared.database.replica",
        "shared.database.sql_script",
        "shared.formats.foreign_hashes",
        "shared.formats.hash_recognition",
        "shared.model.statistics",
        "shared.revocations.redis_list",
        "shared.revocations.url",
        "shared.store.announcing",
        "shared.store.postgres.email_keys",
        "shared.store.postgres.preflight",
        "shared.store.postgres.statistics",
    }
    assert all((ROOT / f"{name.replace('.', '/')}.py").is_file() for name in later)
    assert "shared.store.postgres.store" in modules
    assert not modules & later


def test_of_the_plain_data_of_a_first_login_only_what_holds_a_secret_is_a_dataclass(
    first_login: tuple[set[str], set[str]],
) -> None:
    """See docs/decisions/0033-what-a-cold-start-makes.md."""
    _, classes = first_login
    assert classes == {
        "shared.credentials.settings.CredentialSettings",
        "shared.database.url.DatabaseUrl",
        "shared.observe.settings.AlertSettings",
        "shared.rules.settings.AdministratorSettings",
        "shared.store.contract.Credentials",
    }


def test_a_deployment_knows_of_the_code_its_settings_only_and_nothing_knows_of_it() -> None:
    deploy = {name for name in MODULES if _room(name) == "deploy"}
    others = MODULES.keys() - deploy
    assert not any(_imported(name) & deploy for name in others)
    used = set.union(*(_imported(name) for name in deploy)) & others
    assert used == {
        "shared.database.url",
        "shared.environment",
        "shared.formats.strict_json",
        "shared.settings",
    }
