"""Users of other systems over HTTP: a form of their files, moved whole and taken back."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.adapted import FILES
from tests.support.emulator import Emulator, running_emulator
from tests.support.mails import in_folder
from tests.support.other_systems import CASES, KEY, PASSWORD, Case
from tests.support.postgres import Server
from tests.support.transfers import HASH, Target, user
from tests.support.waiting import until

TOKEN = "QWRtaW4gb2YgdGhlIHRlc3RzLCBub2JvZHkgZWxzZSBhdCBhbGw"
Lines = list[dict[str, Any]]
FIREBASE = CASES[0]


@pytest.fixture(scope="module")
def target(postgres: Server, make_database: Callable[..., str]) -> Target:
    return Target(postgres, make_database())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service keeps what is uploaded."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it writes mails."""
    return tmp_path_factory.mktemp("users") / "mail"


@pytest.fixture(scope="module")
def served(target: Target, folder: Path, mails: Path) -> Iterator[Emulator]:
    with running_emulator(
        ENVIRONMENT="development",
        USERS_FILE=str(mails.with_name("users.json")),
        ADMIN_TOKEN=TOKEN,
        DATABASE_URL=target.server.url(target.name),
        ENCRYPTION_KEY=KEY,
        PASSWORD_PEPPERS="synthetic-pepper",
        TMPDIR=str(folder),
    ) as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def _empty(target: Target) -> None:
    target.run("TRUNCATE users, identities, import_batches, import_records")


@pytest.fixture(autouse=True)
def _nothing_is_left(folder: Path) -> Iterator[None]:
    yield
    assert not list(folder.iterdir())


def _files(case: Case) -> dict[str, Any]:
    """Give the fields and files of a form, as the options of the command line have them."""
    form: dict[str, Any] = {"users": (FILES / case.file).read_bytes()}
    for option, value in zip(case.options[::2], case.options[1::2], strict=True):
        path = FILES / value
        name = option.removeprefix("--").replace("-", "_")
        form[name] = path.read_bytes() if path.is_file() else value
    return form


def _post(emulator: Emulator, form: dict[str, Any], **options: Any) -> httpx.Response:
    parts = {
        name: (f"{name}.export", value) if isinstance(value, bytes) else (None, value)
        for name, value in form.items()
    }
    with emulator.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        return client.post("/api/migrate", files=parts, timeout=60, **options)


def _send(emulator: Emulator, form: dict[str, Any], **fields: str) -> Lines:
    answer = _post(emulator, form | fields)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def _sentences(lines: Lines) -> list[str]:
    return [line["sentence"] for line in lines if line["event"] == "notice"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_a_file_of_each_system_is_recognised_moved_and_taken_back(
    case: Case, served: Emulator, target: Target
) -> None:
    form, people = _files(case), len([*case.hashed, *case.others])
    lines = _send(served, form, action="plan")
    planned = lines[-1]
    assert _sentences(lines)[0].startswith("The file is taken for ")
    assert (planned["system"], planned["counts"]["new"]) == (case.system, people)
    assert sorted(planned["left_behind"]) == sorted(case.left)
    assert not target.users()
    form |= {"from": case.system}
    *_, applied = _send(served, form, action="apply", plan=planned["plan"])
    assert len(target.users()) == people
    lines = _send(served, form, action="verify")
    assert (lines[-1]["differing"], lines[-1]["counts"]["identical"]) == (0, people)
    assert "example.com" not in json.dumps(lines)
    *_, done = _send(served, {}, action="rollback", batch=applied["batch"])
    assert done["counts"]["removed"] == people
    assert not target.users()


def test_who_came_by_http_logs_in_with_the_password_of_the_old_system(served: Emulator) -> None:
    _send(served, _files(FIREBASE), action="apply")
    with served.client() as client:
        answer = client.post("/api/login", json={"email": "ada@example.com", "password": PASSWORD})
    assert answer.status_code == 200


def test_a_known_password_is_verified_before_anything_is_written(
    served: Emulator, target: Target
) -> None:
    form = _files(FIREBASE) | {"action": "apply", "check": "ada@example.com"}
    refused = _post(served, form | {"password": "another"})
    assert refused.status_code == 409
    assert "This is not the password of a…@example.com" in refused.json()["error"]
    wrong = (FILES / "firebase-hash-config.txt").read_text().replace("rounds: 8", "rounds: 7")
    refused = _post(served, form | {"password": PASSWORD, "hash_config": wrong.encode()})
    assert refused.status_code == 409
    assert not target.users()
    lines = _send(served, form, password=PASSWORD)
    assert "The password of a…@example.com is verified by the hash" in _sentences(lines)[-1]
    assert len(target.users()) == 3
    refused = _post(served, form | {"password": PASSWORD, "check": "bob@example.com"})
    assert "b…@example.com comes without a password's hash: check" in refused.json()["error"]
    for text in (PASSWORD, "ada@example.com"):
        assert text not in served.output()


def test_a_hash_that_stays_behind_is_not_checked_and_the_reason_is_told(
    served: Emulator,
) -> None:
    form = {"users": _files(FIREBASE)["users"], "check": "ada@example.com", "password": PASSWORD}
    refused = _post(served, form | {"action": "plan"}).json()["error"]
    assert "(password hash left behind: --hash-config is not given): check somebody" in refused


def test_a_key_that_no_hash_needs_is_told_before_the_result(served: Emulator) -> None:
    users = json.dumps([{"email": "ada@example.com", "password": HASH}]).encode()
    form = {"users": users, "from": "json", "hash_config": _files(FIREBASE)["hash_config"]}
    *_, notice, result = _send(served, form, action="plan")
    assert result["event"] == "result"
    assert notice["sentence"].startswith("No hash in the file needs the key of --hash-config")


def test_a_line_end_behind_a_secret_is_none_of_it_and_another_encoding_is_refused(
    served: Emulator,
) -> None:
    form = _files(FIREBASE) | {"action": "plan", "check": "ada@example.com"}
    for end in ("\n", "\r\n"):
        lines = _send(served, form, password=PASSWORD + end)
        assert "is verified by the hash" in _sentences(lines)[-1]
    assert _post(served, form | {"password": f"{PASSWORD}\n\n"}).status_code == 409
    body = b'--b\r\nContent-Disposition: form-data; name="pepper"\r\n\r\n\xe9\r\n--b--\r\n'
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "multipart/form-data; boundary=b",
    }
    with served.client(headers=headers) as client:
        answer = client.post("/api/migrate", content=body)
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "The form's pepper is not in UTF-8",
    )


def test_a_file_without_a_header_is_told_without_what_is_in_it(served: Emulator) -> None:
    table = f"ada@example.com,{HASH}\n"
    form = {"from": "csv", "map": "email=mail,password=pw", "action": "plan"}
    for rows in (1, 2):
        answer = _post(served, form | {"users": (table * rows).encode()})
        assert answer.status_code == 400
        assert "Its first line has no names of columns." in answer.json()["error"]
        assert "example.com" not in answer.text
        assert HASH not in answer.text
    models = [{"model": "ada@example.com", "pk": 1, "fields": {}}]
    answer = _post(
        served, {"from": "django", "action": "plan", "users": json.dumps(models).encode()}
    )
    assert answer.status_code == 400
    assert "example.com" not in answer.text


def test_a_wrong_password_does_not_even_make_a_table(postgres: Server) -> None:
    postgres.run("CREATE DATABASE untouched OWNER app")
    url = postgres.url("untouched")
    with running_emulator(ADMIN_TOKEN=TOKEN, DATABASE_URL=url) as fresh:
        form = _files(FIREBASE) | {"check": "ada@example.com", "password": "another"}
        assert _post(fresh, form | {"action": "apply"}).status_code == 409
    tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert postgres.run(tables, "untouched") == [[0]]


def test_files_of_an_instance_that_was_killed_go_with_the_next_form(
    target: Target, tmp_path: Path
) -> None:
    variables = {"ADMIN_TOKEN": TOKEN, "DATABASE_URL": target.server.url(target.name)}
    variables["TMPDIR"] = str(tmp_path)
    with running_emulator(**variables) as emulator:
        host, port = emulator.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                b"POST /api/migrate HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
                + TOKEN.encode()
                + b"\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 200000\r\n"
                b'\r\n--b\r\nContent-Disposition: form-data; name="users"; filename="x"\r\n\r\n'
                + b"x"
                * 100_000
            )
            until(lambda: list(tmp_path.glob("auth-form-*/*")))
            (folder,) = tmp_path.iterdir()
            assert [it.stat().st_mode & 0o077 for it in (folder, *folder.iterdir())] == [0, 0]
            _send(emulator, {}, action="status")
            assert folder.exists(), "it is in use"
            os.kill(emulator.worker, signal.SIGKILL)
    os.utime(folder, (0, 0))
    with running_emulator(**variables) as emulator:
        _send(emulator, {}, action="status")
    assert not list(tmp_path.iterdir())


def test_without_it_the_answer_warns(served: Emulator) -> None:
    lines = _send(served, _files(FIREBASE), action="plan")
    assert _sentences(lines)[-1].startswith("No password was checked, and a wrong key, pepper")


def test_a_table_of_ones_own_comes_by_a_mapping_with_the_service_s_own_pepper(
    served: Emulator, target: Target
) -> None:
    table = (
        b"mail,secret\nada@example.com,$2a$10$"
        b"N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy\n"
    )
    form = {"users": table, "from": "csv", "map": "email=mail,password=secret", "hash": "devise"}
    *_, done = _send(served, form, action="apply", pepper="synthetic-pepper")
    assert done["counts"]["new"] == 1
    ((stored,),) = target.psql("SELECT password FROM users")
    assert "devise" in stored or "pepper" in stored


def test_our_own_users_come_in_a_form_as_well(served: Emulator, target: Target) -> None:
    lines = _send(served, {"users": json.dumps([user(1), user(2)]).encode()}, action="apply")
    assert not _sentences(lines)
    assert len(target.users()) == 2


def test_a_rejected_row_is_told_by_its_number_and_without_an_address(
    served: Emulator, target: Target
) -> None:
    rows = [{"pk": 1, "email": "ada@example.com"}, {"pk": 2, "email": "no address"}]
    users = [
        {"model": "auth.user", "pk": row["pk"], "fields": {"email": row["email"], "password": HASH}}
        for row in rows
    ]
    form = {"users": json.dumps(users).encode(), "from": "django", "action": "apply"}
    lines = _send(served, form)
    assert (lines[-1]["code"], lines[-1]["status"]) == ("rows_rejected", 409)
    *_, outcome, done = [
        it
        for it in _send(served, form, skip_invalid="true")
        if it["event"] in ("outcome", "result")
    ]
    assert (outcome["row"], outcome["verdict"], done["counts"]["new"]) == (2, "invalid", 1)
    assert "no address" not in json.dumps([outcome, done])
    assert len(target.users()) == 1


def test_who_has_no_hash_is_invited_by_mail_over_http_as_well(
    served: Emulator, target: Target, mails: Path
) -> None:
    cognito = next(case for case in CASES if case.system == "cognito")
    *_, done = _send(served, _files(cognito), action="apply")
    assert done["without_password"] == 1
    *_, counted = _send(served, {}, action="invite", limit="0")
    assert (counted["invited"], counted["left"]) == (0, 1)
    assert target.run("SELECT count(*) FROM mail_outbox") == [[0]]
    with served.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        answer = client.post("/api/migrate", json={"action": "invite", "limit": 5})
    assert (answer.json()["invited"], answer.json()["left"]) == (1, 0)
    until(lambda: in_folder(mails))
    assert in_folder(mails)[-1]["Subject"] == "Choose a password for AI-Coder"
    for limit in ("", "-1", "1e3", "10000000", "two"):
        assert _post(served, {"action": "invite", "limit": limit}).status_code == 400


@pytest.mark.parametrize(
    ("form", "status", "sentence"),
    [
        ({"plan": "x"}, 400, "The action must be one of"),
        ({"action": "plan"}, 400, "The form has no file users: curl -F users=@FILE"),
        ({"action": "plan", "users": "[]"}, 400, "and the files users, hash_config,"),
        ({"action": b"plan", "users": b"[]"}, 400, "The form may have the fields action,"),
        ({"action": "plan", "user": b"[]"}, 400, "The form may have the fields action,"),
        ({"action": "status", "users": b"[]"}, 400, "Only plan, apply, verify take users"),
        ({"action": "rollback", "batch": "b", "from": "auth0"}, 400, "Only plan, apply, verify"),
        ({"action": "plan", "users": b""}, 400, "The file users is empty."),
        ({"action": "plan", "users": b"\x1f\x8b\x08"}, 400, "it is compressed; unpack it first"),
        ({"action": "plan", "users": b"[]", "from": "nowhere"}, 400, "--from is none of"),
        ({"action": "plan", "users": b"[]", "hash": "md5"}, 400, "--hash is none of devise"),
        ({"action": "plan", "users": b"[]", "instance": "A B"}, 400, "--instance is a name of"),
        ({"action": "plan", "users": b"[]", "check": "a@b"}, 400, "check and password belong"),
        ({"action": "plan", "users": b"[]", "model": "x"}, 400, "The file is taken for a users"),
        ({"action": "apply", "users": b"[]", "skip_invalid": "yes"}, 400, "must be true or false"),
        ({"action": "plan", "project": "x" * 300_000, "users": b"[]"}, 413, "too long fields"),
        (
            {"action": "plan", "users": b'[{"localId": "1"}]', "hash_config": b"nothing"},
            400,
            "hash_config is not Firebase's hash parameters",
        ),
    ],
)
def test_a_form_that_is_wrong_is_refused_with_a_sentence(
    form: dict[str, Any], status: int, sentence: str, served: Emulator
) -> None:
    answer = _post(served, form)
    assert answer.status_code == status, answer.text
    assert sentence in answer.json()["error"]
    assert "/auth-form-" not in answer.text


def test_a_field_that_comes_twice_is_refused(served: Emulator) -> None:
    parts: Any = [("action", (None, "plan")), ("users", ("a", b"[]")), ("users", ("b", b"[]"))]
    with served.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        answer = client.post("/api/migrate", files=parts)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
    assert "each once" in answer.json()["error"]


def test_a_form_takes_no_options_of_the_query(served: Emulator) -> None:
    answer = _post(served, {"users": b"[]"}, params={"action": "plan"})
    assert answer.status_code == 400
    assert "are its fields, not the query" in answer.json()["error"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"no boundary is named"),
        ("multipart/form-data; boundary=b", b"no part is there"),
        ("multipart/form-data; boundary=b", b"--b\r\nno header\r\n\r\nx\r\n--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="users"; filename="x"\r\n\r\n[{"broken',
        ),
        ("multipart/form-data; boundary=\xe9", b"--b--"),
        ("multipart/form-data; boundary=b", b"--b--\r\n"),
    ],
)
def test_a_body_that_is_no_form_is_refused(
    content_type: str, body: bytes, served: Emulator, target: Target
) -> None:
    headers = [
        (b"Authorization", f"Bearer {TOKEN}".encode()),
        (b"Content-Type", content_type.encode("latin-1")),
    ]
    with served.client() as client:
        answer = client.post("/api/migrate", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert not target.users()


def test_a_form_of_nobody_is_not_read(served: Emulator) -> None:
    with served.client() as client:
        answer = client.post("/api/migrate", files={"users": ("x", b"[]")})
    assert answer.status_code == 401


def test_a_form_of_nine_megabytes_is_not_held_in_memory(served: Emulator, target: Target) -> None:
    def form(number: int) -> dict[str, Any]:
        rows = (json.dumps(user(n, name="x" * 250)) + "\n" for n in range(number))
        return {"users": "".join(rows).encode(), "action": "apply"}

    _send(served, form(1000))
    before = served.peak_memory()
    large = form(20_000)
    assert len(large["users"]) > 9_000_000
    *_, done = _send(served, large)
    assert done["counts"]["new"] == 19_000
    assert served.peak_memory() - before < 6_000_000


def test_a_form_for_which_there_is_no_space_is_refused_and_leaves_nothing(
    served: Emulator, target: Target
) -> None:
    users = json.dumps([user(1), {"name": "x" * 3_000_000}]).encode()
    limits = resource.prlimit(served.worker, resource.RLIMIT_FSIZE)
    resource.prlimit(served.worker, resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
    try:
        answer = _post(served, {"users": users, "action": "apply"})
    finally:
        resource.prlimit(served.worker, resource.RLIMIT_FSIZE, limits)
    assert (answer.status_code, answer.json()["code"]) == (507, "no_space")
    assert not target.users()


def test_joins_for_which_there_is_no_space_are_told_as_well(
    served: Emulator, target: Target
) -> None:
    ids = [f"auth0|{number:024x}" for number in range(40_000)]
    users = "".join(json.dumps({"user_id": it, "identities": []}) + "\n" for it in ids[:9])
    hashes = "".join(
        json.dumps({"_id": {"$oid": it[6:]}, "passwordHash": HASH}) + "\n" for it in ids
    )
    form = {"users": users.encode(), "passwords": hashes.encode(), "from": "auth0"}
    limits = resource.prlimit(served.worker, resource.RLIMIT_FSIZE)
    size = max(map(len, (users, hashes))) + 100_000
    resource.prlimit(served.worker, resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        answer = _post(served, form | {"action": "plan"})
    finally:
        resource.prlimit(served.worker, resource.RLIMIT_FSIZE, limits)
    assert (answer.status_code, answer.json()["code"]) == (507, "no_space"), answer.text
