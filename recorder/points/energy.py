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

from collections.abc import Collection, Mapping, Sequence
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

    `turns` counts how often the times went back; `integrals` are those of powers, None where there is none;
    `counted` has the state of each flow that may be counted.
    """

    cell: int | None
    turns: int
    kwh: tuple[tuple[str, float], ...]
    integrals: tuple[float, ...] | None
    span: _SpanState | None
    counted: tuple[tuple[str, CountedState], ...]


class EnergySeries:
    """The energies of one series.

    Args:
        tags: those of its points.
        names: the fields of the integrals of powers.
        steps_kwh: the smallest step of the counter of each flow that may be counted.
    """

    def __init__(
        self,
        tags: tuple[tuple[str, str], ...],
        names: tuple[str, ...],
        steps_kwh: Mapping[str, float] | None = None,
    ) -> None:
        self._tags = tags
        self._names = names
        self._cell: int | None = None
        self._turns = 0
        self._kwh: dict[str, float] = {}
        self._integrals: list[float] | None = None
        self._span: _SpanState | None = None
        self._counted = {flow: CountedEnergy(step_kwh) for flow, step_kwh in (steps_kwh or {}).items()}

    @property
    def state(self) -> EnergyState:
        """Where the energies are: what they return depends on this and on what comes."""
        integrals = None if self._integrals is None else tuple(self._integrals)
        counted = tuple((flow, one.state) for flow, one in self._counted.items())
        return EnergyState(self._cell, self._turns, tuple(self._kwh.items()), integrals, self._span, counted)

    def resume(self, state: EnergyState) -> None:
        """Go on from where the same series was; its fields have the same names."""
        self._cell, self._turns, self._span = state.cell, state.turns, state.span
        self._kwh = dict(state.kwh)
        self._integrals = None if state.integrals is None else list(state.integrals)
        for flow, counted in state.counted:
            self._counted[flow].state = counted

    def clock_was_set(self, by_ns: int) -> None:
        """Move the latest sample to the time of a clock that was set forward by `by_ns`."""
        if self._span is not None:
            self._span = _SpanState(self._span.time_ns + by_ns, self._span.spacing_ns)

    def empty_cells(self, names: Sequence[str], after_ns: int, before_ns: int) -> list[Point]:
        """Return points without energy for the tens of seconds between two that begin at these times."""
        cells = range(after_ns // _CELL_NS + 1, before_ns // _CELL_NS)
        return [Point(MEASUREMENT, self._tags, dict.fromkeys(names, 0.0), cell * _CELL_NS) for cell in cells]

    def rename(self, names: tuple[str, ...]) -> None:
        """Let the integrals of powers have other names from now on."""
        self._settle()
        self._names = names

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
        self._settle()
        kwh, self._kwh = self._kwh, {}
        if self._cell is None or not kwh:
            return None
        return Point(MEASUREMENT, self._tags, kwh, self._cell * _CELL_NS + self._turns)

    def add(self, name: str, kwh: float) -> None:
        """Add an energy to a field."""
        self._kwh[name] = self._kwh.get(name, 0.0) + kwh

    def count(self, flow: str, gained_kwh: float) -> None:
        """Add what the counter of a flow gained, to what its integral has shown before."""
        if not gained_kwh:
            self._kwh.setdefault(flow, 0.0)
            return
        self._settle()
        self.add(flow, self._counted[flow].step(gained_kwh))

    def integrate(self, watts: Collection[float], time_ns: int) -> None:
        """Add the energy of powers, in the order of their fields, since their sample before."""
        duration = self._duration_ns(time_ns) / _WATT_NS_PER_KWH
        before = self._integrals
        if before is None:
            self._integrals = [power * duration for power in watts]
        else:
            self._integrals = [kwh + power * duration for kwh, power in zip(before, watts, strict=True)]

    def _settle(self) -> None:
        """Add the integrals to their fields, and to counted flows as far as their counters will show them."""
        if self._integrals is not None:
            integrals = dict(zip(self._names, self._integrals, strict=True))
            self._integrals = None
            for name, kwh in integrals.items():
                self.add(name, kwh)
            for flow, counted in self._counted.items():
                integral = integrals.get(integrated_name(flow))
                if integral is not None:
                    self.add(flow, counted.follow(integral))

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
