"""Points become cells of minutes, while they come in.

Takes points in any order, gives the cells that were added since they were last taken. Never does I/O.

A sample stands for the time since the one before it of its series. Behind a pause of more than a minute it
stands for as long as the one before the pause, so that a pause is not filled with the power beside it. What
a device's counters gain is a series of its own, `energy`, in kWh.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Final, NamedTuple

from recorder.points.health import MEASUREMENT as HEALTH_MEASUREMENT
from recorder.points.point import Point
from recorder.profiles.model import Profile
from recorder.store.buckets import MINUTE, Cells, add_sample, merge

ENERGY: Final = "energy"
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


class Thinning:
    """Collects the cells of the points that come in.

    Args:
        profiles: the devices, for the counters that know the energy of a flow.
        most_minutes: minutes of all series that may be pending; beyond it the oldest go, counted.
    """

    def __init__(self, profiles: Iterable[Profile], most_minutes: int) -> None:
        self._counters = {(one.measurement, one.device): one.energy for one in profiles if one.energy}
        self._most_minutes = most_minutes
        self._newest_s: dict[SeriesKey, float] = {}
        self._spacing_s: dict[SeriesKey, float] = {}
        self._counted: dict[tuple[SeriesKey, str], float] = {}
        self._pending: Pending = {}
        self.dropped = 0

    @property
    def counter_fields(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """The counters of each measurement and device."""
        return {key: tuple(field for _, field in energy) for key, energy in self._counters.items()}

    def begin_counters(self, series: SeriesKey, values: Mapping[str, float]) -> None:
        """Learn how far counters had come when an earlier run ended; one that has come since is further."""
        for name, value in values.items():
            self._counted.setdefault((series, name), value)

    def observe(self, points: Sequence[Point], now_s: float) -> None:
        """Take points; `now_s` is the time in Unix seconds."""
        for measurement, tags, fields, time_ns in points:
            if measurement == HEALTH_MEASUREMENT or time_ns is None:
                continue
            at_s = time_ns / 1e9
            if not _EARLIEST_SECONDS <= at_s <= now_s + _FUTURE_SECONDS:
                continue
            named = dict(tags)
            key = SeriesKey(named.get("site", ""), measurement, named.get("device", ""))
            newest_s = self._newest_s.get(key, at_s)
            weight = max(_LEAST_WEIGHT_SECONDS, at_s - newest_s)
            if weight > _MOST_WEIGHT_SECONDS:
                weight = self._spacing_s.get(key, _MOST_WEIGHT_SECONDS)
            elif at_s > newest_s:
                self._spacing_s[key] = weight
            minute_s = int(at_s // MINUTE) * MINUTE
            add_sample(self._cells(key, minute_s), fields, weight)
            if at_s >= newest_s:
                self._newest_s[key] = at_s
                if (measurement, key.device) in self._counters:
                    self._count_energy(key, fields, minute_s)

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

    def take(self) -> Pending:
        """Give what is pending, and forget it."""
        pending, self._pending = self._pending, {}
        return pending

    def give_back(self, pending: Pending) -> None:
        """Take back what could not be stored."""
        for (key, minute_s), cells in pending.items():
            merge(self._cells(key, minute_s), cells)

    def _cells(self, key: SeriesKey, minute_s: int) -> Cells:
        cells = self._pending.get((key, minute_s))
        if cells is None:
            if len(self._pending) >= self._most_minutes:
                del self._pending[next(iter(self._pending))]
                self.dropped += 1
            cells = self._pending[key, minute_s] = {}
        return cells

    def _count_energy(self, key: SeriesKey, fields: Mapping[str, float], minute_s: int) -> None:
        gained = {}
        for flow, name in self._counters[key.measurement, key.device]:
            value = fields.get(name)
            if value is None or not isfinite(value):
                continue
            # A counter that was reset gains nothing.
            gained[flow] = max(0.0, value - self._counted.get((key, name), value))
            self._counted[key, name] = value
        if gained:
            add_sample(self._cells(SeriesKey(key.site, ENERGY, key.device), minute_s), gained, 1.0)
