"""What a system's file has to say of it: how it is recognised, and what a row of it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shared.transfer.adapters.person import Person
from shared.transfer.adapters.values import Row

Found = Mapping[str, list[Row]]
"""Parts of a user by kind."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where rows stand that belong to users, and how they are joined to them."""

    kinds: tuple[str, ...]
    """As the plan names them where their user is missing."""
    owner: Callable[[Row], tuple[str, str] | None]
    """Gives the kind of a row and the key of its user, or None where it is neither."""
    member: str | None = None
    """Of the source, which has them in an array of that name."""
    option: str | None = None
    """The option that names their file."""

    @property
    def is_apart(self) -> bool:
        """Tell whether nothing else stands there: what is no part is a fault."""
        return self.member is not None or self.option is not None


@dataclass(frozen=True, slots=True)
class Adapter:
    """A system that users come from."""

    name: str
    """After `--from`."""
    title: str
    adapt: Callable[[Row, Person, Found], None]
    """Tells the person what a row says. Raises StaysBehind and InvalidRow."""
    marks: Sequence[frozenset[str]] = ()
    """Members or columns that together no other system has; any of these sets will do.

    `user[]` stands for rows in an array of that name.
    """
    member: str = "users"
    """The array of users in an object, where the file is one."""
    columns: frozenset[str] = frozenset()
    """What a CSV file has to have."""
    parts: Sequence[Part] = ()
    keys: Callable[[Row], Sequence[str]] = lambda _: ()
    """The keys under which a user's parts are kept."""
    is_user: Callable[[Row], bool] = lambda _: True
    """Tells whether a row of the source is a user, or something else that is passed over."""
    headless: tuple[int, ...] = ()
    """How many columns CSV files have that come without a header."""
