"""All other systems: what the operator says of the names in a file, and of its hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.errors import InvalidSource
from shared.model.user_record import parse
from shared.transfer.adapters import mapping
from shared.transfer.adapters.hashes import Hashes
from tests.support.adapted import ISSUER, adapted
from tests.support.transfers import HASH

ADA = "ada@example.com"


def _adapted(folder: Path, given: str, content: Any, **options: Any) -> Any:
    return adapted(folder, mapping.adapter(mapping.parse_mapping(given)), content, **options)


def test_columns_mean_what_the_mapping_says_and_the_others_nothing(tmp_path: Path) -> None:
    content = (
        "uid,mail,pw_hash,full,joined,confirmed,off,lang,groups,ignored\n"
        f'17,{ADA},{HASH},Ada,2025-01-01 00:00:00,1,0,de_AT,"editor, admin",x\n'
        f"18,bob@example.com,,,,2025-02-01 00:00:00,t,,,x\n"
    )
    given = (
        "id=uid,email=mail,password=pw_hash,name=full,createdAt=joined,emailVerified=confirmed,"
        "disabled=off,locale=lang,roles=groups"
    )
    ada, bob = _adapted(tmp_path, given, content).rows
    assert parse(ada).email == ADA
    identities = ada.pop("identities")
    assert identities == [{"issuer": ISSUER, "subject": "17"}]
    del ada["id"]
    assert ada == {
        "email": ADA, "password": HASH, "provider": "local", "name": "Ada", "locale": "de-AT",
        "createdAt": "2025-01-01 00:00:00Z", "emailVerifiedAt": "2025-01-01 00:00:00Z",
        "claims": {"roles": ["editor", "admin"]},
    }  # fmt: skip
    assert bob["emailVerifiedAt"] == "2025-02-01 00:00:00Z"
    assert bob["disabledAt"] == "1970-01-01T00:00:00.000Z"


def test_members_of_members_are_named_with_a_dot_and_our_own_names_need_no_mapping(
    tmp_path: Path,
) -> None:
    rows = [{"profile": {"email": ADA}, "name": "Ada", "google": "108", "emailVerified": True}]
    (ada,) = _adapted(tmp_path, "email=profile.email", rows).rows
    assert (ada["email"], ada["name"], ada["provider"]) == (ADA, "Ada", "google")


@pytest.mark.parametrize("given", ["mail", "email=", "mail=email", "email=a,email=b", "role=x"])
def test_what_is_no_mapping_is_refused(given: str) -> None:
    with pytest.raises(InvalidSource, match="--map takes pairs"):
        mapping.parse_mapping(given)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match="no column pw: is it one of another system"):
        _adapted(tmp_path, "password=pw", f"email\n{ADA}\n")
    with pytest.raises(InvalidSource, match="no column email"):
        _adapted(tmp_path, "", f"mail\n{ADA}\n")


def test_a_scheme_is_named_where_the_text_does_not_tell(tmp_path: Path) -> None:
    rows = [{"email": ADA, "password": HASH}]
    (meteor,) = _adapted(tmp_path, "", rows, hashes=Hashes(scheme="meteor")).rows
    assert meteor["password"] == f"{{sha256-hex}}{HASH}"
    lacking = _adapted(tmp_path, "", rows, hashes=Hashes(scheme="devise", key="pepper"))
    assert "password" not in lacking.rows[0]
    (reason,) = lacking.left
    assert "PASSWORD_PEPPERS does not hold it" in reason
    assert "synthetic" not in reason
    devise = Hashes(scheme="devise", key="pepper", peppers=("pepper",))
    (found,) = _adapted(tmp_path, "", rows, hashes=devise).rows
    assert found["password"].startswith("{pepper:")
