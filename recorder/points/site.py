"""All that is derived from the points of one site, whichever streams they come from.

Takes the points of its devices in the order of their times, returns them with the site's `flow` and
`energy_10s` points. Never does I/O.

    device point ─► counters checked ─► flow ─► energy
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Final, NamedTuple

from recorder.points.counters import CounterCheck, CounterState, Reading
from recorder.points.energy import SUBMETER_FIELDS, EnergySeries, EnergyState, integrated_name
from recorder.points.flow import DEFAULT_METER_MAX_AGE_SECONDS, FLOW_FIELDS, FlowBalance, FlowState
from recorder.points.point import Point
from recorder.profiles.model import POWER_SOURCES, Profile

_NOTHING: Final = frozenset[str]()
# The history is stored each minute, and what waits then within half a minute more.
_MOST_UNSTORED_NS: Final = 120 * 10**9


class SiteState(NamedTuple):
    """Where everything derived of a site is; counters and submeters by device."""

    flow: FlowState
    counters: tuple[tuple[str, tuple[CounterState, ...]], ...]
    energy: EnergyState
    submeters: tuple[tuple[str, EnergyState], ...]
    counted: tuple[tuple[str, str], ...]


class Site:
    """The devices of one site.

    Args:
        name: the `site` tag.
        profiles: the devices that it may have, in the order of the settings.
        max_age_seconds: how far apart in time two points may be that make one balance.
    """

    def __init__(
        self,
        name: str,
        profiles: Sequence[Profile],
        max_age_seconds: float = DEFAULT_METER_MAX_AGE_SECONDS,
    ) -> None:
        self.name = name
        self._profiles = {profile.device: profile for profile in profiles}
        self._flow = FlowBalance(name, profiles, max_age_seconds)
        self._counters = {one.device: CounterCheck(one.energy_counters) for one in profiles}
        self._flow_counters = _flow_counters(profiles)
        self._energy = EnergySeries(self._flow.tags, FLOW_FIELDS, _steps_kwh(profiles, self._flow_counters))
        self._submeters = {
            one.device: EnergySeries((("device", one.device), ("site", name)), SUBMETER_FIELDS)
            for one in profiles
            if one.role == "submeter"
        }
        # The counters, device and field, that have been read; a flow is counted once all of its counters are.
        self._counted: set[tuple[str, str]] = set()
        # Of each device: whether all of its counters have been read, and those that count with their flows.
        self._all_read: dict[str, bool] = {}
        self._counting: dict[str, tuple[tuple[str, str], ...]] = {}
        self._name_integrals()

    @property
    def state(self) -> SiteState:
        """Where the site is: what it returns depends on this and on what comes."""
        return SiteState(
            self._flow.state,
            tuple((device, check.state) for device, check in self._counters.items()),
            self._energy.state,
            tuple((device, series.state) for device, series in self._submeters.items()),
            tuple(sorted(self._counted)),
        )

    def resume(self, state: SiteState) -> None:
        """Go on from where the same site was."""
        self._flow.resume(state.flow)
        for device, counters in state.counters:
            self._counters[device].resume(counters)
        self._counted = set(state.counted)
        self._name_integrals()
        self._energy.resume(state.energy)
        for device, energy in state.submeters:
            self._submeters[device].resume(energy)

    def start_counters(self, device: str, readings: Mapping[str, Reading]) -> None:
        """Continue counting from the readings, by field, with which an earlier run ended."""
        if device in self._counters:
            self._counters[device].start_from(readings)

    def continue_energies(self, until_s: Mapping[str, float], now_ns: int) -> list[Point]:
        """Take back what was counted after the energies with which an earlier run ended.

        A recorder that was killed lost its last energies and readings: from the readings that it has stored,
        counters count on. The energies that came after those are in the database all the same, and would
        count twice.

        Args:
            until_s: the time of each series' last stored energy by its device, Unix seconds.
            now_ns: Unix ns.

        Returns:
            Points that overwrite the counted energies of that time, and add nothing.
        """
        points: list[Point] = []
        for device, at_s in until_s.items():
            series, names = self._continued(device)
            if series is not None and names:
                after_ns = round(at_s * 1e9)
                points += series.empty_cells(names, after_ns, min(now_ns, after_ns + _MOST_UNSTORED_NS))
        return points

    def _continued(self, device: str) -> tuple[EnergySeries | None, list[str]]:
        """Return the energies of a device's series, and the counted ones that go on from an earlier run."""
        known = {(one, field) for one, check in self._counters.items() for field in check.started}
        submeter = self._submeters.get(device)
        if submeter is not None:
            profile = self._profiles[device]
            pairs = zip(SUBMETER_FIELDS, ("grid_import", "grid_export"), strict=True)
            return submeter, [name for name, one in pairs if (device, profile.field_of(one)) in known]
        if ("device", device) not in self._flow.tags:
            return None, []
        needed = self._counters_of_flows()
        return self._energy, [flow for flow, counters in needed.items() if counters <= known]

    def take(self, device: str, point: Point, counts: Counter[str]) -> list[Point]:
        """Take the next point of a device, and return it with what is derived from it.

        A point without a time, or of a device that the site does not have, is returned as it is. Counter
        readings that are withheld are counted in `counts`.
        """
        time_ns = point.time_ns
        if time_ns is None or device not in self._profiles:
            return [point]
        fields = point.fields
        gained, withheld = self._counters[device].feed(fields, time_ns)
        if withheld:
            counts["withheld_counters"] += withheld
        points = [point] if fields else []
        flow = self._flow.feed(device, fields, time_ns)
        if flow is not None:
            points.append(flow)
        if device in self._submeters:
            self._add_submeter(device, fields, gained, time_ns, points)
            return points
        learned = _NOTHING if self._all_read[device] else self._learn_counters(device, fields)
        if flow is not None or (gained and self._flow_counters[device]):
            self._open(self._energy, time_ns, points)
            if gained:
                self._count(device, gained, learned)
            if flow is not None:
                # The fields of a flow are in the order of `FLOW_FIELDS`.
                self._energy.integrate(flow.fields.values(), time_ns)
        return points

    def may_be_asleep(self, device: str) -> bool:
        """Return whether a silent device may have switched itself off, as an inverter does at night."""
        return self._flow.may_be_asleep(device)

    def clock_was_set(self, by_ns: int) -> None:
        """Move what is remembered to the time of a clock that was set forward by `by_ns`."""
        self._flow.clock_was_set(by_ns)
        for counters in self._counters.values():
            counters.clock_was_set(by_ns)
        for series in (self._energy, *self._submeters.values()):
            series.clock_was_set(by_ns)

    def finish(self) -> list[Point]:
        """Return the energies that are still open."""
        open_series = (self._energy, *self._submeters.values())
        return [point for point in (series.close() for series in open_series) if point is not None]

    def _add_submeter(
        self,
        device: str,
        fields: Mapping[str, float],
        gained: Mapping[str, float],
        time_ns: int,
        points: list[Point],
    ) -> None:
        """Add the energy of a submeter: of its counters, or of its power where it has none."""
        series, profile = self._submeters[device], self._profiles[device]
        self._open(series, time_ns, points)
        counters = [profile.field_of(name) for name in ("grid_import", "grid_export")]
        for name, field in zip(SUBMETER_FIELDS, counters, strict=True):
            if field in gained:
                series.add(name, gained[field])
        power_w = fields.get(profile.field_of("grid_power"))
        if not any(counters) and power_w is not None:
            series.integrate((max(0.0, power_w), max(0.0, -power_w)), time_ns)

    def _counters_of_flows(self) -> dict[str, set[tuple[str, str]]]:
        """Return the counters, device and field, that make the energy of each counted flow."""
        counters: dict[str, set[tuple[str, str]]] = {}
        for of_device in self._flow_counters.values():
            for counter, flow in of_device.items():
                counters.setdefault(flow, set()).add(counter)
        return counters

    @staticmethod
    def _open(series: EnergySeries, time_ns: int, points: list[Point]) -> None:
        closed = series.open(time_ns)
        if closed is not None:
            points.append(closed)

    def _count(self, device: str, gained: Mapping[str, float], learned: Container[str]) -> None:
        """Add what a device's counters gained; until all counters of a flow are read it is integrated."""
        for field, flow in self._counting[device]:
            gained_kwh = gained.get(field)
            if gained_kwh is None:
                continue
            if field in learned:
                # Since an earlier run: how far the counter was in its step is not known any more.
                self._energy.add(flow, gained_kwh)
            else:
                self._energy.count(flow, gained_kwh)

    def _learn_counters(self, device: str, fields: Mapping[str, float]) -> set[str]:
        """Note which of a device's counters have been read, and return those that were not before."""
        own = self._flow_counters[device]
        read = {counter for counter in own if counter[1] in fields} - self._counted
        if read:
            self._counted |= read
            self._name_integrals()
        return {field for _, field in read}

    def _name_integrals(self) -> None:
        """Name the integral of each counted flow, which is then not the flow's energy itself."""
        needed = self._counters_of_flows()
        counted = {flow for flow, counters in needed.items() if counters <= self._counted}
        for device, own in self._flow_counters.items():
            self._all_read[device] = self._counted.issuperset(own)
            self._counting[device] = tuple(
                (field, flow) for (_, field), flow in own.items() if flow in counted
            )
        self._energy.rename(tuple(integrated_name(one) if one in counted else one for one in FLOW_FIELDS))


def _steps_kwh(
    profiles: Sequence[Profile], flow_counters: Mapping[str, Mapping[tuple[str, str], str]]
) -> dict[str, float]:
    """Return the smallest step of the counters of each flow, kWh."""
    steps: dict[str, float] = {}
    for profile in profiles:
        resolutions = {one.field: one.resolution_kwh for one in profile.energy_counters}
        for (_, field), flow in flow_counters[profile.device].items():
            step_kwh = resolutions.get(field, 0.0)
            steps[flow] = min(step_kwh, steps.get(flow, step_kwh))
    return steps


def _flow_counters(profiles: Sequence[Profile]) -> dict[str, dict[tuple[str, str], str]]:
    """Return, for each device, the flow of each counter that counts, by device and field.

    A flow is counted only where every device that takes part in it has a counter: else a part would be
    missing.
    """
    meters = [one for one in profiles if one.role == "grid_meter"][:1]
    sources = [one for one in profiles if one.role in POWER_SOURCES]
    batteries = [one for one in sources if one.role == "battery" or one.field_of("battery_power")]
    inverters = [one for one in sources if one.role != "battery"]
    taking_part = {
        "home": meters,
        "grid_import": meters,
        "grid_export": meters,
        "battery_charge": batteries,
        "battery_discharge": batteries,
        "pv": inverters,
    }
    found: dict[str, dict[tuple[str, str], str]] = {one.device: {} for one in profiles}
    for flow, devices in taking_part.items():
        if flow in FLOW_FIELDS and devices and all(one.field_of(flow) for one in devices):
            for one in devices:
                found[one.device][one.device, one.field_of(flow)] = flow
    return found
