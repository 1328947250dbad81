"""What a language has to say for every mail.

The texts are templates of `string.Template`. `$application` is the application's name, `$home` the
address of its home page, `$asked` when and from where the mail was caused, `$lifetime` how long its
link works.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from string import Template
from typing import NamedTuple

from shared.model.mails import Kind

_HOST_PART = re.compile(r"(?<=.)(?:\.0/24|::/48)\Z")


class Letter(NamedTuple):
    """The texts of one kind of mail. Each but the subject and the button is a paragraph."""

    subject: str
    opening: str
    """What has happened or was asked for. A link follows it."""
    if_it_was_you: str
    """What to do then, and for how long the link works."""
    if_it_was_not: str
    button: str | None = None
    """What the link's button says; None for a kind that has no link."""


class Language(NamedTuple):
    """All texts of one language."""

    greeting: str
    address: str
    """Stands before the link in full, which is there in case the button does not work."""
    footer: str
    time: str
    """With `$day`, `$month`, `$year` and `$clock`, in UTC."""
    network: str
    """Follows the time. With `$addresses`: how all addresses of the network begin."""
    months: tuple[str, ...]
    units: tuple[tuple[int, str, str], ...]
    """Of durations, the largest first: the seconds, one of them, and the name of several."""
    letters: Mapping[Kind, Letter]

    def asked(self, at: float, network: str | None) -> str:
        """Write out a time, in seconds since the Unix epoch, and the coarse network if known."""
        moment = datetime.fromtimestamp(at, UTC)
        text = Template(self.time).substitute(
            day=moment.day,
            month=self.months[moment.month - 1],
            year=moment.year,
            clock=f"{moment:%H:%M}",
        )
        if network is None:
            return text
        return text + Template(self.network).substitute(addresses=_HOST_PART.sub("", network))

    def duration(self, seconds: int) -> str:
        """Write out a whole number of minutes, hours or days."""
        size, one, several = next(unit for unit in self.units if seconds % unit[0] == 0)
        number = seconds // size
        return one if number == 1 else f"{number} {several}"
