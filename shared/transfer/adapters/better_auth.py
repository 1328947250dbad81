"""better-auth: the tables `user` and `account` in one JSON object."""

from __future__ import annotations

from shared.transfer.adapters.adapter import Adapter, Found, Part
from shared.transfer.adapters.person import Person
from shared.transfer.adapters.values import Row, flag, moment, text


def _adapt(row: Row, person: Person, found: Found) -> None:
    person.had_id(text(row, "id"))
    person.email = text(row, "email")
    person.name = text(row, "name")
    person.created = moment(row, "createdAt", "created_at")
    person.updated = moment(row, "updatedAt", "updated_at")
    person.is_verified(bool(flag(row, "emailVerified", "email_verified")))
    if flag(row, "banned"):
        end = moment(row, "banExpires", "ban_expires")
        person.is_banned_until("infinity" if end is None else end)
    for account in found.get("account", ()):
        provider = text(account, "providerId", "provider_id")
        if provider == "credential":
            person.had_password(text(account, "password"))
        elif provider == "google":
            person.has_google(text(account, "accountId", "account_id"))
        elif provider is not None:
            person.has_provider(provider)
    if (role := text(row, "role")) is not None:
        person.claims["role"] = role
    if flag(row, "twoFactorEnabled", "two_factor_enabled"):
        person.leave("TOTP secret left behind: it is encrypted with better-auth's own secret")


def _owner(row: Row) -> tuple[str, str] | None:
    user_id = text(row, "userId", "user_id")
    return None if user_id is None else ("account", user_id)


ADAPTER = Adapter(
    "better-auth",
    "better-auth",
    _adapt,
    marks=(frozenset({"user[]", "emailVerified"}), frozenset({"user[]", "email_verified"})),
    member="user",
    parts=(Part(("account",), _owner, member="account"),),
    keys=lambda row: [key] if (key := text(row, "id")) else [],
)
