"""How the tests stand to each other."""

from __future__ import annotations

import ast
import re

from tests.support.emulator import ROOT


def test_no_test_imports_another() -> None:
    imports = [
        (path.name, f"{getattr(node, 'module', '')}.{alias.name}")
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert [pair for pair in imports if re.search(r"\btests\.(.+\.)?test_", pair[1])] == []
