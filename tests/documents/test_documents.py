"""The documents speak of files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.emulator import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_points_to_is_there(document: Path) -> None:
    text = document.read_text()
    named = set(re.findall(r"`((?:tests|shared|functions|bench|migrations|docs)/[\w/.-]+)`", text))
    linked = set(re.findall(r"\]\((?!https?:)([^)#]+)", text))
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [name for name in linked if not (document.parent / name).exists()] == []
