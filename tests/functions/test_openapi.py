"""The HTTP contract as a document: it is valid, complete, and what the functions do."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

import main
from shared import errors
from shared.mail.wake import Wake
from shared.model.mails import Kind
from shared.web import problems
from tests.support.emulator import ROOT, SECRET, Emulator, running_emulator
from tests.support.google import SIGN_IN_SOURCE, Providers
from tests.support.mails import token_for
from tests.support.postgres import Server
from tests.support.session_keys import make_p256, private_pem

ADMIN_TOKEN = "QWRtaW4gb2YgdGhlIGNvbnRyYWN0LCBub2JvZHkgZWxzZSBhdCBhbGw"
THOROUGH = 30
"""Examples for each operation where there is time, in addition to those of every boundary."""
DIALECT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
LINKS: dict[str, Kind] = {
    "/api/password/reset": "password_reset",
    "/api/email/verify": "verification",
    "/api/login/mail/verify": "login_link",
}
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
Document = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Document:
    """The document, read and found valid."""
    import schemathesis  # Slow to import, and nothing else needs it.

    schema = schemathesis.openapi.from_path(ROOT / "docs" / "openapi.yaml")
    schema.validate()
    return schema.raw_schema


@pytest.fixture(
    scope="module",
    params=[
        ("postgres", 5),
        pytest.param(("postgres", THOROUGH), marks=pytest.mark.long),
        pytest.param(("json", THOROUGH), marks=pytest.mark.long),
    ],
    ids=str,
)
def thoroughness(request: pytest.FixtureRequest) -> tuple[str, int]:
    """The kind of store, and how many examples there are for each operation.

    They are beside those of the document and of every boundary.
    """
    kind, examples = request.param
    return kind, examples


@pytest.fixture(scope="module")
def kind(thoroughness: tuple[str, int]) -> str:
    """The kind of store."""
    return thoroughness[0]


@pytest.fixture(scope="module")
def served(
    kind: str,
    postgres: Server,
    make_database: Callable[..., str],
    providers: Providers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Emulator]:
    """All endpoints, with everything configured that has a setting."""
    users_file = tmp_path_factory.mktemp("contract") / "users.json"
    store = {"USERS_FILE": str(users_file)}
    if kind == "postgres":
        store["DATABASE_URL"] = postgres.url(make_database())
        users_file.write_bytes((ROOT / "tests" / "data" / "old-users.json").read_bytes())
    with running_emulator(
        source=SIGN_IN_SOURCE,
        ADMIN_TOKEN=ADMIN_TOKEN,
        SESSION_PRIVATE_KEY=private_pem(make_p256()),
        ENVIRONMENT="development",
        SIGN_IN_BY_MAIL="true",
        **providers.settings,
        **store,
    ) as emulator:
        yield emulator


def test_the_document_is_valid_openapi_and_so_are_its_schemas_and_references(
    document: Document,
) -> None:
    assert document["openapi"] == "3.1.0"
    jsonschema_rs.meta.validate(DIALECT | {"$defs": document["components"]["schemas"]})
    for item in _objects(document):
        if "schema" in item:
            jsonschema_rs.meta.validate(DIALECT | item["schema"])
        if "$ref" in item:
            assert _resolved(document, item)


def _objects(node: Any) -> Iterator[Document]:
    """Give every object in the document."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _objects(item)


def _resolved(document: Document, item: Document) -> Document:
    """Give what an object refers to, or itself."""
    if "$ref" not in item:
        return item
    found = document
    for name in item["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found


def test_its_paths_and_methods_are_those_that_are_served(
    document: Document, served: Emulator
) -> None:
    assert set(document["paths"]) == set(main.ROUTES)
    ours = Wake((SECRET,), served.url).authorization(time.time())  # To others some do not exist.
    with served.client(headers={"Authorization": ours}) as client:
        for path, operations in document["paths"].items():
            allowed = set(client.request("FOO", path).headers["Allow"].split(", "))
            # What answers GET answers HEAD (RFC 9110, section 9.3.2).
            assert {name.upper() for name in METHODS & set(operations)} == allowed - {"HEAD"}, path


def test_its_codes_and_their_statuses_are_those_of_the_errors(document: Document) -> None:
    described = {
        (code, response["properties"]["status"]["const"])
        for response in _problem_schemas(document)
        for code in _values(response["properties"]["code"])
    }
    domain = {
        (kind.code, _status(kind))
        for kind in _subclasses(errors.AuthError)
        if hasattr(kind, "code")
    }
    assert described == domain | _codes_of_the_edge() | {("internal_error", 500)}
    assert set(document["components"]["schemas"]["Code"]["enum"]) == {code for code, _ in described}


def _problem_schemas(document: Document) -> list[Document]:
    return [
        content["schema"]
        for response in document["components"]["responses"].values()
        for media_type, content in response["content"].items()
        if media_type == "application/problem+json"
    ]


def _values(schema: Document) -> list[str]:
    return list(schema["enum"]) if "enum" in schema else [schema["const"]]


def _subclasses(kind: type[errors.AuthError]) -> Iterator[type[errors.AuthError]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)


def _status(kind: type[errors.AuthError]) -> int:
    error = kind.__new__(kind)
    vars(error).update(sentence="", cause=None, facts={}, field="", retry_after=1)
    return problems.describe(error, request_id="", cookie_name="").status


def _codes_of_the_edge() -> set[tuple[str, int]]:
    """Find what is given to HttpError: its status and its code are written where it is made."""
    calls = [
        node.args
        for path in (ROOT / "shared").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id == "HttpError"
    ]
    literals = [[arg.value for arg in args[:2] if isinstance(arg, ast.Constant)] for args in calls]
    return {(str(code), int(str(status))) for status, code in filter(None, literals)}


def test_its_examples_are_what_its_schemas_describe(document: Document) -> None:
    count = 0
    for schema, example in _examples(document):
        root = DIALECT | schema | {"components": document["components"]}
        jsonschema_rs.Draft202012Validator(root, validate_formats=True).validate(example)
        count += 1
    assert count > 50


def _examples(document: Document) -> Iterator[tuple[Document, Any]]:
    """Give every example with its schema."""
    for item in _objects(document):
        if "schema" in item:
            for example in item.get("examples", {}).values():
                yield item["schema"], _resolved(document, example)["value"]
            if "example" in item:
                yield item["schema"], item["example"]


def test_its_problems_say_what_the_errors_say(document: Document) -> None:
    sentences = {
        kind.code: kind.sentence
        for kind in _subclasses(errors.AuthError)
        if hasattr(kind, "code") and hasattr(kind, "sentence")
    }
    for code, example in document["components"]["examples"].items():
        problem = example["value"]
        if "code" in problem:
            assert problem["code"] == code
            assert problem["title"] == problems.of_status(problem["status"]).sentence
            assert problem["detail"] == problem["error"] == sentences.get(code, problem["error"])


@pytest.mark.parametrize(
    ("status", "code", "title"),
    [
        (405, "method_not_allowed", "Method Not Allowed"),
        (413, "content_too_large", "Content Too Large"),
        (414, "uri_too_long", "URI Too Long"),
        (416, "range_not_satisfiable", "Range Not Satisfiable"),
        (422, "unprocessable_content", "Unprocessable Content"),
    ],
)
def test_a_status_has_one_name_on_every_python(status: int, code: str, title: str) -> None:
    found = problems.of_status(status)
    assert (found.code, found.sentence) == (code, title)


def test_schemathesis_finds_nothing_else_than_it_says(
    document: Document,
    thoroughness: tuple[str, int],
    served: Emulator,
    providers: Providers,
    tmp_path: Path,
) -> None:
    """With all of its checks, in all of its phases; Python's warnings are errors there, too."""
    kind, examples = thoroughness
    ada = document["components"]["requestBodies"]["SignUp"]
    ada = ada["content"]["application/json"]["examples"]["ada"]["value"]
    with served.client() as client:
        client.post("/api/signup", json=ada).raise_for_status()
        tokens = {path: _mail_token(client, ada, kind) for path, kind in LINKS.items()}
    described = tmp_path / "openapi.json"
    described.write_text(json.dumps(_for_the_emulator(document, providers.google_token(), tokens)))
    settings = (ROOT / "tests" / "support" / "schemathesis.toml").read_text()
    if examples < THOROUGH:  # Each method at each path is a fifth of the time.
        settings += "\n[phases.coverage]\nunexpected-methods = []\n"
    config = tmp_path / "schemathesis.toml"
    config.write_text(settings)
    command = [
        sys.executable, "-W", "error", "-m", "schemathesis.cli", "--config-file", str(config),
        "run", str(described), "--url", served.url, "--checks", "all",
        "--max-examples", str(examples), "--no-color",
    ]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "tests.support.contract",
        "CONTRACT_URL": served.url,
        "CONTRACT_PASSWORD": ada["password"],
        "CONTRACT_ADMIN_TOKEN": ADMIN_TOKEN,
        "CONTRACT_REFUSED": "POST /api/migrate" if kind == "json" else "",
    }
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in served.output()


def _mail_token(client: httpx.Client, ada: Document, kind: Kind) -> str:
    user = ada | {"email": f"{kind}@example.com"}
    return token_for(client.post("/api/signup", json=user).raise_for_status().json(), kind)


def _for_the_emulator(document: Document, id_token: str, mail_tokens: Document) -> Document:
    """Give the document of this very server, whose answers have no member that is not in it."""
    copy: Document = json.loads(json.dumps(document))
    copy["components"]["securitySchemes"]["session"]["name"] = "session"
    google = copy["paths"]["/api/auth/google"]["post"]["requestBody"]["content"]
    google["application/json"]["examples"]["google"]["value"]["idToken"] = id_token
    for path, token in mail_tokens.items():
        content = copy["paths"][path]["post"]["requestBody"]["content"]
        for example in content["application/json"]["examples"].values():
            example["value"]["token"] = token
    schemas = copy["components"]["schemas"]
    answers = [copy["components"]["responses"]]
    answers += [o["responses"] for path in copy["paths"].values() for o in path.values()]
    for name in _referenced(answers, schemas):
        if "properties" in schemas[name]:
            schemas[name]["additionalProperties"] = False
    return copy


def _referenced(node: Any, schemas: Document) -> set[str]:
    """Name the schemas that are referred to, also by one another."""
    found: set[str] = set()
    pending = [node]
    while pending:
        names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(pending.pop())))
        pending += [schemas[name] for name in names - found]
        found |= names
    return found
