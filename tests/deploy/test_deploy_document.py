"""docs/DEPLOY.md: its commands are run, or their flags checked where they need the cloud."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.deployments import revision, set_revisions
from tests.support.emulator import ROOT, running_emulator
from tests.support.gcloud import Gcloud, parse
from tests.support.postgres import Server

DOCUMENT = (ROOT / "docs/DEPLOY.md").read_text()


def _blocks(kind: str) -> list[str]:
    found = re.findall(rf"^ *```{kind}\n(.*?)```", DOCUMENT, re.DOTALL | re.MULTILINE)
    return [line.strip() for block in found for line in block.splitlines() if line.strip()]


COMMANDS = _blocks("sh")
IN_THE_CLOUD = _blocks("sh cloud")


def test_every_command_that_needs_no_cloud_is_run_with_the_settings_file_of_the_first_step(
    gcloud: Gcloud, tmp_path: Path, postgres: Server, make_database: Callable[..., str]
) -> None:
    production = tmp_path / "production"
    production.write_text("\n".join(_blocks("ini")))
    make = gcloud.folder / "bin" / "make"
    make.write_text(
        f"#!/bin/sh\nexec {shutil.which('make')} -s -o .venv/.runtime "
        f'PRODUCTION={os.path.relpath(production, ROOT)} "$@"\n'
    )
    make.chmod(0o755)
    with running_emulator(DATABASE_URL=postgres.url(make_database())) as emulator:
        for command in COMMANDS:
            set_revisions(gcloud, "a-2", revision("a-1", 1), revision("a-2", 2))
            if "rollback" not in command:
                gcloud.say("run services describe", emulator.url)
            done = gcloud.run_program(["/bin/sh", "-c", command], {})
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            assert "Warning" not in done.stderr
            shown = [line for line in done.stdout.splitlines() if line.startswith("gcloud ")]
            for line in shown:
                parse(shlex.split(line)[1:])
            writes = gcloud.called("run deploy") + gcloud.called("run services update-traffic")
            assert shown
            assert "DRY_RUN=1" not in command or not writes
        done = gcloud.run_program(["/bin/sh", "-c", f"make smoke URL={emulator.url}"], {})
        assert done.returncode == 0, done.stderr
    assert {"make deploy", "make deploy DRY_RUN=1", "make rollback"} <= set(COMMANDS)


@pytest.mark.parametrize("command", IN_THE_CLOUD)
def test_a_command_for_the_cloud_has_only_flags_that_gcloud_has(command: str) -> None:
    words = shlex.split(command, comments=True)
    gclouds = re.findall(r"gcloud (?:[^()|#]|\([^()]*\))*", command)
    assert bool(gclouds) != (words[0] == "docker")
    for text in gclouds:
        parse(shlex.split(text)[1:])


def test_a_command_within_a_sentence_has_only_flags_that_gcloud_has() -> None:
    inline = re.findall(r"`gcloud ([a-z]+ [^`]*)`", DOCUMENT)
    assert "run services proxy" in inline
    for text in inline:
        words = shlex.split(text)
        parse(words if "…" in words or "--" in text else [*words, "a-name"])


_NOT_THE_SERVICES = {
    "/": "the front end's",
    "/sign-in.js": "of that page",
    "/mail": "development's",
}


def test_hosting_sends_every_path_of_the_service_to_it_and_no_other() -> None:
    import main

    (text,) = re.findall(r"^```json\n(.*?)```", DOCUMENT, re.DOTALL | re.MULTILINE)
    rewrites = json.loads(text)["hosting"]["rewrites"]
    sources = [rewrite["source"].replace("**", "*") for rewrite in rewrites]
    paths = {*main.ROUTES, *main.PAGES}
    sent = {path for path in paths if any(fnmatch.fnmatch(path, source) for source in sources)}
    assert paths - sent == {*_NOT_THE_SERVICES}
    assert [source for source in sources if not fnmatch.filter(paths, source)] == []
    assert {rewrite["run"]["serviceId"] for rewrite in rewrites} == {"ai-coder-auth"}


def test_the_document_names_the_limits_and_roles_that_are_deployed() -> None:
    from deploy.services import ADMIN, ADMIN_SECRET, API, Place

    place = Place(project="p", region="r")
    for text in (f"CPU={place.cpu}", f"MEMORY={place.memory}", f"CONCURRENCY={place.concurrency}"):
        assert f"`{text}`" in DOCUMENT
    assert f"`MAX_INSTANCES={place.max_instances}`" in DOCUMENT
    row = next(line for line in DOCUMENT.splitlines() if line.startswith(f"| `{API.account}@`"))
    assert set(re.findall(r"`([A-Z_]+)`", row)) == set(API.secrets)
    assert {*ADMIN.secrets} - {*API.secrets} == {ADMIN_SECRET}
