"""Supabase: the tables `auth.users` and `auth.identities`, as CSV or JSON."""

from __future__ import annotations

from shared.transfer.adapters.adapter import Adapter, Found, Part
from shared.transfer.adapters.person import Person, StaysBehind
from shared.transfer.adapters.values import Row, flag, members, moment, text, texts

_OWN = ("provider", "providers")
"""Of `raw_app_meta_data`: they are Supabase's, and no claims."""


def _adapt(row: Row, person: Person, found: Found) -> None:
    person.had_id(text(row, "id"))
    if moment(row, "deleted_at") is not None:
        raise StaysBehind("deleted")
    person.email = text(row, "email")
    if person.email is None:
        if flag(row, "is_anonymous"):
            raise StaysBehind("anonymous")
        raise StaysBehind("phone only" if text(row, "phone") else "no address")
    # Users write the other metadata themselves: the name of it is taken, and nothing that counts.
    person.name = text(members(row, "raw_user_meta_data"), "full_name", "name")
    person.created, person.updated = moment(row, "created_at"), moment(row, "updated_at")
    # The other one is the earlier of the address's and the phone's, where both can be confirmed.
    has_own = "email_confirmed_at" in row
    confirmed = moment(row, "email_confirmed_at" if has_own else "confirmed_at")
    person.is_verified(confirmed is not None, confirmed)
    person.is_banned_until(moment(row, "banned_until"))
    person.had_password(text(row, "encrypted_password"))
    metadata = members(row, "raw_app_meta_data")
    person.claims = {name: it for name, it in metadata.items() if name not in _OWN}
    if flag(row, "is_sso_user"):
        person.leave("single sign-on left behind")
    identities = found.get("identity", [])
    for identity in identities:
        _take_identity(identity, person)
    person.drop_addresses([text(members(it, "identity_data"), "email") for it in identities])
    known = {text(identity, "provider") for identity in identities}
    for provider in texts(metadata, "providers"):
        if provider not in (*known, "email", "phone"):
            person.leave(f"sign-in with {provider[:40]} left behind: not in auth.identities")


def _take_identity(identity: Row, person: Person) -> None:
    provider = text(identity, "provider")
    if provider == "google":
        data = members(identity, "identity_data")
        person.has_google(text(identity, "provider_id") or text(data, "sub"))
    elif provider not in ("email", "phone", None):
        person.has_provider(provider)


def _owner(row: Row) -> tuple[str, str] | None:
    user_id = text(row, "user_id")
    return None if user_id is None else ("identity", user_id)


ADAPTER = Adapter(
    "supabase",
    "Supabase",
    _adapt,
    marks=(
        frozenset({"encrypted_password", "raw_app_meta_data"}),
        frozenset({"encrypted_password", "raw_user_meta_data"}),
    ),
    columns=frozenset({"id", "email"}),
    parts=(Part(("identity",), _owner, option="identities"),),
    keys=lambda row: [key] if (key := text(row, "id")) else [],
)
