"""All other systems: a CSV or JSON file, and which of its names mean which of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.errors import InvalidSource
from shared.model.user_record import InvalidRow
from shared.transfer.adapters.adapter import Adapter, Found
from shared.transfer.adapters.person import Person
from shared.transfer.adapters.values import Row, flag, moment, text

NAME = "mapped"
FIELDS = (
    "id", "email", "password", "name", "createdAt", "updatedAt", "emailVerified", "disabled",
    "locale", "roles", "google", "totp",
)  # fmt: skip


def parse_mapping(given: str) -> dict[str, str]:
    """Read `email=mail,name=full_name`: ours, and what the file calls it. Raises InvalidSource."""
    found: dict[str, str] = {}
    for pair in filter(None, given.split(",")):
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not equals or not theirs or ours not in FIELDS or ours in found:
            raise InvalidSource(
                f"--map takes pairs such as email=mail,name=full_name, each of "
                f"{', '.join(FIELDS)} once: {pair.strip()[:60]!r} is none."
            )
        found[ours] = theirs
    return found


def adapter(mapping: Mapping[str, str]) -> Adapter:
    """Give the adapter for a mapping. What it does not name has our own name in the file."""
    names = {field: mapping.get(field, field) for field in FIELDS}

    def adapt(row: Row, person: Person, _: Found) -> None:
        told = {ours: _value(row, theirs) for ours, theirs in names.items()}
        person.had_id(text(told, "id"))
        person.email, person.name = text(told, "email"), text(told, "name")
        person.created, person.updated = moment(told, "createdAt"), moment(told, "updatedAt")
        person.is_verified(*_flag_or_time(told, "emailVerified"))
        person.is_disabled(*_flag_or_time(told, "disabled"))
        person.had_password(text(told, "password"))
        person.speaks(text(told, "locale"))
        person.has_google(text(told, "google"))
        person.has_totp(text(told, "totp"))
        person.claims["roles"] = _roles(told["roles"])

    return Adapter(
        NAME, "another system", adapt, columns=frozenset({*mapping.values(), names["email"]})
    )


def _value(row: Row, name: str) -> Any:
    """Give a member, also one of a member: `profile.email`."""
    value: Any = row
    for part in [name] if name in row else name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _flag_or_time(row: Row, name: str) -> tuple[bool | None, str | int | None]:
    """Read what is true, false, or the time since when it is true."""
    try:
        return flag(row, name), None
    except InvalidRow:
        since = moment(row, name)
        return since is not None, since


def _roles(value: object) -> list[str]:
    """Read a list of texts, or several in one cell."""
    if isinstance(value, str):
        return [it.strip() for it in value.split(",") if it.strip()]
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(it, str) for it in value):
        raise InvalidRow("The roles are not a list of texts.")
    return value
