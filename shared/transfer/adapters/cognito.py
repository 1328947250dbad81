"""Amazon Cognito: `list-users` as JSON, or CSV with the columns of `get-csv-header`."""

from __future__ import annotations

from shared.transfer.adapters.adapter import Adapter, Found
from shared.transfer.adapters.person import Person, StaysBehind
from shared.transfer.adapters.values import Row, flag, full_name, moment, objects, text

_FACTOR = "second factor left behind: Cognito does not export its secret"


def _adapt(row: Row, person: Person, _: Found) -> None:
    told = row
    if "Attributes" in row:
        pairs = objects(row, "Attributes")
        told = {name: it.get("Value") for it in pairs if (name := text(it, "Name")) is not None}
    if (subject := text(told, "sub")) is not None:
        person.had_id(subject)
    else:
        person.had_id(text(row, "Username", "cognito:username"), is_chosen=True)
    person.email = text(told, "email")
    if person.email is None:
        raise StaysBehind("phone only" if text(told, "phone_number") else "no address")
    person.name = text(told, "name") or full_name(told, "given_name", "family_name")
    person.created = moment(row, "UserCreateDate")
    person.updated = moment(row, "UserLastModifiedDate", "updated_at")
    person.is_verified(bool(flag(told, "email_verified")))
    person.is_disabled(flag(row, "Enabled") is False)
    person.speaks(text(told, "locale"))
    for identity in objects(told, "identities"):
        provider = text(identity, "providerType")
        if provider == "Google":
            person.has_google(text(identity, "userId"))
        elif provider is not None:
            person.has_provider(provider)
    if objects(row, "MFAOptions") or flag(row, "cognito:mfa_enabled"):
        person.leave(_FACTOR)
    if (status := text(row, "UserStatus") or "CONFIRMED") != "CONFIRMED":
        person.leave(f"status {status[:40]} left behind")
    if any(name.startswith("custom:") and value for name, value in told.items()):
        person.leave("custom attributes left behind")


ADAPTER = Adapter(
    "cognito",
    "Cognito",
    _adapt,
    marks=(frozenset({"Username", "Attributes"}), frozenset({"cognito:username"})),
    member="Users",
    columns=frozenset({"cognito:username", "email"}),
)
