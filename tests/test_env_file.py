"""A file of settings is read as people write it, or refused with its line: nothing is cut off."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared import env_file
from shared.settings import Settings
from tests.support.emulator import ROOT

URL = "postgresql://u:p@ep-x-pooler.neon.tech/db?sslmode=require&channel_binding=require"


@pytest.mark.parametrize(
    "written",
    [
        f"X={URL}", f"X='{URL}'", f'X="{URL}"', f"export X={URL}", f"export X='{URL}'",
        f"X = {URL}", f"X= {URL} ", f"\tX ='{URL}'", f"X={URL}  # Neon's", f"X='{URL}' # pooled",
        f"\ufeffX={URL}", f"# first\n\nX={URL}\n", f"X={URL}\r\n", f"Y=1\rX={URL}\r",
    ],
)  # fmt: skip
def test_a_url_is_whole_however_it_is_written(written: str) -> None:
    found = env_file.parse(written.encode())
    assert (found.values["X"], found.problems) == (URL, [])


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("X=", ""),
        ("X=    # openssl rand -base64 48", ""),
        ("X=''", ""),
        ("X=#abc", "#abc"),
        ("X=a#b;c|d(e)<f>'g\"h", "a#b;c|d(e)<f>'g\"h"),
        ("X=Ada Lovelace # a person", "Ada Lovelace"),
        ("X='a$b`c #d\\n'", "a$b`c #d\\n"),
        (r'X="a\$b\`c\"d\\e"', 'a$b`c"d\\e'),
        ('X="line 1\\nline 2"', "line 1\nline 2"),
        ("X='line 1\nline 2\r\n'", "line 1\nline 2\n"),
        ("X=C:\\users\\file", "C:\\users\\file"),
        ("X=zwölf", "zwölf"),
    ],
)
def test_a_value_is_what_the_line_says(written: str, value: str) -> None:
    found = env_file.parse(f"{written}\nY=1\n".encode())
    assert (found.values, found.problems) == ({"X": value, "Y": "1"}, [])


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        (b"X=pa$word", "line 1: X has a $: the file is read, not run."),
        (b'X="$(cat key.pem)"', "line 1: X has a $"),
        (b"X=`hostname`", "line 1: X has a `"),
        (b"Y=1\nX='open", "line 2: X has a quote that is not closed"),
        (b"X='open\nY='1'\n", "line 1: X has a quote that is not closed"),
        (b'X="open\nDATABASE_URL=1\n# end"\n', "line 1: X has a quote that is not closed"),
        (b"X='a'b", "line 1: X has text after its closing quote"),
        ("X=“a”".encode(), "line 1: X has curly quotes"),
        ("X=a\u200bb".encode(), "line 1: X has an invisible character"),
        (b"X=a\x00b", "line 1: X has an invisible character"),
        (b"X=a\\\nY=1", "line 1: X ends in a backslash"),
        (b"X=1\n\n# c\nX=2", "line 4: X stands in line 1 already"),
        (b"just words", "line 1: is not NAME=value"),
        (b"X: 1", "line 1: is not NAME=value"),
        (b"export X", "line 1: is not NAME=value"),
        (b"=secret", "line 1: is not NAME=value"),
        (b"Y=1\nX=\xff", "line 2: is not UTF-8"),
        ("X=1".encode("utf-16"), "line 1: is not UTF-8"),
    ],
)
def test_what_programs_read_in_different_ways_is_refused_with_its_line_and_no_value(
    written: bytes, sentence: str
) -> None:
    (shown,) = env_file.explain(Path(".env"), env_file.parse(written))
    assert f".env, {sentence}" in shown
    assert not re.search(r"pa\$word|hostname|key\.pem|open|secret", shown)


def test_every_line_that_cannot_be_used_is_named_and_the_others_are_read() -> None:
    found = env_file.parse(b"A=$x\nB=1\nC='\nD=2\n")
    assert [problem.line for problem in found.problems] == [1, 3]
    assert found.values == {"B": "1", "D": "2"}


@pytest.mark.parametrize(
    ("written", "at"),
    [
        (f"X={URL}", "&"), ("X=a;b", ";"), ("X=a b", "a space"), ("X = a", "the space beside ="),
        ("X= 'a'", "the space beside ="), ("X='a&b'", None), ("X=a#b", None), ("X=   # c", None),
    ],
)  # fmt: skip
def test_where_a_shell_would_cut_a_value_off_is_known(written: str, at: str | None) -> None:
    assert env_file.parse(written.encode()).shell_cuts.get("X") == at


def test_the_example_can_be_used_line_by_line() -> None:
    text = (ROOT / ".env.example").read_text()
    lines = re.sub(r"^# (?=[A-Z_]+=)", "", text, flags=re.MULTILINE)
    found = env_file.parse(lines.encode())
    assert found.problems == []
    assert found.values.keys() <= Settings.names()
    assert len(found.values) > 40
    assert found.values["SESSION_SECRET"] == ""
    assert "&channel_binding=require" in found.values["DATABASE_URL"]


class Tree:
    """A folder with the Makefile and a Python that shows the environment it is started with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        python = folder / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", folder)
        python.write_text(
            f"""#!/bin/sh
[ "$2" = shared.env_file ] ||
    exec {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'
PYTHONPATH={ROOT} exec {sys.executable} "$@"
"""
        )
        python.chmod(0o755)

    def make(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "-s", "-o", ".venv/.runtime", *words], cwd=self.folder,
            env={"PATH": os.environ["PATH"]} | env, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("target", "file"),
    [("migrate-status", ".env"), ("export", ".env"), ("deploy", ".env.production")],
)
def test_each_target_of_make_reads_the_file_by_one_rule_and_the_environment_wins(
    tree: Tree, target: str, file: str
) -> None:
    canary = tree.folder / "canary"
    (tree.folder / file).write_text(
        f"DATABASE_URL={URL}\nUSERS_FILE = a 'b'; touch {canary}\nFALLBACK=off\nPORT=\nX='a\nb'\n"
    )
    done = tree.make(target, FALLBACK="full", LC_ALL="C")
    seen = json.loads(done.stdout)
    assert seen["DATABASE_URL"] == URL
    assert seen["USERS_FILE"] == f"a 'b'; touch {canary}"
    assert (seen["FALLBACK"], seen["X"]) == ("full", "a\nb")
    assert not canary.exists()


@pytest.mark.parametrize("target", ["dev", "migrate", "migrate-schema", "snapshot", "deploy"])
def test_make_starts_nothing_with_a_file_that_cannot_be_read(tree: Tree, target: str) -> None:
    file = ".env.production" if target == "deploy" else ".env"
    (tree.folder / file).write_text("DATABASE_URL=postgresql://u:pa$word@h/d\nX='\n")
    done = tree.make(target)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file}, line 1: DATABASE_URL has a $" in done.stderr
    assert f"{file}, line 2: X has a quote that is not closed" in done.stderr
    assert "word" not in done.stderr


def test_a_deployment_reads_the_file_that_is_named(tree: Tree) -> None:
    (tree.folder / "of my own.env").write_text("PROJECT='from the file'\n")
    seen = json.loads(tree.make("deploy", "PRODUCTION=of my own.env").stdout)
    assert seen["PROJECT"] == "from the file"


def test_a_file_that_is_named_must_be_there_and_the_usual_one_need_not(tree: Tree) -> None:
    assert tree.make("deploy").returncode == 0
    done = tree.make("deploy", "PRODUCTION=.env.porduction")
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no file .env.porduction." in done.stderr
    (tree.folder / ".env").mkdir()
    done = tree.make("export")
    assert done.returncode == 2
    assert ".env cannot be read: Is a directory." in done.stderr
