"""Gaps, restarts, odd beginnings and time zones: energies of quarters of an hour, hours and local days."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.homes.recording import (
    Case,
    figures,
    figures_of_api,
    from_api,
    from_influxdb,
    record,
    replay,
    write_live,
)
from tests.homes.test_homes import assert_same
from tests.support.home_truth import QUARTER_SECONDS, total
from tests.support.influxd import Influxd

BERLIN = ZoneInfo("Europe/Berlin")
MIDNIGHTS = [
    datetime(2026, 6, 22, tzinfo=ZoneInfo("Asia/Kolkata")),
    datetime(2026, 6, 22, tzinfo=ZoneInfo("Asia/Kathmandu")),
    datetime(2026, 6, 22, tzinfo=ZoneInfo("Australia/Lord_Howe")),
    datetime(2026, 12, 22, tzinfo=ZoneInfo("Australia/Lord_Howe")),
]
# Days of 23, 25, 23.5 and 24.5 hours.
CLOCK_CHANGES = [
    datetime(2026, 3, 29, tzinfo=BERLIN),
    datetime(2026, 10, 25, tzinfo=BERLIN),
    datetime(2026, 10, 4, tzinfo=ZoneInfo("Australia/Lord_Howe")),
    datetime(2026, 4, 5, tzinfo=ZoneInfo("Australia/Lord_Howe")),
]
MINUTE = 60
COUNTED = ("grid_import", "grid_export")


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """A running influxd of the test's own, whose rollups only commands compute."""
    with Influxd(tmp_path / "influxd", sections={"continuous_queries": {"enabled": "false"}}) as server:
        yield server


def _energy_of_api(answer: dict[str, Any], index: int) -> dict[str, float]:
    return {name: column[index] or 0.0 for name, column in answer["energy"].items()}


def _id(moment: datetime) -> str:
    return f"{moment.tzinfo}-{moment:%Y-%m-%d}"


@pytest.mark.parametrize("midnight", MIDNIGHTS, ids=_id)
def test_a_local_day_ends_at_local_midnight(midnight: datetime, tmp_path: Path, influxd: Influxd) -> None:
    """The energies of 20 minutes on each side of midnight are in two days, by the home's own clock."""
    case = Case("ess", midnight - timedelta(minutes=20), 40 * MINUTE)
    recorded = record(case, tmp_path / "home")
    replay(recorded, influxd, "ess")
    middle_s = int(midnight.timestamp())
    begin_s = int((midnight - timedelta(days=1)).timestamp())
    end_s = int((midnight + timedelta(days=1)).timestamp())
    truths = [recorded.truth.between(begin_s, middle_s), recorded.truth.between(middle_s, end_s)]
    (answer,) = from_api(recorded, [(begin_s, end_s, "1d")])
    assert answer["time"] == [begin_s, middle_s]
    rollups = from_influxdb(influxd, "ess", "energy_1d", begin_s, end_s)
    assert sorted(rollups) == [begin_s, middle_s]
    for index, (at_s, truth) in enumerate(zip(answer["time"], truths, strict=True)):
        assert_same(figures(_energy_of_api(answer, index)), figures(truth))
        assert_same(figures(rollups[at_s]), figures(truth))


@pytest.mark.parametrize("midnight", MIDNIGHTS, ids=_id)
def test_a_local_hour_begins_with_the_clock_on_the_wall(
    midnight: datetime, tmp_path: Path, influxd: Influxd
) -> None:
    """Hours of the page and of InfluxDB begin at minute 0 by the home's own clock, and hold its energy."""
    case = Case("meter", midnight + timedelta(minutes=40), 40 * MINUTE)
    recorded = record(case, tmp_path / "home")
    replay(recorded, influxd, "ess")
    begin_s = int(midnight.timestamp())
    (answer,) = from_api(recorded, [(begin_s, begin_s + 7200, "1h")])
    rollups = from_influxdb(influxd, "ess", "energy_1h", begin_s, begin_s + 7200)
    assert answer["time"] == sorted(rollups) == [begin_s, begin_s + 3600]
    for index, at_s in enumerate(answer["time"]):
        home = recorded.truth.between(at_s, at_s + 3600)["home"]
        assert answer["energy"]["home"][index] == pytest.approx(home, rel=0.005)
        assert rollups[at_s]["home"] == pytest.approx(home, rel=0.005)


@pytest.mark.parametrize("day", CLOCK_CHANGES, ids=_id)
def test_a_day_on_which_the_clock_changes_is_one_day(day: datetime, tmp_path: Path, influxd: Influxd) -> None:
    """Its first and its last ten minutes are in it, and what was bought in between as well."""
    begin_s, end_s = (int((day + timedelta(days=days)).timestamp()) for days in (0, 1))
    seconds = end_s - begin_s + 20 * MINUTE
    pause = (20 * MINUTE, end_s - begin_s)
    case = Case("meter", day - timedelta(minutes=10), seconds, pauses=(pause,))
    recorded = record(case, tmp_path / "home")
    replay(recorded, influxd, "ess")
    truth, seen = recorded.truth.between(begin_s, end_s), recorded.seen.between(begin_s, end_s)
    assert seen["seconds"] == pytest.approx(20 * MINUTE, abs=1)
    (answer,) = from_api(recorded, [(begin_s, end_s, "1d")])
    rollups = from_influxdb(influxd, "ess", "energy_1d", begin_s, end_s)
    assert answer["time"] == list(rollups) == [begin_s]
    for energy in (_energy_of_api(answer, 0), rollups[begin_s]):
        assert energy["grid_import"] == pytest.approx(truth["grid_import"], rel=0.005)
        assert energy["home"] == pytest.approx(seen["home"], rel=0.005)


def test_a_missing_quarter_of_an_hour_hides_only_what_no_counter_knows(
    tmp_path: Path, influxd: Influxd
) -> None:
    """Nothing is invented for it: home and PV are those of the rest, and counters go on."""
    start = datetime(2026, 6, 21, 18, tzinfo=BERLIN)
    case = Case("ess", start, 3600, pauses=((1200, 2100),))
    recorded = record(case, tmp_path / "home")
    replay(recorded, influxd, "ess")
    truth, seen = (total(one.quarters.values()) for one in (recorded.truth, recorded.seen))
    (answer,) = from_api(recorded, [(case.start_s, case.start_s + 4500, "15m")])
    rollups = from_influxdb(influxd, "ess", "energy_15m", case.start_s, case.start_s + 4500)
    for found in (figures_of_api(answer), figures(total(rollups.values()))):
        assert found["home"] == pytest.approx(seen["home"], rel=0.005)
        assert found["pv"] == pytest.approx(seen["pv"], rel=0.005)
        for name in ("grid_import", "grid_export"):
            assert found[name] == pytest.approx(truth[name], abs=0.011)
        for name in ("battery_charge", "battery_discharge"):
            assert found[name] == pytest.approx(truth[name], abs=0.11)


def test_the_first_quarter_of_an_hour_counts_from_the_first_reading(tmp_path: Path, influxd: Influxd) -> None:
    """A recording that begins at 11:07:33 has the energy of seven and a half minutes until 11:15."""
    case = Case("ess", datetime(2026, 6, 21, 11, 7, 33, tzinfo=BERLIN), 1200)
    recorded = record(case, tmp_path / "home")
    replay(recorded, influxd, "ess")
    first_s = case.start_s // QUARTER_SECONDS * QUARTER_SECONDS
    (answer,) = from_api(recorded, [(first_s, first_s + 900, "15m")])
    rollups = from_influxdb(influxd, "ess", "energy_15m", first_s, first_s + 900)
    truth = figures(recorded.truth.between(first_s, first_s + 900))
    assert_same(figures_of_api(answer), truth)
    assert_same(figures(rollups[first_s]), truth)


def test_a_restart_loses_and_doubles_nothing(tmp_path: Path, influxd: Influxd) -> None:
    """The recorder is stopped and started again within an hour: both histories have the whole energy."""
    case = Case("ess", datetime(2026, 6, 21, 18, tzinfo=BERLIN), 3600, restart_after=1907)
    recorded = record(case, tmp_path / "home", keep=True)
    write_live(recorded, influxd, "ess")
    end_s = case.start_s + case.seconds + QUARTER_SECONDS
    (answer,) = from_api(recorded, [(case.start_s, end_s, "15m")])
    rollups = from_influxdb(influxd, "ess", "energy_15m", case.start_s, end_s)
    truth = figures(total(recorded.truth.quarters.values()))
    assert_same(figures_of_api(answer), truth)
    assert_same(figures(total(rollups.values())), truth)


def test_two_files_of_one_home_are_replayed_as_one(tmp_path: Path, influxd: Influxd) -> None:
    """Inverters and meters, captured apart, give the flows of both captured together."""
    found = []
    for number, separate in enumerate((False, True)):
        start = datetime(2026, 6, 21, 18, tzinfo=BERLIN)
        recorded = record(Case("ess", start, 600, separate=separate), tmp_path / f"home{number}")
        replay(recorded, influxd, f"ess{number}")
        found.append(
            [
                influxd.query(f'SELECT * FROM "{measurement}"', f"ess{number}")
                for measurement in ("flow", "pcs", "powermeter", "energy_10s")
            ]
        )
    together, apart = found
    assert len(together[0]) > 590
    assert together == apart
