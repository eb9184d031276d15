"""The energy of a flow between two steps of its counter.

Takes what a counter gained and the integral of the power beside it, returns the energy to add. No I/O.

A counter may count in steps of 0.1 kWh, and then say nothing for an hour: a day that begins or ends between
two steps would be wrong by up to one. So the energy of a counted flow is what its counter gained, plus the
integral since the counter's last step, but never more than one step ahead of the counter. When recording
starts nobody knows how far the counter is in its step: that step counts as far as the integral shows.
"""

from typing import NamedTuple


class CountedState(NamedTuple):
    """How far an energy is ahead of its counter, kWh, and whether a step of the counter has been seen."""

    ahead_kwh: float
    in_step: bool


class CountedEnergy:
    """The energy of one counted flow.

    Args:
        step_kwh: the smallest step of its counter.
    """

    def __init__(self, step_kwh: float) -> None:
        self._step_kwh = step_kwh
        self.state = CountedState(0.0, in_step=False)

    def follow(self, integral_kwh: float) -> float:
        """Return the part of an integral that the counter will show with its next step."""
        ahead_kwh, in_step = self.state
        part_kwh = min(integral_kwh, self._step_kwh - ahead_kwh)
        self.state = CountedState(ahead_kwh + part_kwh, in_step)
        return part_kwh

    def step(self, gained_kwh: float) -> float:
        """Return what the gain of a counter adds to what was counted ahead of it."""
        ahead_kwh, in_step = self.state
        self.state = CountedState(0.0, in_step=True)
        known_kwh = ahead_kwh if in_step else self._step_kwh
        return max(0.0, gained_kwh - known_kwh)
