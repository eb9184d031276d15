"""What the store holds, as the points that the continuous queries would have written.

Takes the buckets of one series, gives points of minutes, hours and energies, under the queries' own names.
Never does I/O, and leaves out what the store does not know: the last value of a state that changed within
a bucket. What no profile names any more, as after a measurement or a field was renamed, is handed over under
its stored name, as means.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Final

from recorder.influx.continuous_queries import Term, minute_terms
from recorder.points.energy import SUBMETER_FIELDS, integrated_name
from recorder.points.flow import FLOW_FIELDS
from recorder.points.point import Point
from recorder.profiles.model import Profile
from recorder.store.buckets import HOUR, Cells, merge
from recorder.store.buckets import Buckets as Grid
from recorder.store.database import EVERYTHING
from recorder.store.thinning import ENERGY, SeriesKey

FLOW: Final = "flow"
_WATT_SECONDS_PER_KWH: Final = 3_600_000.0

Buckets = Mapping[int, Cells]
"""The cells of each bucket by its beginning, Unix seconds."""


class Thinned:
    """Names what the store holds as the continuous queries do.

    Args:
        profiles: the devices.
        timezone: IANA name; hours begin by it.
    """

    def __init__(self, profiles: Sequence[Profile], timezone: str) -> None:
        self._terms = minute_terms(profiles)
        self._counted = frozenset(flow for profile in profiles for flow, _ in profile.energy)
        self._states = {
            (one.measurement, each.name) for one in profiles for each in one.fields if each.kind == "state"
        }
        self._fields = {name: {term.field for term in terms} for name, terms in self._terms.items()}
        self._grid = Grid(timezone)

    def fields(self, key: SeriesKey) -> Container[str]:
        """The fields of a series that are wanted."""
        if key.measurement == ENERGY:
            return (*FLOW_FIELDS, *map(integrated_name, FLOW_FIELDS), *SUBMETER_FIELDS)
        return EVERYTHING

    def has_queries(self, key: SeriesKey) -> bool:
        """Whether continuous queries compute hours from the minutes of a series."""
        return key.measurement in self._terms

    def minutes(self, key: SeriesKey, minutes: Buckets) -> Iterator[Point]:
        """Give the points of minutes."""
        for at_s, cells in minutes.items():
            yield _point(f"{key.measurement}_1m", key, self._rollup(key.measurement, cells), at_s)

    def hours(self, key: SeriesKey, buckets: Buckets) -> Iterator[Point]:
        """Give the points of local hours, from buckets of an hour at most."""
        for at_s, cells in self._by_hour(buckets).items():
            fields = self._rollup(key.measurement, cells)
            if key.measurement == FLOW and FLOW_FIELDS[0] in cells:
                fields["coverage"] = min(1.0, cells[FLOW_FIELDS[0]][0] / HOUR.width_seconds)
            yield _point(f"{key.measurement}_1h", key, fields, at_s)

    def energies(
        self, target: str, key: SeriesKey, buckets: Buckets, energy_since_s: int = 0
    ) -> Iterator[Point]:
        """Return the kWh of each bucket of a series of energies, or of `flow`.

        Of `flow` only what an earlier version stored is integrated: the buckets that begin before
        `energy_since_s`, whose other energies are those of counters only.
        """
        for at_s, cells in buckets.items():
            is_older = at_s < energy_since_s
            if key.measurement == ENERGY:
                fields = {
                    flow: cell[1] for flow, cell in cells.items() if not is_older or flow in self._counted
                }
            elif is_older:
                fields = {
                    integrated_name(flow) if flow in self._counted else flow: cell[1] / _WATT_SECONDS_PER_KWH
                    for flow, cell in cells.items()
                    if flow in FLOW_FIELDS
                }
            else:
                fields = {}
            yield _point(target, key, fields, at_s)

    def energies_of_hours(self, key: SeriesKey, buckets: Buckets, energy_since_s: int = 0) -> Iterator[Point]:
        """Return the kWh of local hours, from buckets of an hour at most."""
        return self.energies("energy_1h", key, self._by_hour(buckets), energy_since_s)

    def _by_hour(self, buckets: Buckets) -> dict[int, Cells]:
        hours: dict[int, Cells] = {}
        for at_s, cells in buckets.items():
            merge(hours.setdefault(self._grid.begin(HOUR, at_s), {}), cells)
        return hours

    def _rollup(self, measurement: str, cells: Cells) -> dict[str, float]:
        terms = self._terms.get(measurement, ())
        known = self._fields.get(measurement, set())
        rolled = {name: total / weight for name, (weight, total, _, _) in cells.items() if name not in known}
        for term in terms:
            value = self._value(measurement, term, cells)
            if value is not None:
                rolled[term.result] = value
        return rolled

    def _value(self, measurement: str, term: Term, cells: Cells) -> float | None:
        if term.field not in cells:
            return None
        weight, total, low, high = cells[term.field]
        if term.function == "mean":
            return total / weight
        if term.function == "min":
            return low
        # The highest of a counter is its last; which value of a state was the last is not known.
        if term.function == "last" and low != high and (measurement, term.field) in self._states:
            return None
        return high


def _point(measurement: str, key: SeriesKey, fields: dict[str, float], at_s: int) -> Point:
    tags = (("device", key.device), ("site", key.site))
    return Point(measurement, tuple(tag for tag in tags if tag[1]), fields, at_s * 10**9)
