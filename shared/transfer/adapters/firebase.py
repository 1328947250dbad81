"""Firebase Authentication: `firebase auth:export users.json`, or `users.csv`."""

from __future__ import annotations

from shared.model.user_record import InvalidRow
from shared.transfer.adapters.adapter import Adapter, Found
from shared.transfer.adapters.person import Person, StaysBehind
from shared.transfer.adapters.values import Row, flag, members, moment, objects, text

FROM_CSV = (
    "from a CSV only: identities and claims left behind, and addresses count as not verified, "
    "because Firebase does not escape it: export JSON"
)
_FACTOR = "second factor left behind: Firebase does not export its secret"
_CSV = {
    "localId": 0, "email": 1, "passwordHash": 3, "salt": 4, "displayName": 5, "createdAt": 23,
    "phoneNumber": 25, "disabled": 26,
}  # fmt: skip
"""Places of what is taken from a line."""
_WIDTHS = (28, 29, 52, 53)
"""Columns, of which the last is empty in all but the third: each line ends in a comma."""


def _adapt(row: Row, person: Person, _: Found) -> None:
    if is_csv := "0" in row:
        row = _from_csv(row)
        person.leave(FROM_CSV)
    person.had_id(text(row, "localId"), is_chosen=is_csv)
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
    if text(row, "phoneNumber"):
        person.leave("phone number left behind")
    if objects(row, "mfaInfo"):
        person.leave(_FACTOR)


def _from_csv(row: Row) -> Row:
    """Name those cells of a line that are taken. There is no header.

    Firebase does not escape the photo, so that whoever chooses one can write whole lines. So
    nothing is taken that lets in or gives rights: no provider, no claims, no proof of an address.
    """
    cells = list(row.values())
    if len(cells) not in _WIDTHS:
        raise InvalidRow(f"It has {len(cells)} cells, which no CSV of Firebase's has.")
    found: Row = {name: cells[place] for name, place in _CSV.items()}
    return found | {"providerUserInfo": [{}] if any(cells[7:23]) else []}


ADAPTER = Adapter(
    "firebase",
    "Firebase",
    _adapt,
    marks=(frozenset({"localId"}),),
    headless=_WIDTHS,
)
