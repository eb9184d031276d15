"""The energy of a site: kWh of each flow, ten seconds by ten seconds.

Takes `flow` points and what counters gained, returns points of the measurement `energy_10s`, of which every
longer energy is a sum. Never does I/O.

    tags            fields, kWh in the ten seconds from the point's time on
    those of flow   each flow, from its counter where the site has one (between its steps from the power),
                    else from its power over time;
                    NAME_integrated: the latter beside a counted flow
    device, site    submeter_import, submeter_export: what the counters of a submeter gained, or its power
    over time

A power stands for the time since the sample before it. After a pause of more than a minute it stands for as
long as the sample before the pause did, so that a pause adds no energy; what a counter gained meanwhile
counts when it is read again. Times are whole tens of seconds, so that the same samples give the same points
whenever they are decoded. The ten seconds in which the first sample lies are counted with the next, since
what was before it may be stored already.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from recorder.points.counted import CountedEnergy, CountedState
from recorder.points.flow import FLOW_FIELDS
from recorder.points.point import Point
from recorder.profiles.model import Profile

MEASUREMENT: Final = "energy_10s"
SUBMETER_FIELDS: Final = ("submeter_import", "submeter_export")
_CELL_NS: Final = 10 * 10**9
_LONGEST_SPACING_NS: Final = 60 * 10**9
_WATT_NS_PER_KWH: Final = 3.6e15


def integrated_name(flow: str) -> str:
    """Return the field of a counted flow's integral."""
    return f"{flow}_integrated"


def energy_fields(profiles: Sequence[Profile]) -> tuple[str, ...]:
    """Return every field that the energies of these devices may have, in order."""
    counted = [flow for flow in FLOW_FIELDS if any(flow in dict(one.energy) for one in profiles)]
    submeters = SUBMETER_FIELDS if any(one.role == "submeter" for one in profiles) else ()
    return (*FLOW_FIELDS, *map(integrated_name, counted), *submeters)


class _SpanState(NamedTuple):
    """The latest sample of a power, and the usual spacing of its samples, in Unix ns and ns."""

    time_ns: int
    spacing_ns: int


class EnergyState(NamedTuple):
    """Where the energies of one series are: the ten seconds that are open, and what is known of powers.

    `turns` counts how often the times went back. `counted` has, of each counted flow, its state and how much
    of the open integral it has followed.
    """

    cell: int | None
    turns: int
    kwh: tuple[tuple[str, float], ...]
    span: _SpanState | None
    counted: tuple[tuple[str, CountedState, float], ...]


class EnergySeries:
    """The energies of one series.

    Args:
        tags: those of its points.
        steps_kwh: the smallest step of the counter of each flow that may be counted.
    """

    def __init__(
        self, tags: tuple[tuple[str, str], ...], steps_kwh: Mapping[str, float] | None = None
    ) -> None:
        self._tags = tags
        self._cell: int | None = None
        self._turns = 0
        self._kwh: dict[str, float] = {}
        self._span: _SpanState | None = None
        self._counted = {flow: CountedEnergy(step_kwh) for flow, step_kwh in (steps_kwh or {}).items()}
        self._followed = dict.fromkeys(self._counted, 0.0)

    @property
    def state(self) -> EnergyState:
        """Where the energies are: what they return depends on this and on what comes."""
        counted = tuple((flow, one.state, self._followed[flow]) for flow, one in self._counted.items())
        return EnergyState(self._cell, self._turns, tuple(self._kwh.items()), self._span, counted)

    def resume(self, state: EnergyState) -> None:
        """Go on from where the same series was."""
        self._cell, self._turns, self._span = state.cell, state.turns, state.span
        self._kwh = dict(state.kwh)
        for flow, counted, followed_kwh in state.counted:
            self._counted[flow].state = counted
            self._followed[flow] = followed_kwh

    def clock_was_set(self, by_ns: int) -> None:
        """Move the latest sample to the time of a clock that was set forward by `by_ns`."""
        if self._span is not None:
            self._span = _SpanState(self._span.time_ns + by_ns, self._span.spacing_ns)

    def open(self, time_ns: int) -> Point | None:
        """Open the ten seconds of a time; returns the point of those before where they are over."""
        cell = time_ns // _CELL_NS
        if self._cell is None:
            self._cell = cell + 1
            return None
        # A late sample counts with those that are open.
        if self._cell - 1 <= cell <= self._cell:
            return None
        closed = self.close()
        if cell < self._cell:
            # A clock was set back: what was stored under these times stays, and both are summed.
            self._turns += 1
        self._cell = cell
        return closed

    def close(self) -> Point | None:
        """Return the point of the ten seconds that are open, and empty them."""
        for flow in self._counted:
            self._follow(flow)
            self._followed[flow] = 0.0
        kwh, self._kwh = self._kwh, {}
        if self._cell is None or not kwh:
            return None
        return Point(MEASUREMENT, self._tags, kwh, self._cell * _CELL_NS + self._turns)

    def add(self, gained_kwh: Mapping[str, float]) -> None:
        """Add energies by field."""
        kwh = self._kwh
        for name, gain in gained_kwh.items():
            kwh[name] = kwh.get(name, 0.0) + gain

    def count(self, flow: str, gained_kwh: float) -> None:
        """Add what the counter of a flow gained, to what its integral has shown before."""
        self._follow(flow)
        self.add({flow: self._counted[flow].step(gained_kwh) if gained_kwh else 0.0})

    def _follow(self, flow: str) -> None:
        """Let a counted flow have as much energy as its integral shows."""
        integral_kwh = self._kwh.get(integrated_name(flow))
        if integral_kwh is not None:
            self.add({flow: self._counted[flow].follow(integral_kwh - self._followed[flow])})
            self._followed[flow] = integral_kwh

    def integrate(self, watts: Mapping[str, float], names: Mapping[str, str], time_ns: int) -> None:
        """Add the energy of powers since their sample before; `names` holds the fields that differ."""
        duration = self._duration_ns(time_ns) / _WATT_NS_PER_KWH
        kwh = self._kwh
        for name, power in watts.items():
            field = names.get(name, name)
            kwh[field] = kwh.get(field, 0.0) + power * duration

    def _duration_ns(self, time_ns: int) -> int:
        span = self._span
        if span is None:
            self._span = _SpanState(time_ns, 0)
            return 0
        since_ns = time_ns - span.time_ns
        if 0 <= since_ns <= _LONGEST_SPACING_NS:
            self._span = _SpanState(time_ns, since_ns or span.spacing_ns)
            return since_ns
        if -_CELL_NS < since_ns < 0:
            # A sample that comes late: its time is counted already.
            return 0
        self._span = _SpanState(time_ns, span.spacing_ns)
        return span.spacing_ns
