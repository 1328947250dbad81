"""Each command in a document is run as it stands there, or stands where the cloud is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import express
from tests.support.emulator import ROOT, environment, running_emulator
from tests.support.gcloud import parse
from tests.support.postgres import Server, free_port
from tests.support.transfers import user

ADMIN_TOKEN = "cnVuYm9va3Mgb2YgdGhlIHRlc3RzLCBub2JvZHkgZWxzZQ"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTED_ELSEWHERE = {"DEPLOY.md": "test_deploy_document.py", "README.md": "test_readme.py"}
_COMMAND = re.compile(r"(?:[A-Z_]+=\S+ +)*(?:make|curl|psql|gcloud|neonctl|openssl|export|pip) ")
_MAKE = """#!{python}
import os, signal, subprocess, sys, time, urllib.request
make = ["{make}", "-s", "-C", "{root}", "-o", ".venv/.runtime"]
arguments = sys.argv[1:]
if arguments == ["migrate"]:
    arguments.append("ARGS=--yes")  # Nobody is here to be asked.
if arguments != ["dev"]:
    os.execv(make[0], [*make, *arguments])
server = subprocess.Popen([*make, "dev"], start_new_session=True)
try:
    for _ in range(600):
        try:
            urllib.request.urlopen("http://127.0.0.1:" + os.environ["PORT"] + "/api/livez").close()
            break
        except OSError:
            time.sleep(0.05)
    else:
        sys.exit("make dev does not answer")
finally:
    os.killpg(server.pid, signal.SIGTERM)
    server.wait()
"""


def _blocks(document: Path, kind: str) -> list[str]:
    found = re.findall(rf"^( *)```{kind}\n(.*?)```", document.read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def _script(document: Path) -> str:
    """Join what the document has its reader type, in the order in which it stands there."""
    text = document.read_text()
    parts = []
    for indent, kind, block in re.findall(
        r"^( *)```(sh|console|sql)\n(.*?)```", text, re.DOTALL | re.MULTILINE
    ):
        block = re.sub(f"^{indent}", "", block, flags=re.MULTILINE)
        if kind == "console":
            block = "\n".join(re.findall(r"^\$ (.*)", block, re.MULTILINE))
        elif kind == "sql":
            # What a role of its own may do is tested in test_least_privilege.py.
            block = "" if "GRANT" in block else f"psql -q \"$DATABASE_URL\" <<'SQL'\n{block}SQL"
        parts.append(block)
    return "\n".join(parts)


@dataclass(frozen=True)
class Place:
    """Where a reader types: a folder, programs, and what the documents call by a name."""

    folder: Path
    env: dict[str, str]

    def run(self, document: Path) -> None:
        script = _script(document)
        for text, real in (
            ("postgresql://…", self.env["DATABASE_URL"]),
            ("/srv/old", str(self.folder)),
        ):
            script = script.replace(text, real)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-xc", script],
            cwd=self.folder, env=self.env, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.fixture
def place(
    postgres: Server, database: str, tmp_path: Path, curl_program: str, openssl_program: str
) -> Iterator[Place]:
    """A folder with an old server's users, a database, and a service."""
    assert curl_program
    assert openssl_program
    users_file = tmp_path / "users.json"
    users_file.write_text(json.dumps([user(1), user(2)]))
    shutil.copytree(ROOT / "tests" / "data" / "sources", tmp_path, dirs_exist_ok=True)
    express.install(postgres, database)
    programs = tmp_path / "bin"
    programs.mkdir()
    make = programs / "make"
    make.write_text(_MAKE.format(python=sys.executable, make=shutil.which("make"), root=ROOT))
    make.chmod(0o755)
    settings = {
        "DATABASE_URL": postgres.url(database),
        "USERS_FILE": str(users_file),
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "ENVIRONMENT": "development",
    }
    with running_emulator(**settings) as emulator:
        env = environment(**settings) | {
            "PATH": f"{programs}:{postgres.programs}:{os.environ['PATH']}",
            "PORT": str(free_port()),
            "URL": emulator.url,
            "USER_ID": "5a3c1f5e-8a7b-4f6e-9d2c-1b0a9f8e7d6c",
        }
        yield Place(tmp_path, env)


@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if path.name not in TESTED_ELSEWHERE and _script(path)],
    ids=lambda path: path.name,
)
def test_what_a_document_has_its_reader_type_works_in_its_order(
    document: Path, place: Place
) -> None:
    place.run(document)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_command_stands_where_no_test_looks(document: Path) -> None:
    text = re.sub(r"^ *```.*?```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in text.splitlines() if line.startswith("    ")]
    found = [line for line in lines if _COMMAND.match(line.strip().removeprefix("$ "))]
    if document.name == "README.md":  # Its own commands; most need a terminal or take minutes.
        found = [line for line in found if not re.search(r"\bmake [a-z-]+", line)]
    assert found == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_target_of_make_that_is_named_is_there(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|[`;&] ?|\$ |' )make (?:-s )?([a-z-]+)", document.read_text())
    assert set(named) <= targets


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if path.name != "DEPLOY.md"], ids=lambda path: path.name
)
def test_a_command_for_the_cloud_says_so_and_gcloud_has_its_flags(document: Path) -> None:
    for block in _blocks(document, "sh cloud"):
        commands = block.replace("\\\n", " ")
        for command in re.findall(r"^gcloud (.*)", commands, re.MULTILINE):
            parse(re.findall(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""", command))
        assert re.search("gcloud|neonctl", commands)
