"""Energy counters of devices, checked against the power that can feed them.

Takes the fields of a point, returns what each counter gained. A reading that no power within the profile's
range explains (a counter that fell, or rose too far) is withheld until two more readings agree with it: then
the counter was reset, rolled over or replaced, and the new level adds no energy. After a pause a power within
the range explains a lot: a step that would need more than ten seconds of it is withheld as well, and adds its
energy once two more readings agree with it. Never does I/O.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from recorder.profiles.model import EnergyCounter

# Readings after the first one that a new level needs.
_CONFIRMATIONS: Final = 2
# A reading may have been taken earlier than its time says, and the one before it later.
_SLACK_SECONDS: Final = 2.0
# A step that the largest power makes in so many seconds needs no other reading to be believed.
_BELIEVED_SECONDS: Final = 10.0


class Reading(NamedTuple):
    """What a counter said, in kWh, and when, in Unix ns."""

    kwh: float
    time_ns: int


class CounterState(NamedTuple):
    """The last accepted reading of a counter, and a new level with the number of readings that confirm it."""

    accepted: Reading | None
    candidate: Reading | None
    confirmations: int


@dataclass(slots=True)
class _Counter:
    """A counter and what is known of it; attributes of its own, because every reading changes them."""

    counter: EnergyCounter
    accepted_kwh: float | None = None
    accepted_ns: int = 0
    candidate: Reading | None = None
    confirmations: int = 0

    def accept(self, kwh: float, time_ns: int) -> None:
        """Let a reading be the accepted one."""
        self.accepted_kwh, self.accepted_ns = kwh, time_ns
        self.candidate, self.confirmations = None, 0


class CounterCheck:
    """The check of one device's counters.

    Args:
        counters: the counters that a power bounds.
    """

    def __init__(self, counters: Sequence[EnergyCounter]) -> None:
        self._counters = {one.field: _Counter(one) for one in counters}

    @property
    def state(self) -> tuple[CounterState, ...]:
        """Where the counters are: what is returned depends on this and on what comes."""
        return tuple(
            CounterState(
                None if one.accepted_kwh is None else Reading(one.accepted_kwh, one.accepted_ns),
                one.candidate,
                one.confirmations,
            )
            for one in self._counters.values()
        )

    def resume(self, state: Sequence[CounterState]) -> None:
        """Go on from where another check of the same counters was."""
        for one, (accepted, candidate, confirmations) in zip(self._counters.values(), state, strict=True):
            one.accepted_kwh, one.accepted_ns = accepted or (None, 0)
            one.candidate, one.confirmations = candidate, confirmations

    def clock_was_set(self, by_ns: int) -> None:
        """Move the times of readings to a clock that was set forward by `by_ns`."""
        for one in self._counters.values():
            one.accepted_ns += by_ns
            if one.candidate is not None:
                one.candidate = one.candidate._replace(time_ns=one.candidate.time_ns + by_ns)

    @property
    def started(self) -> frozenset[str]:
        """The fields that have an accepted reading."""
        return frozenset(field for field, one in self._counters.items() if one.accepted_kwh is not None)

    def start_from(self, readings: Mapping[str, Reading]) -> None:
        """Continue counting from the readings, by field, with which an earlier run ended."""
        for field, reading in readings.items():
            one = self._counters.get(field)
            if one is not None and one.accepted_kwh is None:
                one.accept(*reading)

    def feed(self, fields: dict[str, float], time_ns: int) -> tuple[dict[str, float], int]:
        """Remove the readings that are withheld from `fields`.

        Returns:
            What each counter gained, in kWh, by field, without those that have no reading before; and how
            many readings were withheld.
        """
        gained: dict[str, float] = {}
        withheld = 0
        for field, one in self._counters.items():
            kwh = fields.get(field)
            if kwh is None:
                continue
            before_kwh = one.accepted_kwh
            if kwh == before_kwh:
                # As most readings are: a counter has a coarse step.
                gained[field] = 0.0
                one.accepted_ns = time_ns
                if one.candidate is not None:
                    one.accept(kwh, time_ns)
                continue
            if before_kwh is None:
                one.accept(kwh, time_ns)
                continue
            before, reading = Reading(before_kwh, one.accepted_ns), Reading(kwh, time_ns)
            if _explains(one.counter, before, reading, _BELIEVED_SECONDS):
                gained[field] = kwh - before_kwh
                one.accept(kwh, time_ns)
            elif _is_confirmed(one, reading):
                gained[field] = kwh - before_kwh if _explains(one.counter, before, reading) else 0.0
                one.accept(kwh, time_ns)
            else:
                withheld += 1
                del fields[field]
        return gained, withheld


def _is_confirmed(one: _Counter, reading: Reading) -> bool:
    """Note a reading that the one before does not explain; return whether its level is confirmed now."""
    if one.candidate is not None and _explains(one.counter, one.candidate, reading):
        one.confirmations += 1
    else:
        one.confirmations = 0
    one.candidate = reading
    return one.confirmations >= _CONFIRMATIONS


def _explains(counter: EnergyCounter, before: Reading, reading: Reading, most_seconds: float = inf) -> bool:
    """Return whether a power within the range leads from one reading to the next, within so many seconds."""
    step_kwh = reading.kwh - before.kwh
    if step_kwh <= 0.0:
        return step_kwh == 0.0
    seconds = min(most_seconds, max(0.0, (reading.time_ns - before.time_ns) / 1e9)) + _SLACK_SECONDS
    return step_kwh <= counter.most_kwh_per_second * seconds + counter.resolution_kwh
