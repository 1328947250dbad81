"""Clerk: the export of the dashboard as CSV, or JSON with the members of its API."""

from __future__ import annotations

import re

from shared.transfer.adapters.adapter import Adapter, Found
from shared.transfer.adapters.person import HASH_LEFT_BEHIND, Person, StaysBehind
from shared.transfer.adapters.values import Row, flag, full_name, members, moment, objects, text

_TOLD_BY_THEIR_TEXT = frozenset(
    {
        "argon2id", "bcrypt", "bcrypt_sha256_django", "ldap_ssha", "pbkdf2_sha1", "pbkdf2_sha256",
        "pbkdf2_sha256_django", "pbkdf2_sha512", "phpass", "scrypt_firebase", "scrypt_werkzeug",
    }
)  # fmt: skip
"""Values of `password_hasher`; of others, a text that looks the same means something else."""

_LEFT = {
    "username": "user name",
    "backup_codes": "backup codes",
    "private_metadata": "private metadata",
    "unsafe_metadata": "unsafe metadata",
}
"""Users see their claims, and must not see the private metadata; they write the unsafe."""


def _adapt(row: Row, person: Person, _: Found) -> None:
    person.had_id(text(row, "id"))
    verified, unverified = _addresses(row)
    person.email = next(iter([*_primary(row), *verified, *unverified]), None)
    if person.email is None:
        raise StaysBehind("phone only" if _has_phone(row) else "no address")
    person.name = full_name(row, "first_name", "last_name")
    person.created, person.updated = moment(row, "created_at"), moment(row, "updated_at")
    person.is_verified(person.email in verified)
    person.is_disabled(flag(row, "banned"))
    person.drop_addresses([*verified, *unverified])
    if (stored := text(row, "password_digest")) is not None:
        hasher = text(row, "password_hasher") or "bcrypt"
        if hasher in _TOLD_BY_THEIR_TEXT:
            person.had_password(stored)
        else:
            person.leave(f"{HASH_LEFT_BEHIND}: password_hasher is {hasher[:40]}")
    person.has_totp(text(row, "totp_secret"))
    for account in objects(row, "external_accounts"):
        provider = (text(account, "provider") or "").removeprefix("oauth_")
        if provider == "google":
            person.has_google(text(account, "provider_user_id", "google_id"))
        elif provider:
            person.has_provider(provider)
    person.claims = members(row, "public_metadata")
    for name, what in _LEFT.items():
        if (value := row.get(name)) and value not in ("[]", "{}"):
            person.leave(f"{what} left behind")


def _addresses(row: Row) -> tuple[list[str], list[str]]:
    """Give the verified addresses and the others."""
    verified = _listed(row, "verified_email_addresses")
    unverified = _listed(row, "unverified_email_addresses")
    for address in objects(row, "email_addresses"):
        is_verified = text(members(address, "verification"), "status") == "verified"
        if (found := text(address, "email_address")) is not None:
            (verified if is_verified else unverified).append(found)
    return verified, unverified


def _primary(row: Row) -> list[str]:
    primary = text(row, "primary_email_address")
    if primary is None and (key := text(row, "primary_email_address_id")) is not None:
        named = [it for it in objects(row, "email_addresses") if text(it, "id") == key]
        primary = text(named[0], "email_address") if named else None
    return [] if primary is None else [primary]


def _listed(row: Row, name: str) -> list[str]:
    """Read several addresses from one cell."""
    value = row.get(name)
    if isinstance(value, list):
        return [it for it in value if isinstance(it, str) and it]
    return [it for it in re.split(r"[\s,;|]+", text(row, name) or "") if it]


def _has_phone(row: Row) -> bool:
    names = ("primary_phone_number", "verified_phone_numbers", "phone_numbers")
    return any(row.get(name) for name in names)


ADAPTER = Adapter(
    "clerk",
    "Clerk",
    _adapt,
    marks=(
        frozenset({"primary_email_address", "verified_email_addresses"}),
        frozenset({"password_digest", "password_hasher"}),
        frozenset({"primary_email_address_id", "email_addresses"}),
    ),
    columns=frozenset({"id", "primary_email_address"}),
)
