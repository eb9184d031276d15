"""Energy counters of devices, checked against the power that can feed them.

Takes the fields of a point, returns what each counter gained. A reading that no power within the profile's
range explains (a counter that fell, or rose too far) is withheld until two more readings agree with it: then
the counter was reset, rolled over or replaced, and the new level adds no energy. Never does I/O.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from recorder.profiles.model import EnergyCounter

# Readings after the first one that a new level needs.
_CONFIRMATIONS: Final = 2
# A reading may have been taken earlier than its time says, and the one before it later.
_SLACK_SECONDS: Final = 2.0


class Reading(NamedTuple):
    """What a counter said, in kWh, and when, in Unix ns."""

    kwh: float
    time_ns: int


class CounterState(NamedTuple):
    """The last accepted reading of a counter, and a new level with the number of readings that confirm it."""

    accepted: Reading | None
    candidate: Reading | None
    confirmations: int


class CounterCheck:
    """The check of one device's counters.

    Args:
        counters: the counters that a power bounds.
    """

    def __init__(self, counters: Sequence[EnergyCounter]) -> None:
        self._counters = tuple(counters)
        self._states = dict.fromkeys((one.field for one in counters), CounterState(None, None, 0))

    @property
    def state(self) -> tuple[CounterState, ...]:
        """Where the counters are: what is returned depends on this and on what comes."""
        return tuple(self._states.values())

    def resume(self, state: Sequence[CounterState]) -> None:
        """Go on from where another check of the same counters was."""
        self._states = dict(zip(self._states, state, strict=True))

    def clock_was_set(self, by_ns: int) -> None:
        """Move the times of readings to a clock that was set forward by `by_ns`."""

        def moved(reading: Reading | None) -> Reading | None:
            return None if reading is None else Reading(reading.kwh, reading.time_ns + by_ns)

        self._states = {
            field: CounterState(moved(state.accepted), moved(state.candidate), state.confirmations)
            for field, state in self._states.items()
        }

    def start_from(self, readings: Mapping[str, Reading]) -> None:
        """Continue counting from the readings, by field, with which an earlier run ended."""
        for field, reading in readings.items():
            if field in self._states and self._states[field].accepted is None:
                self._states[field] = CounterState(reading, None, 0)

    def feed(self, fields: dict[str, float], time_ns: int) -> tuple[dict[str, float], int]:
        """Remove the readings that are withheld from `fields`.

        Returns:
            What each counter gained, in kWh, by field, without those that have no reading before; and how
            many readings were withheld.
        """
        gained: dict[str, float] = {}
        withheld = 0
        states = self._states
        for counter in self._counters:
            field = counter.field
            kwh = fields.get(field)
            if kwh is None:
                continue
            accepted, candidate, confirmations = states[field]
            reading = Reading(kwh, time_ns)
            if accepted is None:
                states[field] = CounterState(reading, None, 0)
            elif _explains(counter, accepted, reading):
                gained[field] = kwh - accepted.kwh
                states[field] = CounterState(reading, None, 0)
            elif candidate is not None and _explains(counter, candidate, reading):
                if confirmations + 1 < _CONFIRMATIONS:
                    states[field] = CounterState(accepted, reading, confirmations + 1)
                    withheld += 1
                    del fields[field]
                else:
                    gained[field] = 0.0
                    states[field] = CounterState(reading, None, 0)
            else:
                states[field] = CounterState(accepted, reading, 0)
                withheld += 1
                del fields[field]
        return gained, withheld


def _explains(counter: EnergyCounter, before: Reading, reading: Reading) -> bool:
    """Return whether a power within the range leads from one reading to the next."""
    step_kwh = reading.kwh - before.kwh
    if step_kwh <= 0.0:
        return step_kwh == 0.0
    seconds = max(0.0, (reading.time_ns - before.time_ns) / 1e9) + _SLACK_SECONDS
    return step_kwh <= counter.most_kwh_per_second * seconds + counter.resolution_kwh
