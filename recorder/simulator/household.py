"""What a household draws: base load, fridge, cooking, washing, kettle, lights; and a heat pump.

Takes a seed and a time, gives the power on each of three phases. Never looks back: a day's plan
follows from the seed and the date alone.
"""

from bisect import bisect_right
from random import Random
from typing import NamedTuple

from recorder.simulator.noise import SmoothNoise, seeded

DAY_SECONDS = 86400
_HEAT_PUMP_CYCLE_SECONDS = 2700


class _Run(NamedTuple):
    """One appliance that draws `power_w` on phase `phase` (0 to 2), in seconds of the day."""

    start: int
    end: int
    phase: int
    power_w: int


class Household:
    """The loads of one home.

    Args:
        seed: what tells this household from another.
        utc_offset_seconds: from UTC to the household's own day, s.
    """

    def __init__(self, seed: str, utc_offset_seconds: int) -> None:
        self._seed = seed
        self._utc_offset_seconds = utc_offset_seconds
        habits = seeded(seed, "habits")
        self._base_cw = habits.randrange(9000, 26000)
        self._fridge_period_seconds = habits.randrange(2400, 3900)
        self._fridge_on_seconds = int(self._fridge_period_seconds * habits.uniform(0.25, 0.4))
        self._flicker = SmoothNoise(f"{seed}/flicker", 7)
        self._drift = SmoothNoise(f"{seed}/drift", 1200)
        self._day: int | None = None
        self._changes: list[int] = []
        self._phases_w: list[tuple[int, int, int]] = []

    def power_cw(self, epoch_seconds: int) -> tuple[int, int, int]:
        """Give the power on L1, L2 and L3 at a Unix time, each in 0.01 W and above 0."""
        local_seconds = epoch_seconds + self._utc_offset_seconds
        day, second = divmod(local_seconds, DAY_SECONDS)
        if day != self._day:
            self._day = day
            self._plan(day)
        first_w, second_w, third_w = self._phases_w[bisect_right(self._changes, second) - 1]
        base = int(self._base_cw * (0.8 + 0.4 * self._drift.at(epoch_seconds)))
        flicker = int(1500 * self._flicker.at(epoch_seconds))
        fridge = 8500 if local_seconds % self._fridge_period_seconds < self._fridge_on_seconds else 0
        return (
            first_w * 100 + base // 2 + flicker,
            second_w * 100 + base // 3 + fridge + flicker // 3,
            third_w * 100 + base // 5 + flicker // 2 + 100,
        )

    def _plan(self, day: int) -> None:
        runs = _runs_of_day(seeded(self._seed, "day", day))
        self._changes = sorted({0, *(run.start for run in runs), *(run.end for run in runs)})
        self._phases_w = []
        for change in self._changes:
            phases = [0, 0, 0]
            for run in runs:
                if run.start <= change < run.end:
                    phases[run.phase] += run.power_w
            self._phases_w.append((phases[0], phases[1], phases[2]))


class HeatPump:
    """A heat pump with a thermostat.

    Args:
        seed: what tells this heat pump from another.
        power_w: what its compressor draws at most.
    """

    def __init__(self, seed: str, power_w: int) -> None:
        self._power_cw = power_w * 100
        self._demand = SmoothNoise(f"{seed}/demand", 9000)
        self._load = SmoothNoise(f"{seed}/load", 600)

    def power_cw(self, epoch_seconds: int) -> int:
        """Give its power at a Unix time, 0.01 W: 6 W while it waits."""
        if epoch_seconds / _HEAT_PUMP_CYCLE_SECONDS % 1 > self._demand.at(epoch_seconds):
            return 600
        return int(self._power_cw * (0.6 + 0.4 * self._load.at(epoch_seconds)))


# Chance of a day, earliest and latest hour, shortest and longest run in s, phase, lowest and highest W.
_HABITS = (
    (0.7, 6.2, 8.5, 90, 200, 0, 2000, 2100),  # kettle
    (0.6, 10.0, 11.5, 90, 200, 0, 2000, 2100),
    (0.6, 14.5, 16.5, 90, 200, 0, 2000, 2100),
    (0.7, 19.5, 21.5, 90, 200, 0, 2000, 2100),
    (0.6, 6.5, 8.8, 180, 240, 0, 800, 900),  # toaster
    (0.5, 8.0, 9.5, 21600, 32400, 1, 70, 150),  # work at home
    (1.0, 6.0, 7.0, 3000, 6000, 0, 60, 140),  # lights in the morning
    (1.0, 16.8, 18.5, 14000, 19000, 0, 130, 300),  # lights and television in the evening
)
# Chance of a day, earliest and latest hour, shortest and longest time in minutes, W.
_MEALS = ((0.4, 11.5, 12.6, 15, 40, 1600), (0.8, 17.5, 19.2, 20, 50, 1900), (0.25, 17.8, 19.0, 40, 70, 2400))


def _runs_of_day(random: Random) -> list[_Run]:
    runs = []
    for chance, earliest, latest, shortest, longest, phase, low_w, high_w in _HABITS:
        if random.random() < chance:
            start = int(random.uniform(earliest, latest) * 3600)
            runs.append(
                _Run(start, start + random.randint(shortest, longest), phase, random.randint(low_w, high_w))
            )
    for chance, earliest, latest, fewest_minutes, most_minutes, power_w in _MEALS:
        if random.random() < chance:
            start = int(random.uniform(earliest, latest) * 3600)
            end = start + random.randint(fewest_minutes, most_minutes) * 60
            # The hob heats up, then its thermostat pulses.
            runs.append(_Run(start, start + 300, 1, power_w))
            runs += [_Run(pulse, pulse + 35, 1, power_w) for pulse in range(start + 300, end, 75)]
    if random.random() < 0.45:
        start = int(random.uniform(8.5, 17.5) * 3600)
        # The washing machine turns for an hour, heats at the beginning and spins at the end.
        runs.append(_Run(start, start + 4400, 2, 170))
        runs.append(_Run(start + 360, start + 360 + random.randint(700, 1100), 2, 1950))
        runs.append(_Run(start + 3900, start + 4400, 2, 320))
    return runs
