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
    """One width of buckets; a `width_seconds` of an hour or a day means local ones, however long."""

    name: str
    index: int
    width_seconds: int


STEPS: Final = (
    Step("1m", 0, MINUTE),
    Step("15m", 1, 15 * MINUTE),
    Step("1h", 2, 60 * MINUTE),
    Step("1d", 3, 1440 * MINUTE),
)
HOUR: Final = STEPS[2]
DAY: Final = STEPS[3]


class Buckets:
    """Where buckets begin.

    Minutes and quarter hours begin at the same times in every time zone of today.

    Args:
        timezone: IANA name; days begin by it.
        hours_by: IANA name of the zone by which hours begin; that of the days where it is empty.
    """

    def __init__(self, timezone: str, hours_by: str = "") -> None:
        self._zone = ZoneInfo(timezone)
        self._zone_of_hours = ZoneInfo(hours_by or timezone)
        self._day = (0, 0)
        self._hour = (0, 0)

    def begin(self, step: Step, at_s: float) -> int:
        """Give the beginning of the bucket that holds a time; both are Unix seconds."""
        if step is HOUR:
            first, end = self._hour
            if not first <= at_s < end:
                self._hour = first, _ = hour_of(at_s, self._zone_of_hours)
        elif step is DAY:
            first, end = self._day
            if not first <= at_s < end:
                self._day = first, _ = self._day_of(at_s)
        else:
            first = int(at_s // step.width_seconds) * step.width_seconds
        return first

    def following(self, step: Step, begin_s: int) -> int:
        """Give the beginning of the next bucket."""
        if step is HOUR:
            return hour_of(begin_s, self._zone_of_hours)[1]
        if step is DAY:
            return self._day_of(begin_s)[1]
        return begin_s + step.width_seconds

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


def hour_of(at_s: float, zone: ZoneInfo) -> tuple[int, int]:
    """Return where the local hour that holds a time begins and ends, Unix seconds.

    As InfluxDB groups by local hours: where the clock is set by half an hour, as on Lord Howe Island, one
    hour has 30 or 90 minutes; where it is set by an hour, the hour that is shown twice is two hours.
    """
    offset = _offset(at_s, zone)
    begin = int((at_s + offset) // HOUR.width_seconds) * HOUR.width_seconds - offset
    end = begin + HOUR.width_seconds
    change = offset - _offset(begin, zone)
    if 0 < abs(change) < HOUR.width_seconds:
        begin += change
    change = offset - _offset(end, zone)
    # The clock goes back within the hour, which is then longer; or forward, which ends the hour early.
    if 0 < change < HOUR.width_seconds or (
        -HOUR.width_seconds < change < 0 and _offset(end + change, zone) != offset
    ):
        end += change
    return begin, end


def _offset(at_s: float, zone: ZoneInfo) -> int:
    """Return how far local time is ahead of UTC, in seconds."""
    offset = datetime.fromtimestamp(at_s, zone).utcoffset()
    return offset.days * 86_400 + offset.seconds if offset is not None else 0


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
