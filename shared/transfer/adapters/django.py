"""Django: `manage.py dumpdata`, with the tables of allauth where there are any."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shared.model.emails import email_key
from shared.transfer.adapters.adapter import Adapter, Found, Part
from shared.transfer.adapters.person import Person, StaysBehind
from shared.transfer.adapters.values import Row, as_key, flag, full_name, members, moment, text

USER = "auth.user"
ADDRESS, ACCOUNT = "address", "social account"
_NAMES = ("username", "email")
_KINDS = {"account.emailaddress": ADDRESS, "socialaccount.socialaccount": ACCOUNT}


def _adapt(row: Row, person: Person, found: Found) -> None:
    fields = members(row, "fields")
    if (key := row.get("pk")) is None and (name := text(fields, "username")) is not None:
        key = [name]  # As natural keys are written: users choose it, and could choose a number.
    person.had_id(None if key is None else as_key(key))
    addresses = [members(it, "fields") for it in found.get(ADDRESS, ())]
    primary = sorted(addresses, key=lambda it: not flag(it, "primary"))
    person.email = next(filter(None, [text(it, "email") for it in [fields, *primary]]), None)
    if person.email is None:
        raise StaysBehind("no address")
    own = email_key(person.email)
    if addresses:
        person.is_verified(
            any(
                flag(it, "verified") and email_key(text(it, "email") or "") == own
                for it in addresses
            )
        )
    person.drop_addresses([text(it, "email") for it in addresses])
    person.name = full_name(fields, "first_name", "last_name") or text(fields, "name", "full_name")
    person.created = moment(fields, "date_joined", "created_at", "created")
    person.is_disabled(flag(fields, "is_active") is False)
    stored = text(fields, "password")
    if stored is not None and not stored.startswith("!"):
        person.had_password(stored)
    for account in [members(it, "fields") for it in found.get(ACCOUNT, ())]:
        provider = text(account, "provider")
        if provider == "google":
            person.has_google(text(account, "uid"))
        elif provider is not None:
            person.has_provider(provider)
    person.claims = {name: True for name in ("is_staff", "is_superuser") if flag(fields, name)}
    groups = fields.get("groups")
    if isinstance(groups, list) and groups:
        names = [it[0] for it in groups if isinstance(it, list) and it]
        person.claims["groups"] = names
        if not names:
            person.leave("groups left behind: `dumpdata --natural-foreign` names them")


def _owner(row: Row) -> tuple[str, str] | None:
    kind = _KINDS.get(text(row, "model") or "")
    fields = members(row, "fields")
    return None if kind is None else (kind, _key(fields.get("user")))


def _keys(row: Row) -> Sequence[str]:
    """Name a user as foreign keys do: by the primary key, or by the name in natural ones.

    Which member of a model of one's own is the name is not in the file. Where it could be one of
    two, neither is taken: users could choose the one that is somebody else's other.
    """
    fields = members(row, "fields")
    names = ["username"] if row.get("model") == USER else [it for it in _NAMES if it in fields]
    name = text(fields, names[0]) if len(names) == 1 else None
    return [_key(it) for it in (row.get("pk"), name and [name]) if it is not None]


def _key(value: object) -> str:
    """Write a primary key, or a natural one, which is a list, as no other is written."""
    return f"{'natural' if isinstance(value, list) else 'primary'} {as_key(value)}"


def _is_of(model: str) -> Callable[[Row], bool]:
    return lambda row: row.get("model") == model


def adapter(model: str = USER) -> Adapter:
    """Give the adapter for a model of users."""
    return Adapter(
        "django",
        "Django",
        _adapt,
        marks=(frozenset({"model", "fields"}),),
        parts=(Part((ADDRESS, ACCOUNT), _owner),),
        keys=_keys,
        is_user=_is_of(model.lower()),
    )
