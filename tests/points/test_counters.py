"""Energy counters against the power that can feed them."""

from hypothesis import given
from hypothesis import strategies as st

from recorder.points.counters import CounterCheck, Reading
from recorder.profiles.model import EnergyCounter

SECOND = 10**9
# 36 kW at most: 0.01 kWh a second.
COUNTER = EnergyCounter("kwh", "grid_import", 36_000 / 3.6e6, 0.01)


def run(
    values: list[float | None], *, before: Reading | None = None
) -> tuple[list[float | None], float, int]:
    """Return what is accepted of readings at one a second, the energy gained, and how many were withheld."""
    check = CounterCheck([COUNTER])
    if before is not None:
        check.start_from({"kwh": before})
    accepted: list[float | None] = []
    gained, withheld = 0.0, 0
    for second, value in enumerate(values):
        fields = {} if value is None else {"kwh": value}
        of_reading, missing = check.feed(fields, second * SECOND)
        accepted.append(fields.get("kwh"))
        gained += of_reading.get("kwh", 0.0)
        withheld += missing
    return accepted, round(gained, 9), withheld


def test_true_readings_pass_and_add_up() -> None:
    """What a counter gains is the energy."""
    assert run([100.0, 100.01, 100.01, 100.02]) == ([100.0, 100.01, 100.01, 100.02], 0.02, 0)


def test_single_zero_is_withheld() -> None:
    """A reading of 0 between true ones is absent and adds nothing."""
    assert run([12345.0, 0.0, 12345.01]) == ([12345.0, None, 12345.01], 0.01, 1)


def test_single_value_of_another_register_is_withheld() -> None:
    """A reading far above, once, is absent; the next true one is accepted at once."""
    assert run([100.0, 64297.0, 100.01, 100.01]) == ([100.0, None, 100.01, 100.01], 0.01, 1)


def test_replaced_meter_adds_no_energy() -> None:
    """A higher level that two more readings confirm adds no energy, and counts from there."""
    assert run([100.0, 30000.0, 30000.01, 30000.02, 30000.03]) == (
        [100.0, None, None, 30000.02, 30000.03],
        0.01,
        2,
    )


def test_reset_counter_adds_no_energy() -> None:
    """A lower level, as after a reset, a rollover or a new meter, is accepted in the same way."""
    assert run([42949672.95, 0.0, 0.0, 0.01, 0.02]) == ([42949672.95, None, None, 0.01, 0.02], 0.01, 2)


def test_level_that_is_not_confirmed_is_never_accepted() -> None:
    """Readings that agree neither with the last one nor with each other stay withheld."""
    assert run([100.0, 500.0, 900.0, 300.0, 100.02])[0] == [100.0, None, None, None, 100.02]


def test_first_reading_after_a_gap_holds_the_energy_of_the_gap() -> None:
    """A meter counts on while nobody reads it; a small step is believed at once."""
    values = [100.0, *[None] * 99, 100.02]
    accepted, gained, withheld = run(values)
    assert (accepted, withheld) == (values, 0)
    assert gained == 0.02


def test_large_step_after_a_gap_needs_two_more_readings() -> None:
    """It is explained by the time that passed, as a wrong reading would be."""
    accepted, gained, withheld = run([100.0, *[None] * 99, 100.5, 100.5, 100.51])
    assert (accepted[-3:], withheld) == ([None, None, 100.51], 2)
    assert gained == 0.51


def test_wrong_reading_after_a_gap_adds_no_energy() -> None:
    """However much the power could have counted meanwhile."""
    accepted, gained, withheld = run([100.0, *[None] * 99, 100.5, 100.0, 100.01])
    assert (accepted[-3:], withheld) == ([None, 100.0, 100.01], 1)
    assert gained == 0.01


def test_counting_continues_from_an_earlier_run() -> None:
    """A run gains what the counter moved on since the last reading of the run before."""
    before = Reading(100.0, -3600 * SECOND)
    accepted, gained, withheld = run([100.2, 100.2, 100.2], before=before)
    assert (accepted, withheld) == ([None, None, 100.2], 2)
    assert gained == 0.2


@given(st.lists(st.integers(0, 1), min_size=2, max_size=60), st.data())
def test_no_glitch_adds_energy(steps: list[int], data: st.DataObject) -> None:
    """Whatever single readings between true ones are replaced, the energy is that of the true counter."""
    truth = [1000.0]
    for step in steps:
        truth.append(round(truth[-1] + step / 100, 2))
    values: list[float | None] = list(truth)
    last = -2
    for index in range(1, len(values) - 1):
        if index - last >= 2 and data.draw(st.booleans()):
            values[index] = data.draw(st.floats(0, 900) | st.floats(2000, 1e8))
            last = index
    accepted, gained, withheld = run(values)
    assert gained == round(truth[-1] - truth[0], 9)
    assert withheld == accepted.count(None) == sum(a != b for a, b in zip(values, truth, strict=True))


@given(st.lists(st.floats(0, 1e9), max_size=50))
def test_no_readings_gain_more_than_the_power_allows(values: list[float]) -> None:
    """However wild the readings are, the energy is bounded by the time that they took."""
    _, gained, _ = run(list(values))
    assert 0 <= gained <= sum(0.01 * (1 + 2) + 0.01 + 1e-9 for _ in values)
