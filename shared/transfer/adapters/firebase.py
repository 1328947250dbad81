"""Firebase Authentication: `firebase auth:export users.json`, or `users.csv`."""

from __future__ import annotations

from shared.model.user_record import InvalidRow
from shared.transfer.adapters.adapter import Adapter, Found
from shared.transfer.adapters.person import Person, StaysBehind
from shared.transfer.adapters.values import Row, flag, members, moment, objects, text

_FACTOR = "second factor left behind: Firebase does not export its secret"
_CSV_PROVIDERS = ("google.com", "facebook.com", "twitter.com", "github.com")
_OF_A_PROVIDER = ("id", "email", "name", "photo")
_CSV = (
    "localId", "email", "emailVerified", "passwordHash", "salt", "displayName", "photoUrl",
    *(f"{provider} {it}" for provider in _CSV_PROVIDERS for it in _OF_A_PROVIDER),
    "createdAt", "lastSignedInAt", "phoneNumber", "disabled", "customAttributes",
)  # fmt: skip
_WIDTHS = (28, 29, 52, 53)
"""Columns, of which the last is empty in all but the third: each line ends in a comma."""


def _adapt(row: Row, person: Person, _: Found) -> None:
    if "0" in row:
        row = _from_csv(row)
    person.had_id(text(row, "localId"))
    providers = objects(row, "providerUserInfo")
    person.email = text(row, "email")
    if person.email is None:
        if text(row, "phoneNumber"):
            raise StaysBehind("phone only")
        raise StaysBehind("no address of its own" if providers else "anonymous")
    person.name = text(row, "displayName")
    person.created = moment(row, "createdAt")
    person.is_verified(bool(flag(row, "emailVerified")))
    person.is_disabled(flag(row, "disabled"))
    hash_, salt = text(row, "passwordHash"), text(row, "salt")
    if hash_ is not None:
        person.had_hash(lambda hashes: hashes.firebase(hash_, salt or ""))
    for provider in providers:
        name = text(provider, "providerId")
        if name == "google.com":
            person.has_google(text(provider, "rawId"))
        elif name not in ("password", "phone", None):
            person.has_provider(name)
    person.drop_addresses([text(provider, "email") for provider in providers])
    person.claims = members(row, "customAttributes")
    if objects(row, "mfaInfo"):
        person.leave(_FACTOR)


def _from_csv(row: Row) -> Row:
    """Name the cells of a line, which has no header. Later releases have added columns at the end.

    What is none of these columns is refused by the times, the texts of true and false, and the
    claims that it would have.
    """
    cells = list(row.values())
    if len(cells) not in _WIDTHS:
        raise InvalidRow(f"It has {len(cells)} cells, which no CSV of Firebase's has.")
    found: Row = dict(zip(_CSV, cells, strict=False))
    others = cells[len(_CSV) :]
    providers = [
        {"providerId": name, "rawId": found[f"{name} id"], "email": found[f"{name} email"]}
        for name in _CSV_PROVIDERS
    ] + [{"providerId": "another provider", "rawId": it} for it in others[:: len(_OF_A_PROVIDER)]]
    return found | {"providerUserInfo": [it for it in providers if it["rawId"]]}


ADAPTER = Adapter(
    "firebase",
    "Firebase",
    _adapt,
    marks=(frozenset({"localId"}),),
    headless=_WIDTHS,
)
