"""Buckets of time and what is kept of the samples in one: the arithmetic of the store.

Takes times and values, gives where a bucket begins and cells that can be merged in any order. Never
does I/O.

A cell holds one field of one bucket: how long its samples stand for, their sum weighted by that time,
the lowest and the highest. Two cells of one bucket merge into what one would have held.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

Cell = tuple[float, float, float, float]
"""Weight (s), sum of value times weight, lowest, highest."""

Cells = dict[str, Cell]
"""The cells of one bucket by field."""

MINUTE: Final = 60


@dataclass(frozen=True, slots=True)
class Step:
    """One width of buckets; a `width_seconds` of a day means local days, however long."""

    name: str
    index: int
    width_seconds: int


STEPS: Final = (
    Step("1m", 0, MINUTE),
    Step("15m", 1, 15 * MINUTE),
    Step("1h", 2, 60 * MINUTE),
    Step("1d", 3, 1440 * MINUTE),
)
DAY: Final = STEPS[-1]


class Buckets:
    """Where buckets begin.

    Args:
        timezone: IANA name; days begin by it.
    """

    def __init__(self, timezone: str) -> None:
        self._zone = ZoneInfo(timezone)
        self._day = (0, 0)

    def begin(self, step: Step, at_s: float) -> int:
        """Give the beginning of the bucket that holds a time; both are Unix seconds."""
        if step is not DAY:
            return int(at_s // step.width_seconds) * step.width_seconds
        first, end = self._day
        if not first <= at_s < end:
            self._day = first, _ = self._day_of(at_s)
        return first

    def following(self, step: Step, begin_s: int) -> int:
        """Give the beginning of the next bucket."""
        if step is not DAY:
            return begin_s + step.width_seconds
        return self._day_of(begin_s)[1]

    def beginnings(self, step: Step, start_s: int, end_s: int) -> Iterator[int]:
        """Give the beginning of each bucket that begins in the range."""
        at_s = start_s
        while at_s < end_s:
            yield at_s
            at_s = self.following(step, at_s)

    def _day_of(self, at_s: float) -> tuple[int, int]:
        midnight = datetime.fromtimestamp(at_s, self._zone).replace(
            hour=0, minute=0, second=0, microsecond=0, fold=0
        )
        # Local arithmetic: the next midnight, whether the day has 23, 24 or 25 hours.
        return int(midnight.timestamp()), int((midnight + timedelta(days=1)).timestamp())


def add_sample(cells: Cells, fields: Mapping[str, float], weight: float) -> None:
    """Let a bucket hold one more sample, which stands for `weight` seconds."""
    for name, value in fields.items():
        cell = cells.get(name)
        if cell is None:
            cells[name] = (weight, value * weight, value, value)
        else:
            known, total, low, high = cell
            # Every value comes this way, and a comparison takes a fraction of the time of min and max.
            low = value if value < low else low  # noqa: FURB136
            high = value if value > high else high  # noqa: FURB136
            cells[name] = (known + weight, total + value * weight, low, high)


def merge(into: Cells, other: Mapping[str, Cell]) -> None:
    """Let a bucket hold what another one of the same time holds."""
    for name, (weight, total, low, high) in other.items():
        cell = into.get(name)
        if cell is None:
            into[name] = (weight, total, low, high)
        else:
            into[name] = (cell[0] + weight, cell[1] + total, min(cell[2], low), max(cell[3], high))
