"""The file's hours and days after the time zone was changed: those that another recorder would have."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from math import inf
from pathlib import Path
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from recorder.points.point import Point
from recorder.store.buckets import DAY, HOUR, STEPS, Buckets, Cells, Step
from recorder.store.database import EVERYTHING, Database
from recorder.store.store import Store, StoreLimits
from recorder.store.thinning import SeriesKey
from tests.support.influxd import wait_until

UTC: Final = ZoneInfo("UTC")
# Over the end of summer time in Berlin, in Lord Howe and before it in St John's.
START: Final = int(datetime(2026, 10, 1, 9, 7, tzinfo=UTC).timestamp())
END: Final = START + 30 * 86_400
SPACING_SECONDS: Final = 300
FOR_EVER: Final = StoreLimits(dict.fromkeys(("1m", "15m", "1h", "1d"), inf), 1 << 30)
QUARTER: Final = STEPS[1]

Content = dict[tuple[SeriesKey, Step, int], Cells]


def points(start: int = START, end: int = END) -> list[Point]:
    """Power and energy of a home, with a night without any."""
    tags = (("device", "pcs"), ("site", "home"))
    made = []
    for at in range(start, end, SPACING_SECONDS):
        if at // 3600 % 24 == 2:
            continue
        power = Random(at).uniform(0, 3000)
        made.append(Point("flow", tags, {"home": power, "pv": power / 3}, at * 10**9))
        made.append(Point("energy_10s", tags, {"home": power / 12_000}, at * 10**9))
    return made


def opened(directory: Path, zone: str, limits: StoreLimits = FOR_EVER, now: float = END) -> Store:
    """A store whose file is open, without its thread."""
    store = Store(directory, limits, zone, (), lambda: now)
    store.flush()
    return store


def record(store: Store, some: list[Point]) -> None:
    for begin in range(0, len(some), 2000):
        store.observe(some[begin : begin + 2000])
        store.flush()


def regroup(store: Store) -> None:
    while store.regroup():
        pass
    assert store.note == ""


def content(directory: Path) -> Content:
    """All hours and days of a file."""
    database = Database(directory / "history.db")
    found = {
        (key, step, begin): cells
        for key in database.series
        for step in (HOUR, DAY)
        for begin, cells in database.read(key, EVERYTHING, step, 0, 1 << 33)
    }
    database.close()
    return found


def assert_same(found: Content, expected: Content) -> None:
    assert found.keys() == expected.keys()
    for bucket, cells in expected.items():
        assert found[bucket].keys() == cells.keys(), bucket
        for name, cell in cells.items():
            assert found[bucket][name] == pytest.approx(cell, rel=1e-9), (bucket, name)


@pytest.fixture(scope="module")
def recorded_by(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Content]:
    """What a recorder would have stored that had this zone from the beginning."""
    expected = {}
    for old, new in CHANGES:
        for zone in (old, new):
            if zone not in expected:
                directory = tmp_path_factory.mktemp("expected")
                store = opened(directory, zone)
                record(store, points())
                store.close()
                expected[zone] = content(directory)
    return expected


CHANGES: Final = [
    ("Europe/Berlin", "America/New_York"),
    ("Europe/Berlin", "Africa/Lagos"),
    ("Europe/Berlin", "Asia/Kolkata"),
    ("Asia/Kathmandu", "Pacific/Chatham"),
    ("Australia/Lord_Howe", "Australia/Sydney"),
    ("America/St_Johns", "UTC"),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_rows_are_those_of_the_new_zone(
    tmp_path: Path, old: str, new: str, recorded_by: dict[str, Content]
) -> None:
    """After a change every hour and day is what it would be had the zone always been the new one."""
    store = opened(tmp_path, old)
    record(store, points())
    store.close()
    assert_same(content(tmp_path), recorded_by[old])
    store = opened(tmp_path, new)
    assert "regrouped" in store.note
    regroup(store)
    store.close()
    assert_same(content(tmp_path), recorded_by[new])


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_samples_that_come_meanwhile_count_once(
    tmp_path: Path, old: str, new: str, recorded_by: dict[str, Content]
) -> None:
    """What is recorded during a change, late points of past days included, is where it belongs."""
    some = points()
    # Each 40th point comes late, in the course of the change.
    late, early = some[::40], [point for index, point in enumerate(some) if index % 40]
    store = opened(tmp_path, old)
    record(store, early)
    store.close()
    store = opened(tmp_path, new)
    whole = recorded_by[new]
    left = Random(7).sample(late, len(late))
    while store.regroup():
        store.observe(left[:60])
        store.flush()
        left = left[60:]
    store.observe(left)
    store.flush()
    store.close()
    found = content(tmp_path)
    energies = SeriesKey("home", "energy", "pcs")
    for (key, step, begin), cells in whole.items():
        if key == energies:
            assert found[key, step, begin]["home"][1] == pytest.approx(cells["home"][1])
    assert {bucket for bucket in found if bucket[0] == energies} == {
        bucket for bucket in whole if bucket[0] == energies
    }


def test_change_back_restores_the_file(tmp_path: Path, recorded_by: dict[str, Content]) -> None:
    """There and back again gives the same file."""
    store = opened(tmp_path, "Europe/Berlin")
    record(store, points())
    store.close()
    for zone in ("Asia/Kolkata", "Europe/Berlin"):
        store = opened(tmp_path, zone)
        regroup(store)
        store.close()
    assert_same(content(tmp_path), recorded_by["Europe/Berlin"])


def test_change_during_a_change(tmp_path: Path, recorded_by: dict[str, Content]) -> None:
    """Where the zone is changed again before the first change is done, the file ends as that of the last."""
    store = opened(tmp_path, "Europe/Berlin")
    record(store, points())
    store.close()
    store = opened(tmp_path, "Asia/Kolkata")
    for _ in range(9):
        assert store.regroup()
    store.close()
    store = opened(tmp_path, "America/New_York")
    regroup(store)
    store.close()
    assert_same(content(tmp_path), recorded_by["America/New_York"])


@pytest.mark.parametrize("new", ["America/New_York", "Asia/Kolkata"])
def test_what_is_kept_as_hours_or_days_only_is_all_still_there(tmp_path: Path, new: str) -> None:
    """Days of which quarter hours, or hours, were deleted keep their amounts; none is counted twice."""
    day = 86_400.0
    limits = StoreLimits({"1m": 2 * day, "15m": 9.3 * day, "1h": 20.7 * day, "1d": inf}, 1 << 30)
    store = opened(tmp_path, "Europe/Berlin", limits)
    record(store, points())
    store.close()
    # So that what is too old is deleted, as each hour.
    opened(tmp_path, "Europe/Berlin", limits).close()
    before = content(tmp_path)
    store = opened(tmp_path, new, limits)
    regroup(store)
    store.close()
    after = content(tmp_path)
    for step in (HOUR, DAY):
        for key in {bucket[0] for bucket in before}:
            old, found = (
                [cells["home"][1] for bucket, cells in rows.items() if bucket[:2] == (key, step)]
                for rows in (before, after)
            )
            assert sum(found) == pytest.approx(sum(old))
    grid = Buckets(new)
    assert all(grid.begin(step, begin) == begin for _, step, begin in after)


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Europe/Berlin"])
def test_file_of_an_earlier_version(tmp_path: Path, zone: str, recorded_by: dict[str, Content]) -> None:
    """A file with hours of UTC, which does not name its zone, gets local hours."""
    store = opened(tmp_path, zone)
    store.buckets = Buckets(zone, "UTC")
    record(store, points())
    store.close()
    with closing(sqlite3.connect(tmp_path / "history.db")) as file:
        file.execute("DELETE FROM facts WHERE name = 'timezone'")
        file.commit()
    for new in (zone, "America/New_York"):
        store = opened(tmp_path, new)
        regroup(store)
        store.close()
        assert_same(content(tmp_path), recorded_by[new])


CHILD: Final = """
import sys
from pathlib import Path
from tests.store.test_zone_change import opened
store = opened(Path(sys.argv[1]), "Asia/Kolkata")
while store.regroup():
    print("day", flush=True)
store.close()
print("done", flush=True)
"""


def test_kill_midway_loses_and_doubles_nothing(tmp_path: Path, recorded_by: dict[str, Content]) -> None:
    """A recorder that is killed again and again in the middle of a change ends with the same file."""
    store = opened(tmp_path, "Europe/Berlin")
    record(store, points())
    store.close()
    rng = Random(3)
    kills = 0
    while True:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        arguments = [sys.executable, "-c", CHILD, str(tmp_path)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment) as child:
            assert child.stdout is not None
            for lines, line in enumerate(child.stdout, 1):
                if line == b"done\n":
                    break
                if lines > 1:
                    time.sleep(rng.uniform(0, 0.004))
                    child.send_signal(signal.SIGKILL)
                    kills += 1
                    break
            is_done = line == b"done\n"
        if is_done:
            break
    assert kills > 3
    assert_same(content(tmp_path), recorded_by["Asia/Kolkata"])


def test_service_thread_regroups_by_itself(tmp_path: Path, recorded_by: dict[str, Content]) -> None:
    """The store's own thread does it after a start, and points are taken meanwhile."""
    store = opened(tmp_path, "Europe/Berlin")
    record(store, points())
    store.close()
    store = Store(tmp_path, FOR_EVER, "Asia/Kolkata", (), lambda: END)
    store.start()
    wait_until(lambda: not store.note)
    store.close()
    assert_same(content(tmp_path), recorded_by["Asia/Kolkata"])
