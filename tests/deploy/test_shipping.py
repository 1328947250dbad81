"""What is shipped to Google's builder, or into an image: enough to serve, and nothing else."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from deploy.commands import SOURCE_DATE_EPOCH
from tests.support.emulator import ROOT, environment, running_emulator
from tests.support.postgres import free_port

NEEDED = ("main.py", "requirements.txt", "functions/", "shared/", "migrations/")
NEVER = (
    ".env", ".env.production", ".data/users.json", ".data/session-secret", ".venv/pyvenv.cfg",
    "session-key.pem", "users.backup.20261122T150000Z.json", "tests/canary.py", "bench/canary.py",
    "docs/canary.md", "deploy/canary.py", ".git/config", "pyproject.toml", "Makefile",
    "shared/__pycache__/settings.cpython-311.pyc", "functions/__pycache__/canary.pyc",
)  # fmt: skip


def _tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for path in done.stdout.splitlines() if (ROOT / path).is_file()]


TRACKED = _tracked()
SHIPPED = sorted(path for path in TRACKED if path.startswith(NEEDED))


def _by_gitignore(tree: Path) -> list[str]:
    """Let git say what its own syntax leaves, which is that of .gcloudignore."""
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    done = subprocess.run(
        ["git", "ls-files", "--others", f"--exclude-from={ROOT / '.gcloudignore'}"],
        cwd=tree, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def _by_dockerignore(tree: Path) -> list[str]:
    """Apply Docker's rules: the last pattern counts that fits a path or a folder above it."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    left = []
    for file in tree.rglob("*"):
        path = file.relative_to(tree)
        if file.is_dir():
            continue
        places = [path, *path.parents][:-1]
        is_out = False
        for pattern in patterns:
            wanted = _expression(pattern.removeprefix("!"))
            if any(wanted.fullmatch(str(place)) for place in places):
                is_out = not pattern.startswith("!")
        if not is_out:
            left.append(str(path))
    return left


def _expression(pattern: str) -> re.Pattern[str]:
    """Read `**/` as any folders, and other stars as within one name."""
    deep, _, rest = pattern.rpartition("**/")
    assert deep == ""
    name = fnmatch.translate(rest).replace(".*", "[^/]*")
    return re.compile(f"(?:.*/)?{name}" if "**/" in pattern else name)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The project's files, and what may lie around in a developer's folder."""
    folder = tmp_path / "tree"
    for path in TRACKED:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)
    for path in NEVER:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    return folder


def test_what_gcloud_ships_is_what_is_named_and_needed(tree: Path) -> None:
    shutil.rmtree(tree / ".git")
    left = _by_gitignore(tree)
    assert sorted(left) == SHIPPED
    assert not set(left) & set(NEVER)


def test_what_docker_sees_is_the_same(tree: Path) -> None:
    assert sorted(_by_dockerignore(tree)) == SHIPPED


def _ship(folder: Path) -> Path:
    for path in SHIPPED:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)
    return folder


def _run(folder: Path, code: str, *options: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=folder, env=environment() | env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_the_shipped_files_alone_serve(tmp_path: Path) -> None:
    source = str(_ship(tmp_path) / "main.py")
    with running_emulator(source=source, USERS_FILE=str(tmp_path / "u.json")) as emulator:
        assert httpx.get(f"{emulator.url}/api/livez", trust_env=False).json()["status"] == "OK"
        with emulator.client() as client:
            user = {"email": "ada@example.com", "password": "correct horse battery"}
            assert client.post("/api/signup", json=user).status_code == 201


EVERYTHING = """
import json, pkgutil, sys, functions, shared, functions_framework, gunicorn.app.base
for package in (functions, shared):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name != "shared.transfer.__main__":
            __import__(module.name)
import main
from importlib.metadata import packages_distributions
assert "google.protobuf" not in sys.modules  # of the same namespace as google.auth
known = packages_distributions() | {"google": ["google-auth"]}
top = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted({d for name in top for d in known.get(name, [])})))
"""


def test_every_module_gets_along_with_the_packages_of_requirements_txt(tmp_path: Path) -> None:
    files = (ROOT / "requirements.txt", ROOT / "requirements-redis.txt")
    lines = "\n".join(path.read_text() for path in files).lower().replace("_", "-")
    pinned = set(re.findall(r"^([a-z0-9-]+)==", lines, re.MULTILINE))
    loaded = json.loads(_run(_ship(tmp_path), EVERYTHING))
    needed = {name.lower().replace("_", "-") for name in loaded}
    # redis loads OpenTelemetry where somebody else has installed it.
    needed = {name for name in needed if not name.startswith("opentelemetry")}
    assert {"flask", "redis"} <= needed
    # And a package of its own on a Python before 3.11.3.
    assert needed <= pinned | {"setuptools", "pip", "async-timeout"}


@pytest.mark.parametrize(("epoch", "is_valid"), [(SOURCE_DATE_EPOCH, True), ("", False)])
def test_bytecode_outlives_the_builders_touch_only_with_source_date_epoch(
    tmp_path: Path, epoch: str, is_valid: bool
) -> None:
    """As Google's builder does it: compile, then set every file's time to 1980."""
    folder = _ship(tmp_path)
    subprocess.run(
        [sys.executable, "-m", "compileall", "-f", "-q", "."],
        cwd=folder, env=environment(SOURCE_DATE_EPOCH=epoch), check=True,
    )  # fmt: skip
    for path in folder.rglob("*"):
        os.utime(path, (315532801, 315532801))
    before = {path: path.read_bytes() for path in folder.rglob("*.pyc")}
    _run(folder, "import main; main.login", PYTHONDONTWRITEBYTECODE="")
    rewritten = {
        path.name.partition(".")[0] for path in before if path.read_bytes() != before[path]
    }
    assert (rewritten == set()) == is_valid
    assert is_valid or {"main", "settings", "login"} <= rewritten


DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()


def test_there_is_no_dockerfile_where_gcloud_would_take_it_for_the_build() -> None:
    assert not (ROOT / "Dockerfile").exists()


def test_the_image_is_small_and_runs_as_nobody() -> None:
    build, final = re.split(r"^FROM .*$", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"python:3.13-slim"}
    assert "compileall" in build
    assert "pip" not in final
    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", final, re.MULTILINE)
    assert "SECRET" not in DOCKERFILE


def test_the_images_command_serves_on_port_and_its_health_check_tells(tmp_path: Path) -> None:
    health, command = re.findall(r"CMD (\[.*\])", DOCKERFILE)
    port = str(free_port())
    env = environment(USERS_FILE=str(tmp_path / "u.json"), PORT=port)
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    folder = _ship(tmp_path / "app")
    check = json.loads(health)
    assert subprocess.run(check, env=env, capture_output=True, check=False).returncode != 0
    with subprocess.Popen(json.loads(command), cwd=folder, env=env, start_new_session=True) as run:
        try:
            codes: list[int] = []
            while not codes or (codes[-1] and len(codes) < 60):
                done = subprocess.run(check, env=env, capture_output=True, check=False)
                codes.append(done.returncode)
            assert codes[-1] == 0
        finally:
            os.killpg(run.pid, 15)


def test_the_images_build_steps_work_but_for_the_installing(tmp_path: Path) -> None:
    folder = _ship(tmp_path)
    compiling = [
        line for line in DOCKERFILE.splitlines() if line.startswith("RUN /venv/bin/python")
    ]
    (words,) = (line.removeprefix("RUN /venv/bin/python ").split() for line in compiling)
    subprocess.run([sys.executable, *words], cwd=folder, check=True)
    for path in folder.rglob("*.pyc"):
        assert path.read_bytes()[4:8] == b"\x01\0\0\0", "a hash that nobody checks (PEP 552)"
