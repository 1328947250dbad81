"""What users of another system, or whoever forges rows of its file, cannot take along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.model.user_record import InvalidRow, parse
from shared.transfer.adapters import django
from shared.transfer.adapters.firebase import FROM_CSV
from shared.transfer.adapters.person import UNPROVED_FIREBASE, UNPROVED_GOOGLE
from tests.support.adapted import ISSUER, adapted
from tests.support.transfers import HASH

ADA, EVE = "ada@example.com", "eve@example.com"
UUID_OF_ANOTHER = "6f1d0c1e-0000-4000-8000-000000000001"
GOOGLE = {"issuer": "https://accounts.google.com", "subject": "108"}
PROJECT = "https://securetoken.google.com/my-project"


def _line(start: list[str], google: str = "", claims: str = "") -> str:
    """Write a line of Firebase's CSV, in which nothing is quoted but the claims."""
    cells = [*start, *[""] * (7 - len(start)), google, *[""] * 15]
    return ",".join([*cells, "1735689600000", "1735689600000", "", "false", claims, "\n"])


@pytest.mark.parametrize("user_id", ["forged", UUID_OF_ANOTHER])
def test_whoever_forges_a_row_of_firebases_csv_by_a_photo_gains_nothing_with_it(
    user_id: str, tmp_path: Path
) -> None:
    own = _line([]).removeprefix("," * 6)
    forged = _line([user_id, "root@example.com", "true"], "108", '"{""admin"":true}"')
    photo = f"{own}{forged}a3,mallory@example.com,true,,,,x"
    content = _line(["a1", ADA, "true"]) + _line(["a2", EVE, "true", "", "", "", photo])
    found = adapted(tmp_path, "firebase", content, issuer=PROJECT)
    assert [row["email"].split("@")[0] for row in found.rows] == ["ada", "eve", "root", "mallory"]
    for row in found.rows:
        assert "unverifiedSince" in row
        assert {"emailVerifiedAt", "identities", "claims"}.isdisjoint(row)
        assert (row["provider"], row["id"] == UUID_OF_ANOTHER) == ("local", False)
        parse(row)
    assert found.source.left_behind[FROM_CSV]["rows"] == 4


GOOGLES: list[tuple[str, dict[str, Any]]] = [
    ("firebase", {"localId": "a1", "email": ADA, "emailVerified": False,
                  "providerUserInfo": [{"providerId": "google.com", "rawId": "108"}]}),
    ("auth0", {"user_id": "google-oauth2|108", "email": ADA, "email_verified": False,
               "identities": [{"provider": "google-oauth2", "user_id": "108"}]}),
    ("clerk", {"id": "user_1", "primary_email_address": ADA, "unverified_email_addresses": ADA,
               "external_accounts": [{"provider": "google", "provider_user_id": "108"}]}),
    ("keycloak", {"id": UUID_OF_ANOTHER, "email": ADA, "emailVerified": False,
                  "federatedIdentities": [{"identityProvider": "google", "userId": "108"}]}),
    ("cognito", {"Username": "ada", "Attributes": [
        {"Name": "email", "Value": ADA},
        {"Name": "identities", "Value": '[{"userId": "108", "providerType": "Google"}]'}]}),
    ("supertokens", {"id": "s1", "loginMethods": [
        {"recipeId": "thirdparty", "thirdPartyId": "google", "thirdPartyUserId": "108",
         "email": ADA, "isVerified": False}]}),
]  # fmt: skip


@pytest.mark.parametrize(("system", "row"), GOOGLES)
def test_an_account_of_googles_stays_where_the_address_is_not_proved(
    system: str, row: dict[str, Any], tmp_path: Path
) -> None:
    found = adapted(tmp_path, system, [row])
    (ada,) = found.rows
    assert GOOGLE not in ada.get("identities", [])
    assert (ada["provider"], "unverifiedSince" in ada) == ("local", True)
    assert found.left[UNPROVED_GOOGLE] == [1]
    parse(ada)


def test_nor_does_firebases_own_identity_come_which_is_a_way_in_with_its_project(
    tmp_path: Path,
) -> None:
    rows = [
        {"localId": name, "email": f"{name}@example.com", "emailVerified": name == "ada"}
        for name in ("ada", "bob")
    ]
    found = adapted(tmp_path, "firebase", rows, issuer=PROJECT)
    ada, bob = found.rows
    assert ada["identities"] == [{"issuer": PROJECT, "subject": "ada"}]
    assert "identities" not in bob
    assert found.left == {UNPROVED_FIREBASE: [2]}
    elsewhere = adapted(tmp_path, "firebase", rows).rows[1]
    assert elsewhere["identities"] == [{"issuer": ISSUER, "subject": "bob"}]


def test_a_confirmed_phone_proves_no_address_of_supabases(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "id": UUID_OF_ANOTHER,
        "email": ADA,
        "confirmed_at": "2025-01-01 00:00:00+00",
    }
    (of_old, phone) = adapted(tmp_path, "supabase", [row, row | {"email_confirmed_at": None}]).rows
    assert of_old["emailVerifiedAt"] == "2025-01-01 00:00:00+00"
    assert "emailVerifiedAt" not in phone
    assert "unverifiedSince" in phone


def test_what_users_must_not_see_becomes_no_claim(tmp_path: Path) -> None:
    clerk: dict[str, Any] = {
        "id": "user_1",
        "primary_email_address": ADA,
        "verified_email_addresses": ADA,
    }
    clerk |= {"public_metadata": {"plan": "pro"}, "private_metadata": {"fraud_score": 9}}
    found = adapted(tmp_path, "clerk", [clerk])
    assert found.rows[0]["claims"] == {"plan": "pro"}
    assert found.left == {"private metadata left behind": [1]}
    auth0: dict[str, Any] = {"user_id": "email|1", "email": ADA, "email_verified": True}
    metadata = {"roles": ["editor"], "permissions": ["read"], "stripe": {"customer": "c"}}
    found = adapted(tmp_path, "auth0", [auth0 | {"app_metadata": metadata}])
    assert found.rows[0]["claims"] == {"roles": ["editor"], "permissions": ["read"]}
    assert found.left == {"app_metadata but for roles left behind": [1]}


def _django(model: str, *users: dict[str, Any], of: object) -> list[dict[str, Any]]:
    account = {"user": of, "provider": "google", "uid": "108"}
    address = {"user": of, "email": ADA, "verified": True}
    return [
        *({"model": model} | user for user in users),
        {"model": "socialaccount.socialaccount", "pk": 1, "fields": account},
        {"model": "account.emailaddress", "pk": 1, "fields": address},
    ]


ADA_OF_DJANGO = {"pk": 1, "fields": {"username": "ada", "email": ADA}}


@pytest.mark.parametrize(
    ("model", "eve", "of"),
    [
        # Whoever has somebody's address as user name, where the natural key is the address.
        ("app.user", {"pk": 2, "fields": {"username": ADA, "email": EVE}}, [ADA]),
        # And the other way about.
        ("app.user", {"pk": 2, "fields": {"username": "eve", "email": "ada"}}, ["ada"]),
        ("auth.user", {"pk": 2, "fields": {"email": "ada"}}, ["ada"]),
        # A primary key that looks like a natural one.
        ("auth.user", {"pk": '["ada"]', "fields": {"username": "eve", "email": EVE}}, ["ada"]),
        ("auth.user", {"pk": 2, "fields": {"username": "eve", "email": EVE}}, 1),
    ],
)
def test_nobody_takes_what_belongs_to_another_by_a_name_that_looks_like_their_key(
    model: str, eve: dict[str, Any], of: object, tmp_path: Path
) -> None:
    found = adapted(tmp_path, django.adapter(model), _django(model, eve, ADA_OF_DJANGO, of=of))
    first, ada = found.rows
    assert GOOGLE not in first["identities"]
    assert (GOOGLE in ada["identities"]) == (model == "auth.user")
    kinds = () if model == "auth.user" else ("address", "social account")
    assert set(found.left) == {f"{kind} of a user who is not in the file" for kind in kinds}


@pytest.mark.parametrize("member", ["username", "email"])
def test_a_model_with_one_of_the_names_has_natural_keys(member: str, tmp_path: Path) -> None:
    rows = _django("app.user", {"pk": 1, "fields": {member: ADA}}, of=[ADA])
    (ada,) = adapted(tmp_path, django.adapter("app.user"), rows).rows
    assert GOOGLE in ada["identities"]


def test_what_names_no_user_is_nobodys_where_users_have_no_primary_key(tmp_path: Path) -> None:
    eve = {"fields": {"username": "eve", "email": EVE}}
    (found,) = adapted(tmp_path, "django", _django("auth.user", eve, of=None)).rows
    assert GOOGLE not in found["identities"]


def _capabilities(prefix: str, role: str) -> dict[str, str]:
    value = f'a:1:{{s:{len(role)}:"{role}";b:1;}}'
    return {"meta_key": f"{prefix}capabilities", "meta_value": value}


@pytest.mark.parametrize(
    ("meta", "roles"),
    [
        ([_capabilities("wp_", "subscriber"), _capabilities("wp_5_", "administrator")],
         ["subscriber"]),
        ([_capabilities("wp_5_", "administrator"), _capabilities("wp_", "subscriber")],
         ["subscriber"]),
        ([_capabilities("wp_5_", "administrator")], None),
        ([_capabilities("site2_", "editor"), _capabilities("site2_7_", "administrator")],
         ["editor"]),
    ],
)  # fmt: skip
def test_whoever_administers_a_site_of_a_network_does_not_administer_the_service(
    meta: list[dict[str, str]], roles: list[str] | None, tmp_path: Path
) -> None:
    found = adapted(tmp_path, "wordpress", [{"ID": 7, "user_email": ADA, "meta": meta}])
    assert found.rows[0].get("claims") == (None if roles is None else {"roles": roles})
    assert found.left == {"roles in another site of the network left behind": [1]}


@pytest.mark.parametrize(
    ("told", "roles"),
    [
        ("administrator", ["administrator"]),
        ("editor, author", ["editor", "author"]),
        (["editor", "author"], ["editor", "author"]),
        ("", None),
    ],
)
def test_roles_of_wordpress_are_read_from_its_command_as_well(
    told: object, roles: list[str] | None, tmp_path: Path
) -> None:
    (ada,) = adapted(tmp_path, "wordpress", [{"ID": 7, "user_email": ADA, "roles": told}]).rows
    assert ada.get("claims") == (None if roles is None else {"roles": roles})


@pytest.mark.parametrize("verified", [True, False])
def test_a_creation_that_is_no_time_is_blamed_and_nothing_that_follows_from_it(
    verified: bool, tmp_path: Path
) -> None:
    row = {"id": UUID_OF_ANOTHER, "email": ADA, "emailVerified": verified, "createdTimestamp": "x"}
    (found,) = adapted(tmp_path, "keycloak", [row | {"enabled": False}]).rows
    with pytest.raises(InvalidRow, match="createdAt"):
        parse(found)


def test_nobody_chooses_the_id_of_another_as_user_name(tmp_path: Path) -> None:
    row = {"cognito:username": UUID_OF_ANOTHER, "email": ADA}
    (found,) = adapted(tmp_path, "cognito", [row]).rows
    assert found["id"] != UUID_OF_ANOTHER
    assert found["identities"] == [{"issuer": ISSUER, "subject": UUID_OF_ANOTHER}]


@pytest.mark.parametrize("key", [17, UUID_OF_ANOTHER])
def test_nor_a_primary_key_in_django(key: object, tmp_path: Path) -> None:
    fields = {"username": str(key), "email": ADA}
    rows = [{"model": "auth.user", "pk": key, "fields": {"email": EVE}},
            {"model": "auth.user", "fields": fields}]  # fmt: skip
    of_key, of_name = adapted(tmp_path, "django", rows).rows
    assert of_key["id"] != of_name["id"]
    assert of_name["identities"] == [{"issuer": ISSUER, "subject": f'["{key}"]'}]


LEFT: list[tuple[str, dict[str, Any], str]] = [
    ("keycloak", {"id": "k1", "email": ADA, "attributes": {"locale": ["de"], "plan": ["pro"]}},
     "attributes left behind"),
    ("keycloak", {"id": "k1", "email": ADA, "requiredActions": ["UPDATE_PASSWORD"]},
     "required actions left behind"),
    ("supertokens", {"id": "s1", "userMetadata": {"name": "Ada", "plan": "pro"},
                     "loginMethods": [{"recipeId": "passwordless", "email": ADA}]},
     "metadata left behind"),
    ("clerk", {"id": "user_1", "primary_email_address": ADA, "username": "ada"},
     "user name left behind"),
    ("clerk", {"id": "user_1", "primary_email_address": ADA, "unsafe_metadata": {"a": 1}},
     "unsafe metadata left behind"),
    ("firebase", {"localId": "a1", "email": ADA, "phoneNumber": "+15550100"},
     "phone number left behind"),
    ("cognito", {"Username": "ada", "Attributes": [{"Name": "email", "Value": ADA}],
                 "UserStatus": "FORCE_CHANGE_PASSWORD"},
     "status FORCE_CHANGE_PASSWORD left behind"),
    ("auth0", {"user_id": "auth0|1", "email": ADA},
     "password hash left behind: no hash in --passwords"),
]  # fmt: skip


@pytest.mark.parametrize(("system", "row", "reason"), LEFT)
def test_nothing_is_lost_without_being_counted(
    system: str, row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    found = adapted(tmp_path, system, [row])
    assert (len(found.rows), found.left) == (1, {reason: [1]})


@pytest.mark.parametrize(
    ("system", "row"),
    [
        ("keycloak", {"id": "k1", "email": ADA, "attributes": {"locale": ["de"]},
                      "requiredActions": []}),
        ("clerk", {"id": "user_1", "primary_email_address": ADA, "username": "",
                   "unsafe_metadata": {}, "private_metadata": {}}),
        ("cognito", {"Username": "ada", "Attributes": [{"Name": "email", "Value": ADA}],
                     "UserStatus": "CONFIRMED"}),
        ("auth0", {"user_id": "google-oauth2|1", "email": ADA, "app_metadata": {"roles": []}}),
    ],
)  # fmt: skip
def test_nothing_is_counted_that_was_not_there(
    system: str, row: dict[str, Any], tmp_path: Path
) -> None:
    assert adapted(tmp_path, system, [row]).left == {}


def test_a_database_user_of_auth0s_is_counted_unless_the_hash_is_there(tmp_path: Path) -> None:
    rows = [{"user_id": f"auth0|{n}", "email": f"{n}@example.com"} for n in "ab"]
    passwords = tmp_path / "passwords"
    passwords.write_text(json.dumps([{"_id": {"$oid": "b"}, "passwordHash": HASH}]))
    found = adapted(tmp_path, "auth0", rows, passwords=passwords)
    assert found.left == {"password hash left behind: no hash in --passwords": [1]}


@pytest.mark.parametrize("quoted", [HASH, "ada@example.com", "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXPA"])
def test_a_reason_quotes_no_hash_address_or_secret_where_columns_are_mixed_up(
    quoted: str, tmp_path: Path
) -> None:
    row = {"id": "user_1", "primary_email_address": "ada@example.com", "password_digest": "x"}
    found = adapted(tmp_path, "clerk", [row | {"password_hasher": quoted}])
    assert list(found.left) == ["password hash left behind: password_hasher is …"]
