"""The measurements and their goals as a plain table."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

HEADINGS = ("goal", "floor", "ours", "compared", "middle half", "aim", "")

_OPERATORS: dict[str, Callable[[float, float], float]] = {
    "ratio": operator.truediv,
    "difference": operator.sub,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One goal: our numbers, the floor's where there is one, and the limits of what is compared.

    Both sides have one number a round. What is compared is the ratio or the difference within a
    round, of which the median counts: other work on the machine slows both sides of a round
    alike, but not one round like the next.
    """

    name: str
    unit: str
    ours: Sequence[float]
    floor: Sequence[float] = ()
    comparison: Literal["ratio", "difference", "none"] = "none"
    at_most: float | None = None
    at_least: float | None = None
    note: str | None = None
    """A line for below the table."""

    @property
    def compared(self) -> Sequence[float]:
        """The compared numbers, one per round."""
        if self.comparison == "none":
            return self.ours
        compare = _OPERATORS[self.comparison]
        return [compare(our, base) for our, base in zip(self.ours, self.floor, strict=True)]

    @property
    def is_met(self) -> bool:
        """Whether the goal was reached in this run."""
        median = statistics.median(self.compared)
        above = self.at_most is not None and median > self.at_most
        below = self.at_least is not None and median < self.at_least
        return not above and not below

    def row(self) -> tuple[str, ...]:
        """Give the cells of the table's row."""
        unit = "" if self.comparison == "ratio" else self.unit
        sign = "+" if self.comparison == "difference" else ""
        limits = [
            f"{how} {limit:g} {unit}".rstrip()
            for how, limit in (("<=", self.at_most), (">=", self.at_least))
            if limit
        ]
        return (
            self.name,
            _median(self.floor, self.unit),
            _median(self.ours, self.unit),
            _median(self.compared if self.floor else (), unit, sign),
            _middle_half(self.compared, sign),
            ", ".join(limits),
            ("met" if self.is_met else "missed") if any(limits) else "",
        )


def table(measurements: Iterable[Measurement]) -> str:
    """Format one row per goal, and the notes below."""
    measurements = list(measurements)
    rows = [HEADINGS, *(measurement.row() for measurement in measurements)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines + [measured.note for measured in measurements if measured.note])


def _median(numbers: Sequence[float], unit: str, sign: str = "") -> str:
    if not numbers:
        return ""
    median = statistics.median(numbers)
    places = 2 if median % 1 else 0
    return f"{median:{sign}.{places}f} {unit}".rstrip()


def _middle_half(numbers: Sequence[float], sign: str) -> str:
    """Format the quartiles, which show how reliable the median is."""
    if len(numbers) < 2:
        return ""
    low, _, high = statistics.quantiles(numbers, n=4)
    return f"{low:{sign}.2f} to {high:{sign}.2f}"
