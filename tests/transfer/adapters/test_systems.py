"""What each system's rows become, and what of them stays behind, for which reason."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.credentials.encryption import Encryption
from shared.model.user_record import InvalidRow, digest, parse
from shared.transfer.adapters.firebase import FROM_CSV
from shared.transfer.adapters.person import NO_KEY, SECOND_ADDRESS
from shared.transfer.adapters.systems import SYSTEMS
from tests.support.adapted import FILES, ISSUER, KEY, Adapted, adapted
from tests.support.transfers import HASH

GOOGLE = {"issuer": "https://accounts.google.com", "subject": "108"}
SECRET = "JBSWY3DPEHPK3PXP"
ADA = "ada@example.com"


def firebase(**members: Any) -> dict[str, Any]:
    return {
        "localId": "a1",
        "email": ADA,
        "emailVerified": True,
        "createdAt": "1735689600000",
    } | members


def auth0(**members: Any) -> dict[str, Any]:
    return {"user_id": "auth0|1", "email": ADA, "email_verified": True, "identities": []} | members


def supabase(**members: Any) -> dict[str, Any]:
    return {"id": "6f1d0c1e-0000-4000-8000-000000000001", "email": ADA} | members


def clerk(**members: Any) -> dict[str, Any]:
    return {"id": "user_1", "primary_email_address": ADA, "verified_email_addresses": ADA} | members


def keycloak(*credentials: Any, **members: Any) -> dict[str, Any]:
    return {"id": "k1", "username": "ada", "email": ADA, "credentials": list(credentials)} | members


def cognito(attributes: dict[str, str], **members: Any) -> dict[str, Any]:
    told = {"email": ADA} | attributes
    return {
        "Username": "ada",
        "Attributes": [{"Name": n, "Value": v} for n, v in told.items()],
    } | members


def supertokens(*methods: Any, **members: Any) -> dict[str, Any]:
    return {"externalUserId": "s1", "loginMethods": list(methods)} | members


def django(**fields: Any) -> dict[str, Any]:
    return {"model": "auth.user", "pk": 1, "fields": {"email": ADA, "is_active": True} | fields}


def _password(algorithm: str, parameters: dict[str, Any], iterations: Any) -> dict[str, Any]:
    secret = {
        "value": "BbZaiGM9aQzFxg0bsf4lSj08qxu7YEOHoJHLxUcqYNc=",
        "salt": "AAECAwQFBgcICQoLDA0ODw==",
    }
    data = {
        "hashIterations": iterations,
        "algorithm": algorithm,
        "additionalParameters": parameters,
    }
    return {
        "type": "password",
        "secretData": json.dumps(secret),
        "credentialData": json.dumps(data),
    }


ARGON2 = {"memory": ["7168"], "type": ["id"], "version": ["1.3"], "parallelism": ["1"]}
METHOD = {"recipeId": "emailpassword", "email": ADA, "isVerified": True}
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("firebase", firebase(disabled=True), {"disabledAt": 1735689600000}),
    ("firebase", firebase(emailVerified=False), {"unverifiedSince": 1735689600000}),
    ("firebase", firebase(customAttributes='{"admin": true}'), {"claims": {"admin": True}}),
    ("auth0", auth0(blocked=True), {"disabledAt": "1970-01-01T00:00:00.000Z"}),
    ("auth0", auth0(email_verified=False, created_at="2025-01-01T00:00:00.000Z"),
     {"unverifiedSince": "2025-01-01T00:00:00.000Z"}),
    ("auth0", auth0(user_metadata={"role": "admin"}), {"claims": None}),
    ("supabase", supabase(encrypted_password=HASH), {"password": HASH}),
    ("supabase", supabase(encrypted_password=""), {"password": None, "provider": "local"}),
    ("supabase", supabase(banned_until="infinity", updated_at="2025-01-15 10:30:00+00"),
     {"disabledAt": "2025-01-15 10:30:00+00"}),
    ("supabase", supabase(banned_until="2025-01-15 10:30:00+00"), {"disabledAt": None}),
    ("supabase", supabase(raw_user_meta_data={"sub": "108", "roles": ["admin"]}),
     {"identities": None, "claims": None}),
    ("supabase", supabase(raw_app_meta_data={"provider": "email", "role": "x"}),
     {"claims": {"role": "x"}}),
    ("clerk", clerk(verified_email_addresses="", unverified_email_addresses=ADA),
     {"unverifiedSince": "1970-01-01T00:00:00.000Z", "emailVerifiedAt": None}),
    ("clerk", {"id": "user_1", "primary_email_address_id": "e2", "created_at": 1735689600000,
               "email_addresses": [
                   {"id": "e2", "email_address": ADA, "verification": {"status": "verified"}}],
               "external_accounts": [{"provider": "oauth_google", "provider_user_id": "108"}]},
     {"email": ADA, "emailVerifiedAt": 1735689600000,
      "identities": [{"issuer": ISSUER, "subject": "user_1"}, GOOGLE], "provider": "google"}),
    ("keycloak", keycloak(enabled=False, createdTimestamp=1735689600000),
     {"disabledAt": 1735689600000}),
    ("keycloak", keycloak(attributes={"locale": ["de"]}), {"locale": "de"}),
    ("keycloak", keycloak(_password("argon2", ARGON2, 5)),
     {"password": "$argon2id$v=19$m=7168,t=5,p=1$AAECAwQFBgcICQoLDA0ODw"
                  "$BbZaiGM9aQzFxg0bsf4lSj08qxu7YEOHoJHLxUcqYNc"}),
    ("keycloak", keycloak(_password("pbkdf2-sha256", {}, 27500)),
     {"password": "$pbkdf2-sha256$i=27500$AAECAwQFBgcICQoLDA0ODw"
                  "$BbZaiGM9aQzFxg0bsf4lSj08qxu7YEOHoJHLxUcqYNc"}),
    ("cognito", cognito({"identities": '[{"userId": "108", "providerType": "Google"}]',
                         "email_verified": "true"}),
     {"provider": "google", "identities": [{"issuer": ISSUER, "subject": "ada"}, GOOGLE]}),
    ("cognito", cognito({}, Enabled=False), {"disabledAt": "1970-01-01T00:00:00.000Z"}),
    ("supertokens", supertokens(METHOD, {"recipeId": "thirdparty", "thirdPartyId": "google",
                                         "thirdPartyUserId": "108", "email": ADA}),
     {"identities": [{"issuer": ISSUER, "subject": "s1"}, GOOGLE]}),
    ("wordpress", {"ID": "7", "user_email": ADA, "user_registered": "0000-00-00 00:00:00"},
     {"createdAt": None}),
    ("aspnet", {"Id": "x", "Email": ADA, "LockoutEnd": "2999-12-31 00:00:00.0000000 +00:00",
                "LockoutEnabled": "1"}, {"disabledAt": "1970-01-01T00:00:00.000Z"}),
    ("aspnet", {"Id": "x", "Email": ADA, "LockoutEnd": "2020-12-31 00:00:00.0000000 +00:00"},
     {"disabledAt": None}),
    ("django", django(is_active=False, date_joined="2025-01-01T00:00:00Z"),
     {"disabledAt": "2025-01-01T00:00:00Z"}),
    ("django", django(password=f"bcrypt${HASH}"), {"password": HASH, "unverifiedSince": None}),
    ("django", django(password="!unusable"), {"password": None}),
    ("django", django(is_staff=True, is_superuser=False, groups=[["editors"]]),
     {"claims": {"is_staff": True, "groups": ["editors"]}}),
]  # fmt: skip
"""System, row, and members of what it becomes; None for what it must not have."""


@pytest.mark.parametrize(("system", "row", "members"), CASES)
def test_what_a_row_becomes(
    system: str, row: dict[str, Any], members: dict[str, Any], tmp_path: Path
) -> None:
    (found,) = adapted(tmp_path, system, [row]).rows
    assert {name: found.get(name) for name in members} == members
    parse(found)


FACTOR = "second factor left behind"
HASH_LEFT = "password hash left behind"
LEFT: list[tuple[str, dict[str, Any], str]] = [
    ("firebase", firebase(email=None, phoneNumber="+15550100"), "phone only"),
    ("firebase", firebase(email=None), "anonymous"),
    ("firebase", firebase(email="", providerUserInfo=[{"providerId": "facebook.com"}]),
     "no address of its own"),
    ("auth0", auth0(email=None, phone_number="+15550100"), "phone only"),
    ("supabase", supabase(deleted_at="2025-01-15 10:30:00+00"), "deleted"),
    ("supabase", supabase(email="", is_anonymous=True), "anonymous"),
    ("supabase", supabase(email=None, phone="15550100"), "phone only"),
    ("clerk", clerk(primary_email_address="", verified_email_addresses="", phone_numbers=["1"]),
     "phone only"),
    ("keycloak", keycloak(serviceAccountClientId="app"), "service account"),
    ("keycloak", keycloak(email=""), "no address"),
    ("cognito", cognito({"email": "", "phone_number": "+15550100"}), "phone only"),
    ("supertokens", supertokens({"recipeId": "passwordless", "phoneNumber": "+1"}), "phone only"),
    ("wordpress", {"ID": 1, "user_email": ADA, "deleted": "1"}, "deleted"),
    ("django", django(email=""), "no address"),
]  # fmt: skip


@pytest.mark.parametrize(("system", "row", "reason"), LEFT)
def test_who_stays_behind_and_why(
    system: str, row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    found = adapted(tmp_path, system, [row])
    assert (found.rows, found.left, found.source.stayed) == ([], {reason: [1]}, 1)


PARTLY: list[tuple[str, dict[str, Any], str]] = [
    ("firebase", firebase(providerUserInfo=[{"providerId": "apple.com"}]),
     "sign-in with apple.com left behind"),
    ("firebase", firebase(providerUserInfo=[{"providerId": "google.com", "rawId": "1",
                                             "email": "x@example.com"}]), SECOND_ADDRESS),
    ("firebase", firebase(passwordHash="AAAA", salt="AAAA"), HASH_LEFT),
    ("firebase", firebase(customAttributes=json.dumps({"a": "x" * 1100})), "claims left behind"),
    ("firebase", firebase(displayName="x" * 256), "name cut to 255 characters"),
    ("supabase", supabase(is_sso_user=True), "single sign-on left behind"),
    ("supabase", supabase(encrypted_password="$2b$20$" + "a" * 53),
     f"{HASH_LEFT}: The password's hash has a cost outside 4 to 14."),
    ("clerk", clerk(verified_email_addresses=f"{ADA},x@example.com"), SECOND_ADDRESS),
    ("clerk", clerk(password_digest=HASH, password_hasher="bcrypt_peppered"),
     f"{HASH_LEFT}: password_hasher is bcrypt_peppered"),
    ("clerk", clerk(backup_codes=["1"]), "backup codes left behind"),
    ("clerk", clerk(totp_secret="no base32 1"), "TOTP secret left behind"),
    ("keycloak", keycloak(_password("argon2", ARGON2 | {"type": ["i"]}, 5)), HASH_LEFT),
    ("keycloak", keycloak(_password("argon2", ARGON2 | {"memory": ["9999999"]}, 5)), HASH_LEFT),
    ("keycloak", keycloak(_password("argon2", ARGON2, "many")), HASH_LEFT),
    ("keycloak", keycloak({"type": "webauthn"}), "webauthn left behind"),
    ("cognito", cognito({"custom:plan": "pro"}), "custom attributes left behind"),
    ("supertokens", supertokens(METHOD, totpDevices=[{"secretKey": SECRET, "period": 60}]),
     "TOTP secret left behind"),
    ("supertokens", supertokens(METHOD, totpDevices=[{"secretKey": SECRET, "period": 30}] * 2),
     "second TOTP secret left behind"),
    ("aspnet", {"Id": "x", "Email": ADA, "TwoFactorEnabled": "1"}, FACTOR),
    ("django", django(password="md5$abc$0123456789abcdef0123456789abcdef"), HASH_LEFT),
]  # fmt: skip


@pytest.mark.parametrize(("system", "row", "reason"), PARTLY)
def test_what_stays_behind_of_who_comes(
    system: str, row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    found = adapted(tmp_path, system, [row])
    parse(found.rows[0])
    ((name, rows),) = found.left.items()
    assert name.startswith(reason)
    assert (rows, found.source.stayed) == ([1], 0)


def test_without_the_key_secrets_stay_behind_and_with_it_they_are_encrypted_the_same_each_time(
    tmp_path: Path,
) -> None:
    content = [clerk(totp_secret="jbsw y3dp ehpk 3pxp")]
    without = adapted(tmp_path, "clerk", content, encryption=None)
    assert without.left == {NO_KEY: [1]}
    assert "totpSecret" not in without.rows[0]
    first, second = (adapted(tmp_path, "clerk", content).rows[0] for _ in range(2))
    assert first == second
    assert Encryption([KEY]).decrypt(first["totpSecret"], first["id"]) == SECRET


def test_without_its_parameters_firebases_hashes_stay_behind(tmp_path: Path) -> None:
    found = Adapted(FILES / "firebase-users.json", "firebase", config=None)
    assert found.left[f"{HASH_LEFT}: --hash-config is not given"] == [1]


FIREBASE_CSV = (
    'a1,ada@example.com,true,{hash},AQIDBAUGBwgJCg==,"Example, Ada",,108,ada@example.com,Ada,,'
    ",,,,,,,,7,x@example.com,,,1735689600000,1767225600000,+15550100,{rest}\n"
)


CLAIMS = 'true,"{""role"":""admin""}",'


@pytest.mark.parametrize(
    "rest", ["false,", CLAIMS, f"{CLAIMS}{',' * 23}", f"{CLAIMS}m1{',' * 24}"], ids=len
)
def test_firebases_csv_has_no_header_and_in_each_width_the_same_columns(
    rest: str, tmp_path: Path
) -> None:
    hash_ = json.loads((FILES / "firebase-users.json").read_bytes())["users"][0]["passwordHash"]
    content = FIREBASE_CSV.format(hash=hash_, rest=rest)
    found = adapted(tmp_path, "firebase", content + content.replace("a1,ada@", "a2,bob@", 1))
    ada, bob = found.rows
    assert ada["password"].startswith("$firebase-scrypt$ln=14,r=8,sep=Bw$")
    assert (ada["name"], ada["createdAt"], bob["email"]) == (
        "Example, Ada", 1735689600000, "bob@example.com"
    )  # fmt: skip
    assert ada["identities"] == [{"issuer": ISSUER, "subject": "a1"}]
    assert ("disabledAt" in ada, "unverifiedSince" in ada, "claims" in ada) == (
        "role" in rest, True, False
    )  # fmt: skip
    assert found.left == {FROM_CSV: [1, 2], "phone number left behind": [1, 2]}


def test_a_line_of_firebases_csv_with_other_columns_is_refused(tmp_path: Path) -> None:
    content = FIREBASE_CSV.format(hash="", rest="false,")
    found = adapted(tmp_path, "firebase", content + content.replace("Ada,,", "Ada,", 1))
    assert isinstance(found.rows[1], InvalidRow)


def test_a_reason_is_counted_with_three_examples_and_not_for_who_stays(tmp_path: Path) -> None:
    rows = [firebase(localId=f"a{n}", displayName="x" * 300) for n in range(9)]
    rows.append(firebase(email=None, displayName="x" * 300))
    found = adapted(tmp_path, "firebase", {"users": rows})
    assert found.source.left_behind == {
        "name cut to 255 characters": {"rows": 9, "examples": [1, 2, 3]},
        "anonymous": {"rows": 1, "examples": [10]},
    }


def test_an_id_is_the_same_in_each_run_and_another_for_another_source(tmp_path: Path) -> None:
    first, again = (adapted(tmp_path, "firebase", [firebase()]).rows[0] for _ in range(2))
    project = "https://securetoken.google.com/my-project"
    other = adapted(tmp_path, "firebase", [firebase()], issuer=project).rows[0]
    assert first == again
    assert first["identities"] == [{"issuer": ISSUER, "subject": "a1"}]
    assert other["identities"] == [{"issuer": project, "subject": "a1"}]
    assert other["id"] != first["id"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([ADA, "1735689600000", "true", "{}", "[{}]", '{"a": NaN}', "infinity"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def _names(system: str) -> list[str]:
    """Name the members that rows of a system have, and those within them."""
    names: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            names.update(value)
            value = list(value.values())
        for inner in value if isinstance(value, list) else ():
            look(inner)

    for name, row, _ in [*CASES, *LEFT, *PARTLY]:
        if name == system:
            look(row)
    return sorted(names)


@functools.cache
def _rows_like(system: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Give what makes rows of a system's members with anything in them."""
    names = st.sampled_from([*_names(system), "id", "email", "pk", "user", "userId"])
    inner = st.dictionaries(names, JSON, max_size=4)
    return st.lists(
        st.dictionaries(names, JSON | inner | st.lists(inner, max_size=3), max_size=8), max_size=3
    )


@pytest.mark.parametrize("system", SYSTEMS)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(data=st.data())
def test_whatever_a_row_holds_it_comes_stays_or_is_refused_alone(
    system: str, data: st.DataObject, tmp_path: Path
) -> None:
    rows, parts = data.draw(_rows_like(system)), data.draw(_rows_like(system))
    if system == "django":
        rows = [{"model": "auth.user", "fields": row} | row for row in rows]
        rows += [{"model": "account.emailaddress", "fields": row, "pk": 1} for row in parts]
        rows.append({"model": "auth.user", "fields": {}})  # A dump without a user is refused.
    found = adapted(tmp_path, system, {SYSTEMS[system].member: rows, "account": parts})
    for row in found.rows:
        if not isinstance(row, InvalidRow):
            try:
                digest(parse(row))
            except InvalidRow:
                continue
