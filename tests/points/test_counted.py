"""The energy of a counted flow, against counters whose true energy is known."""

from itertools import accumulate
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.points.counted import CountedEnergy

STEP_KWH = 0.1
gains = st.lists(st.floats(0, 0.04), max_size=60)
phases = st.floats(0, STEP_KWH, exclude_max=True)


def counted(true_kwh: list[float], phase_kwh: float, scale: float = 1.0) -> list[float]:
    """Return the energy so far after each part of the truth; the integral of the power is `scale` of it."""
    energy = CountedEnergy(STEP_KWH)
    shown = [floor((phase_kwh + sum_kwh) / STEP_KWH) for sum_kwh in accumulate(true_kwh, initial=0.0)]
    found = []
    total_kwh = 0.0
    for index, part_kwh in enumerate(true_kwh):
        steps = shown[index + 1] - shown[index]
        total_kwh += energy.follow(part_kwh * scale)
        if steps:
            total_kwh += energy.step(steps * STEP_KWH)
        found.append(total_kwh)
    return found


@given(gains, phases, st.floats(0, 2))
def test_energy_is_never_further_from_the_truth_than_two_steps(
    true_kwh: list[float], phase_kwh: float, scale: float
) -> None:
    """Whatever the integral shows, and wherever in its step the counter was: errors do not add up."""
    for found, truth in zip(counted(true_kwh, phase_kwh, scale), accumulate(true_kwh), strict=True):
        assert found == pytest.approx(truth, abs=2 * STEP_KWH + 1e-9)


@given(phases)
def test_energy_follows_the_power_between_steps(phase_kwh: float) -> None:
    """With a right integral it is as right as one sample, a hundredth of a step, from the first moment on."""
    true_kwh = [0.001] * 1000
    for found, truth in zip(counted(true_kwh, phase_kwh), accumulate(true_kwh), strict=True):
        assert found == pytest.approx(truth, abs=0.0021)


def test_counter_that_stands_still_is_no_more_than_a_step_behind() -> None:
    """An integral without a step of the counter adds one step at most."""
    energy = CountedEnergy(STEP_KWH)
    assert sum(energy.follow(0.03) for _ in range(100)) == pytest.approx(STEP_KWH)


def test_counter_alone_is_the_energy() -> None:
    """Where no power is known, steps count, but for the one that had begun before."""
    energy = CountedEnergy(STEP_KWH)
    assert sum(energy.step(STEP_KWH) for _ in range(5)) == pytest.approx(4 * STEP_KWH)


def test_energy_of_a_pause_is_what_the_counter_gained() -> None:
    """What was counted ahead before the pause is not counted again."""
    energy = CountedEnergy(STEP_KWH)
    energy.step(STEP_KWH)
    ahead_kwh = energy.follow(0.06)
    assert ahead_kwh + energy.step(3.1) == pytest.approx(3.1)
