"""WordPress: the table `wp_users` as JSON or CSV, with `wp_usermeta` of each where it is there."""

from __future__ import annotations

import re

from shared.transfer.adapters.adapter import Adapter, Found
from shared.transfer.adapters.person import Person, StaysBehind
from shared.transfer.adapters.values import Row, flag, moment, objects, text

_ROLE = re.compile(r's:[0-9]+:"([A-Za-z0-9_-]+)";b:1;')
"""In PHP's serialisation of an array."""


def _adapt(row: Row, person: Person, _: Found) -> None:
    if flag(row, "deleted"):
        raise StaysBehind("deleted")
    person.had_id(text(row, "ID"))
    person.email = text(row, "user_email")
    person.name = text(row, "display_name")
    person.created = moment(row, "user_registered")
    person.is_disabled(flag(row, "spam"))
    person.had_password(text(row, "user_pass"), scheme="wordpress")
    for meta in objects(row, "meta"):
        if (text(meta, "meta_key") or "").endswith("capabilities"):
            person.claims["roles"] = _ROLE.findall(text(meta, "meta_value") or "")


ADAPTER = Adapter(
    "wordpress",
    "WordPress",
    _adapt,
    marks=(frozenset({"user_login", "user_pass"}),),
    columns=frozenset({"ID", "user_email"}),
)
