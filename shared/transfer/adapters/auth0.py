"""Auth0: the export of users as NDJSON, and the hashes that its support hands out."""

from __future__ import annotations

from shared.transfer.adapters.adapter import Adapter, Found, Part
from shared.transfer.adapters.person import HASH_LEFT_BEHIND, Person, StaysBehind
from shared.transfer.adapters.values import Row, flag, members, moment, objects, text

_DATABASE, _GOOGLE = "auth0", "google-oauth2"
_ROLES = ("role", "roles", "permissions")
"""Of `app_metadata`: users see their claims, and may not see the rest."""


def _adapt(row: Row, person: Person, found: Found) -> None:
    person.had_id(text(row, "user_id"))
    person.email = text(row, "email")
    identities = objects(row, "identities")
    if person.email is None:
        raise StaysBehind("phone only" if text(row, "phone_number") else "no address")
    person.name = text(row, "name") or text(row, "nickname")
    person.created, person.updated = moment(row, "created_at"), moment(row, "updated_at")
    person.is_verified(bool(flag(row, "email_verified")))
    person.is_disabled(flag(row, "blocked"))
    passwords = [text(it, "passwordHash", "password_hash") for it in found.get("password", ())]
    if passwords and passwords[0] is not None:
        person.had_password(passwords[0])
    elif _keys(row):
        person.leave(f"{HASH_LEFT_BEHIND}: no hash in --passwords")
    for identity in identities:
        provider = text(identity, "provider")
        if provider == _GOOGLE:
            person.has_google(text(identity, "user_id"))
        elif provider not in (_DATABASE, "email", "sms", None):
            person.has_provider(provider)
    person.drop_addresses([text(members(it, "profileData"), "email") for it in identities])
    metadata = members(row, "app_metadata")
    person.claims = {name: metadata[name] for name in _ROLES if name in metadata}
    if set(metadata).difference(_ROLES):
        person.leave("app_metadata but for roles left behind")
    if objects(row, "multifactor_enrollments") or row.get("multifactor"):
        person.leave("second factor left behind: Auth0 does not export its secret")


def _keys(row: Row) -> list[str]:
    """Name a user's passwords: one in each of the tenant's databases where accounts were linked."""
    keys = [text(it, "user_id") for it in objects(row, "identities")
            if text(it, "provider") == _DATABASE]  # fmt: skip
    name, _, own = (text(row, "user_id") or "").partition("|")
    if name == _DATABASE:
        keys.insert(0, own)
    return [key.removeprefix("auth0|") for key in dict.fromkeys(keys) if key]


def _owner(row: Row) -> tuple[str, str] | None:
    key = text(members(row, "_id"), "$oid") or text(row, "user_id", "_id")
    return None if key is None else ("password", key.removeprefix("auth0|"))


ADAPTER = Adapter(
    "auth0",
    "Auth0",
    _adapt,
    marks=(frozenset({"user_id", "identities"}), frozenset({"user_id", "email_verified"})),
    columns=frozenset({"user_id", "email"}),
    parts=(Part(("password",), _owner, option="passwords"),),
    keys=_keys,
)
