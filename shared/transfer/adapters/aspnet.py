"""ASP.NET Core Identity: the table `AspNetUsers` as CSV or JSON."""

from __future__ import annotations

from shared.transfer.adapters.adapter import Adapter, Found
from shared.transfer.adapters.person import Person
from shared.transfer.adapters.values import Row, flag, moment, text


def _adapt(row: Row, person: Person, _: Found) -> None:
    person.had_id(text(row, "Id"))
    person.email = text(row, "Email")
    name = text(row, "UserName")
    person.name = None if name is None or "@" in name else name
    person.is_verified(bool(flag(row, "EmailConfirmed")))
    person.had_password(text(row, "PasswordHash"))
    if flag(row, "LockoutEnabled") is not False:
        person.is_banned_until(moment(row, "LockoutEnd"))
    if flag(row, "TwoFactorEnabled"):
        person.leave("second factor left behind: it is in the table AspNetUserTokens")


ADAPTER = Adapter(
    "aspnet",
    "ASP.NET Identity",
    _adapt,
    marks=(frozenset({"PasswordHash", "SecurityStamp"}), frozenset({"NormalizedEmail"})),
    columns=frozenset({"Id", "Email"}),
)
