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
    assert users <= {"main", "shared.http", "shared.bodies"} | {
        n for n in IMPORTS if n.startswith("functions.")
    }


def test_pg8000_is_known_to_one_module() -> None:
    users = {name for name, imports in IMPORTS.items() if any("pg8000" in i for i in imports)}
    assert users == {"shared.connection"}


def test_google_auth_is_known_to_two_modules_and_loaded_by_the_first_token() -> None:
    users = {name for name, imports in IMPORTS.items() if any("google.auth" in i for i in imports)}
    assert users == {"shared.identity", "shared.certificates"}
    assert not any("google" in name for user in users for name in LOADED[user])


def test_sql_about_users_is_in_the_store_only() -> None:
    users = {
        _name(path)
        for path in SOURCES
        if any(f"{verb} users" in path.read_text() for verb in ("FROM", "JOIN", "INTO", "UPDATE"))
    }
    assert users == {
        f"shared.store.{name}"
        for name in (
            "statements",
            "operations",
            "email_keys",
            "snapshot",
            "staging",
            "bulk",
            "batches",
            "statistics",
        )
    }


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("shared.http", {"shared.accounts", "shared.database", "shared.store"}),
        ("functions.login", {"shared.database", "shared.store.postgres", "shared.migrations"}),
        ("shared.accounts", {"shared.http", "shared.database", "shared.store.postgres"}),
        ("shared.tokens", {"shared.http", "shared.store", "shared.database", "shared.accounts"}),
        ("shared.express_sessions", set(IMPORTS) - {"shared.express_sessions"}),
        ("shared.store.batches", {"shared.transfer", "shared.http", "shared.accounts"}),
        ("shared.statistics", set(IMPORTS) - {"shared.statistics"}),
        ("shared.transfer.importing", {"shared.http", "shared.accounts", "shared.runtime"}),
        ("shared.bodies", {"shared.http", "shared.config", "shared.accounts"}),
        ("shared.problems", set(IMPORTS) - {"shared", "shared.errors"}),
        ("shared.origins", {"shared.http", "shared.accounts", "shared.store"}),
        ("shared.clients", set(IMPORTS) - {"shared.clients"}),
        ("shared.admin", {"shared.http", "shared.runtime", "shared.store", "shared.accounts"}),
        ("shared.identity", {"shared.http", "shared.config", "shared.store", "shared.accounts"}),
        (
            "shared.certificates",
            {"shared.identity", "shared.http", "shared.config", "shared.store"},
        ),
        ("shared.passwords", {"shared.http", "shared.store", "shared.accounts"}),
        (
            "shared.bulkhead",
            set(IMPORTS) - {"shared", "shared.bulkhead", "shared.errors", "shared.metrics"},
        ),
        ("shared.gate", {"shared.http", "shared.store", "shared.accounts", "shared.passwords"}),
        ("shared.throttling", set(IMPORTS) - {"shared.throttling", "shared.errors"}),
        (
            "shared.password_policy",
            set(IMPORTS) - {"shared.password_policy", "shared.errors", "shared.normal_forms"},
        ),
        ("shared.database", {"shared.http", "shared.store", "shared.accounts"}),
        ("shared.dialing", {"shared.database", "shared.config", "shared.store"}),
        (
            "shared.connection",
            {"shared.dialing", "shared.database", "shared.config", "shared.store"},
        ),
        ("shared.config", {"shared.http", "shared.store", "shared.database", "shared.log"}),
        ("shared.errors", set(IMPORTS) - {"shared.errors"}),
    ],
)
def test_nothing_reaches_upwards(module: str, forbidden: set[str]) -> None:
    assert module in IMPORTS
    assert not _reach(module) & forbidden


@pytest.mark.parametrize("entry_point", ["health", "login", "session"])
def test_without_key_pairs_nothing_is_loaded_that_reads_or_uses_them(entry_point: str) -> None:
    code = f"import sys, main; main.{entry_point}; main.runtime.tokens(); print(*sys.modules)"
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
    assert not loaded & {"google.auth", "shared.identity", "shared.admin"}


def test_a_probe_loads_neither_the_database_nor_the_password_hasher() -> None:
    heavy = {"shared.database", "shared.passwords", "shared.tokens", "shared.emails"}
    assert not _reach("main") & heavy
    assert not _reach("functions.health") & heavy


def test_a_deployment_knows_of_the_code_its_settings_only_and_nothing_knows_of_it() -> None:
    assert not any(name.startswith("deploy") for imports in IMPORTS.values() for name in imports)
    trees = [ast.parse(path.read_text()) for path in (ROOT / "deploy").glob("*.py")]
    used = {name for tree in trees for name in _imports(ast.walk(tree)) if name in IMPORTS}
    assert used <= {"shared.config", "shared.database_url", "shared.strict_json"}
