"""The arrows of the architecture point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.emulator import ROOT, environment

SOURCES = [ROOT / "main.py", *(ROOT / "functions").glob("*.py"), *(ROOT / "shared").rglob("*.py")]


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def _imports(nodes: Iterable[ast.AST]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


TREES = {_name(path): ast.parse(path.read_text()) for path in SOURCES}
IMPORTS = {name: _imports(ast.walk(tree)) for name, tree in TREES.items()}
LOADED = {name: _imports(tree.body) for name, tree in TREES.items()}
"""What importing the module imports; `open_store` and the like import more when they are called."""


def _reach(module: str) -> set[str]:
    seen: set[str] = set()
    pending = [module]
    while pending:
        for name in LOADED.get(pending.pop(), set()):
            if name in IMPORTS and name not in seen:
                seen.add(name)
                pending.append(name)
    return seen


def test_flask_is_known_to_the_edge_and_the_functions_only() -> None:
    users = {name for name, imports in IMPORTS.items() if any("flask" in i for i in imports)}
    assert users <= {"main"} | {n for n in IMPORTS if n.startswith(("functions.", "shared.web."))}


def test_pg8000_is_known_to_one_module() -> None:
    users = {name for name, imports in IMPORTS.items() if any("pg8000" in i for i in imports)}
    assert users == {"shared.database.connection"}


def test_google_auth_is_known_to_two_modules_and_loaded_by_the_first_token() -> None:
    users = {name for name, imports in IMPORTS.items() if any("google.auth" in i for i in imports)}
    assert users == {"shared.credentials.id_tokens", "shared.credentials.certificates"}
    assert not any("google" in name for user in users for name in LOADED[user])


def test_sql_about_users_is_in_the_store_only() -> None:
    users = {
        _name(path)
        for path in SOURCES
        if any(f"{verb} users" in path.read_text() for verb in ("FROM", "JOIN", "INTO", "UPDATE"))
    }
    assert users == {
        f"shared.{name}"
        for name in (
            "store.postgres.statements",
            "transfer.operations",
            "store.postgres.email_keys",
            "store.snapshot",
            "transfer.staging",
            "transfer.writing",
            "transfer.batches",
            "transfer.rollback",
            "transfer.users_table",
            "store.postgres.statistics",
        )
    }


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        (
            "shared.web.endpoint",
            {"shared.rules.accounts", "shared.database.pool", "shared.store.contract"},
        ),
        (
            "functions.login",
            {"shared.database.pool", "shared.store.postgres.store", "shared.database.migrations"},
        ),
        (
            "shared.rules.accounts",
            {"shared.web.endpoint", "shared.database.pool", "shared.store.postgres.store"},
        ),
        (
            "shared.credentials.session_tokens",
            {
                "shared.web.endpoint",
                "shared.store.contract",
                "shared.database.pool",
                "shared.rules.accounts",
            },
        ),
        (
            "shared.credentials.express_sessions",
            set(IMPORTS) - {"shared.credentials.express_sessions"},
        ),
        (
            "shared.transfer.batches",
            {"shared.web.endpoint", "shared.rules.accounts"},
        ),
        ("shared.model.statistics", set(IMPORTS) - {"shared.model.statistics"}),
        (
            "shared.transfer.importing",
            {"shared.web.endpoint", "shared.rules.accounts", "shared.application"},
        ),
        (
            "shared.web.request_body",
            {"shared.web.endpoint", "shared.settings", "shared.rules.accounts"},
        ),
        ("shared.web.problems", set(IMPORTS) - {"shared", "shared.errors"}),
        (
            "shared.web.cors",
            {"shared.web.endpoint", "shared.rules.accounts", "shared.store.contract"},
        ),
        ("shared.model.clients", set(IMPORTS) - {"shared.model.clients"}),
        (
            "shared.rules.administrators",
            {
                "shared.web.endpoint",
                "shared.application",
                "shared.store.contract",
                "shared.rules.accounts",
            },
        ),
        (
            "shared.credentials.id_tokens",
            {
                "shared.web.endpoint",
                "shared.settings",
                "shared.store.contract",
                "shared.rules.accounts",
            },
        ),
        (
            "shared.credentials.certificates",
            {
                "shared.credentials.id_tokens",
                "shared.web.endpoint",
                "shared.settings",
                "shared.store.contract",
            },
        ),
        (
            "shared.credentials.passwords",
            {"shared.web.endpoint", "shared.store.contract", "shared.rules.accounts"},
        ),
        (
            "shared.rules.bulkhead",
            set(IMPORTS)
            - {
                "shared",
                "shared.errors",
                "shared.observe",
                "shared.observe.metrics",
                "shared.rules.bulkhead",
            },
        ),
        (
            "shared.rules.gate",
            {
                "shared.web.endpoint",
                "shared.store.contract",
                "shared.rules.accounts",
                "shared.credentials.passwords",
            },
        ),
        ("shared.model.throttling", set(IMPORTS) - {"shared.model.throttling", "shared.errors"}),
        (
            "shared.credentials.password_policy",
            set(IMPORTS)
            - {"shared.credentials.password_policy", "shared.errors", "shared.formats.unicode"},
        ),
        (
            "shared.database.pool",
            {"shared.web.endpoint", "shared.store.contract", "shared.rules.accounts"},
        ),
        (
            "shared.database.connecting",
            {"shared.database.pool", "shared.settings", "shared.store.contract"},
        ),
        (
            "shared.database.connection",
            {
                "shared.database.connecting",
                "shared.database.pool",
                "shared.settings",
                "shared.store.contract",
            },
        ),
        (
            "shared.settings",
            {
                "shared.web.endpoint",
                "shared.store.contract",
                "shared.database.pool",
                "shared.observe.log",
            },
        ),
        ("shared.errors", set(IMPORTS) - {"shared.errors"}),
    ],
)
def test_nothing_reaches_upwards(module: str, forbidden: set[str]) -> None:
    assert module in IMPORTS
    assert not _reach(module) & forbidden


@pytest.mark.parametrize("entry_point", ["health", "login", "session"])
def test_without_key_pairs_nothing_is_loaded_that_reads_or_uses_them(entry_point: str) -> None:
    code = f"import sys, main; main.{entry_point}; main.application.tokens; print(*sys.modules)"
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
    assert not loaded & {
        "google.auth",
        "shared.credentials.id_tokens",
        "shared.rules.administrators",
    }


def test_a_probe_loads_neither_the_database_nor_the_password_hasher() -> None:
    heavy = {
        "shared.database.pool",
        "shared.credentials.passwords",
        "shared.credentials.session_tokens",
        "shared.model.emails",
    }
    assert not _reach("main") & heavy
    assert not _reach("functions.health") & heavy


def test_a_deployment_knows_of_the_code_its_settings_only_and_nothing_knows_of_it() -> None:
    assert not any(name.startswith("deploy") for imports in IMPORTS.values() for name in imports)
    trees = [ast.parse(path.read_text()) for path in (ROOT / "deploy").glob("*.py")]
    used = {name for tree in trees for name in _imports(ast.walk(tree)) if name in IMPORTS}
    assert used <= {"shared.settings", "shared.database.url", "shared.formats.strict_json"}
