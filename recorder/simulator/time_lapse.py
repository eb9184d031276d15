"""A plant in time lapse, and the past of a plant: what a demo shows without anyone having to wait.

Takes a seed and times, gives states second by second, or points minute by minute. Never reads a clock,
and never invents energy: counters gain the power that was shown, for as long as it was shown.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from recorder.points.point import Point
from recorder.points.site import Site
from recorder.profiles.model import Profile
from recorder.simulator.plant import Plant, PlantState
from recorder.simulator.stream import meter_sample, pcs_sample

PAST_STEP_SECONDS: Final = 60
# A battery follows the home within seconds: before each look it has these, however fast time runs.
_SETTLE_SECONDS: Final = 3


class TimeLapsePlant(Plant):
    """A plant whose day runs `speed` times as fast as the bus on which it is polled.

    Sun, household and battery follow the plant's own time. The time of its states, its poll counter
    and its energy counters follow the bus: it is recorded with real stamps, and a kWh stays a kWh.

    Args:
        seed: what tells this home from another.
        start_at_s: the plant's own time at its beginning, Unix time, s.
        speed: seconds of the plant to a second of the bus, 1 or more.
        before: the state whose time and counters the bus goes on from.
    """

    def __init__(self, seed: int, start_at_s: int, speed: float, before: PlantState) -> None:
        super().__init__(seed, start_at_s)
        self._start_at_s = start_at_s
        self._speed = speed
        self._bus_began_s = before.at_s
        self._seen = before

    @property
    def now_s(self) -> int:
        """The second that the bus has reached, Unix time."""
        return self._seen.at_s

    def sample(self, at_s: int) -> PlantState:
        """Run the bus on, second by second, and the plant with it; give the state there.

        Raises:
            ValueError: the bus is past that time already.
        """
        if at_s < self.now_s:
            raise ValueError("a plant runs forward only")
        while self.now_s < at_s:
            passed_s = self.now_s + 1 - self._bus_began_s
            reached_s = self._start_at_s + round(self._speed * passed_s)
            _run(self, reached_s - self._now_s)
            self._seen = _count(self.state, self._seen)
        return self._seen


def _count(state: PlantState, before: PlantState) -> PlantState:
    """Give `state` as it is one second of the bus after `before`."""
    return state._replace(
        at_s=before.at_s + 1,
        poll_counter=before.poll_counter + 1,
        heartbeat=(before.poll_counter + 1) % 256,
        charged_ws=before.charged_ws + max(0, -state.battery_power_w),
        discharged_ws=before.discharged_ws + max(0, state.battery_power_w),
        imported_cws=before.imported_cws + max(0, state.meter_power_cw),
        exported_cws=before.exported_cws + max(0, -state.meter_power_cw),
    )


def _run(plant: Plant, seconds: int) -> None:
    """Run the plant on in one coarse step, but for the last seconds."""
    coarse_s = max(0, seconds - _SETTLE_SECONDS)
    plant.advance(coarse_s, step_seconds=max(1, coarse_s))
    plant.advance(seconds - coarse_s)


class PastMinute(NamedTuple):
    """The points that a recorder makes of one state of a plant, and that state."""

    points: list[Point]
    state: PlantState


def past_of(
    plant: Plant, site: Site, profiles: Sequence[Profile], end_s: int, shift_seconds: int = 0
) -> Iterator[PastMinute]:
    """Run a plant on minute by minute, and return what a recorder would have seen at each.

    Args:
        plant: is advanced to `end_s` less the shift.
        site: derives flows and energies.
        profiles: the devices; those that record a PCS or its meter count.
        end_s: Unix time of the last points, s.
        shift_seconds: added to the plant's time to make that of points and states.
    """
    samples = {"powermeter": meter_sample, "pcs": pcs_sample}
    devices = {one.measurement: one.device for one in profiles if one.measurement in samples}
    counts: Counter[str] = Counter()
    while (at_s := plant.now_s + PAST_STEP_SECONDS + shift_seconds) <= end_s:
        _run(plant, PAST_STEP_SECONDS)
        state = plant.state._replace(at_s=at_s)
        points: list[Point] = []
        for measurement, sample in samples.items():
            device = devices[measurement]
            tags = (("device", device), ("site", site.name))
            point = Point(measurement, tags, sample(state), at_s * 1_000_000_000)
            points += site.take(device, point, counts)
        yield PastMinute(points, state)
