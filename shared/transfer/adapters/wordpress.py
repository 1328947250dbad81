"""WordPress: the table `wp_users` as JSON or CSV, with `wp_usermeta` of each where it is there."""

from __future__ import annotations

import re

from shared.transfer.adapters.adapter import Adapter, Found
from shared.transfer.adapters.person import Person, StaysBehind
from shared.transfer.adapters.values import Row, flag, moment, objects, text, texts

_ROLE = re.compile(r's:[0-9]+:"([A-Za-z0-9_-]+)";b:1;')
"""In PHP's serialisation of an array."""
_OF_A_SITE = re.compile(r"_[0-9]+_capabilities$")
"""Whoever may open a site in a network administers it, and nothing else."""
_OTHER_SITES = "roles in another site of the network left behind"


def _adapt(row: Row, person: Person, _: Found) -> None:
    if flag(row, "deleted"):
        raise StaysBehind("deleted")
    person.had_id(text(row, "ID"))
    person.email = text(row, "user_email")
    person.name = text(row, "display_name")
    person.created = moment(row, "user_registered")
    person.is_disabled(flag(row, "spam"))
    person.had_password(text(row, "user_pass"), scheme="wordpress")
    person.claims["roles"] = _roles(row, person)


def _roles(row: Row, person: Person) -> list[str]:
    """Read the roles as `wp user list` writes them, or from the one key of `wp_usermeta`."""
    found: dict[str, list[str]] = {}
    for meta in objects(row, "meta"):
        key = text(meta, "meta_key") or ""
        if key.endswith("capabilities"):
            found[key] = _ROLE.findall(text(meta, "meta_value") or "")
    own = min((it for it in found if not _OF_A_SITE.search(it)), key=len, default=None)
    if len(found) > (own is not None):
        person.leave(_OTHER_SITES)
    if isinstance(row.get("roles"), list):
        return texts(row, "roles")
    if (told := text(row, "roles")) is not None:
        return [it.strip() for it in told.split(",") if it.strip()]
    return [] if own is None else found[own]


ADAPTER = Adapter(
    "wordpress",
    "WordPress",
    _adapt,
    marks=(frozenset({"user_login", "user_pass"}),),
    columns=frozenset({"ID", "user_email"}),
)
