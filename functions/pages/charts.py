"""The geometry of a page's charts: numbers in, shapes in units of an SVG's view box out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 600, 160
"""Of a chart's plot."""
_GAP = 0.2
"""Of a column's width."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle; `series` is the index of what it stands for."""

    x: float
    y: float
    width: float
    height: float
    series: int
    label: str
    """What it says, for a pointer that rests on it."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Stacked columns under one scale, from the left to the right."""

    bars: list[Bar]
    top: int
    """The value at the upper edge; the lower one is 0."""


def stacked(names: Sequence[str], series: Sequence[str], values: Sequence[Sequence[int]]) -> Chart:
    """Stack the values of each column, of which there is one of each series."""
    top = nice_top(max((sum(column) for column in values), default=0))
    step = WIDTH / max(1, len(names))
    bars = []
    for index, (name, column) in enumerate(zip(names, values, strict=True)):
        below = 0
        for number, value in enumerate(column):
            if not value:
                continue
            height = HEIGHT * value / top
            y = HEIGHT - HEIGHT * below / top - height
            bars.append(
                Bar(
                    round(step * (index + _GAP / 2), 2),
                    round(y, 2),
                    round(step * (1 - _GAP), 2),
                    round(height, 2),
                    number,
                    f"{name}: {value} {series[number]}",
                )
            )
            below += value
    return Chart(bars, top)


def nice_top(value: int) -> int:
    """Give the least of 1, 2 or 5 times a power of ten that is not below the value, at least 1."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= value:
                return factor * power
        power *= 10


def shade(value: int, most: int, shades: int) -> int:
    """Give a shade from 0, for nothing, to `shades`, for the most."""
    return -(-value * shades // most) if value else 0
