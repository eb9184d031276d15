"""Points become cells of minutes, while they come in.

Takes points in any order, gives the cells that were added since they were last taken. Never does I/O.

A sample stands for the time since the one before it of its series. Behind a pause of more than a minute it
stands for as long as the one before the pause, so that a pause is not filled with the power beside it.
Energies, in kWh, are added up: they are series of the measurement `energy`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from recorder.points.energy import MEASUREMENT as ENERGY_MEASUREMENT
from recorder.points.health import MEASUREMENT as HEALTH_MEASUREMENT
from recorder.points.point import Point
from recorder.store.buckets import MINUTE, Cells, add_sample, merge

ENERGY: Final = "energy"
UNTIL: Final = "until"
"""A field beside energies: its highest value is the time of the latest that was added, Unix seconds."""
_LEAST_WEIGHT_SECONDS: Final = 0.001
_MOST_WEIGHT_SECONDS: Final = 60.0
# Nothing was recorded before; what is stamped later than this from now has a wrong clock's stamp.
_EARLIEST_SECONDS: Final = 946_684_800.0
_FUTURE_SECONDS: Final = 3600.0


class SeriesKey(NamedTuple):
    """What tells one series from another."""

    site: str
    measurement: str
    device: str


Pending = dict[tuple[SeriesKey, int], Cells]
"""The cells of minutes, by series and by the minute's beginning in Unix seconds."""


@dataclass(slots=True)
class _Series:
    """What is known of a series: its newest sample and their usual spacing."""

    key: SeriesKey
    newest_s: float
    spacing_s: float = _MOST_WEIGHT_SECONDS


class Thinning:
    """Collects the cells of the points that come in.

    Args:
        most_minutes: minutes of all series that may be pending; beyond it the oldest go, counted.
    """

    def __init__(self, most_minutes: int) -> None:
        self._most_minutes = most_minutes
        self._series: dict[tuple[str, tuple[tuple[str, str], ...]], _Series] = {}
        self._pending: Pending = {}
        self.dropped = 0

    def observe(self, points: Sequence[Point], now_s: float) -> None:
        """Take points; `now_s` is the time in Unix seconds."""
        for measurement, tags, fields, time_ns in points:
            if measurement == HEALTH_MEASUREMENT or time_ns is None:
                continue
            at_s = time_ns / 1e9
            if not _EARLIEST_SECONDS <= at_s <= now_s + _FUTURE_SECONDS:
                continue
            series = self._series.get((measurement, tags)) or self._begin_series(measurement, tags, at_s)
            if measurement == ENERGY_MEASUREMENT:
                cells = self._cells(series.key, int(at_s // MINUTE) * MINUTE)
                add_sample(cells, {**fields, UNTIL: at_s}, 1.0)
                continue
            newest_s = series.newest_s
            weight = max(_LEAST_WEIGHT_SECONDS, at_s - newest_s)
            if weight > _MOST_WEIGHT_SECONDS:
                weight = series.spacing_s
            elif at_s > newest_s:
                series.spacing_s = weight
            minute_s = int(at_s // MINUTE) * MINUTE
            add_sample(self._cells(series.key, minute_s), fields, weight)
            if at_s >= newest_s:
                series.newest_s = at_s

    def clock_was_set(self, by_seconds: float) -> None:
        """Learn that the clock that times are by was set forward by so many seconds."""
        for series in self._series.values():
            series.newest_s += by_seconds

    def pending_in(self, series: SeriesKey, start_s: int, end_s: int) -> list[tuple[int, Cells]]:
        """Give copies of what is pending of a series in a range."""
        return [
            (at_s, dict(cells))
            for (key, at_s), cells in self._pending.items()
            if key == series and start_s <= at_s < end_s
        ]

    @property
    def pending_series(self) -> set[SeriesKey]:
        """The series of which something is pending."""
        return {key for key, _ in self._pending}

    @property
    def pending_minutes(self) -> int:
        """How many minutes of all series wait to be taken."""
        return len(self._pending)

    def take(self, most_minutes: int) -> Pending:
        """Give what has been pending for longest, and forget it."""
        return {key: self._pending.pop(key) for key in list(islice(self._pending, most_minutes))}

    def give_back(self, pending: Pending) -> None:
        """Take back what could not be stored: it is still what has been pending for longest."""
        newer, self._pending = self._pending, pending
        for key, cells in newer.items():
            if key in pending:
                merge(pending[key], cells)
            else:
                pending[key] = cells

    def _begin_series(self, measurement: str, tags: tuple[tuple[str, str], ...], at_s: float) -> "_Series":
        named = dict(tags)
        stored = ENERGY if measurement == ENERGY_MEASUREMENT else measurement
        key = SeriesKey(named.get("site", ""), stored, named.get("device", ""))
        series = self._series[measurement, tags] = _Series(key, at_s)
        return series

    def _cells(self, key: SeriesKey, minute_s: int) -> Cells:
        cells = self._pending.get((key, minute_s))
        if cells is None:
            if len(self._pending) >= self._most_minutes:
                del self._pending[next(iter(self._pending))]
                self.dropped += 1
            cells = self._pending[key, minute_s] = {}
        return cells
