"""Energies on a real server and in the local history: equal to the truth, and to each other.

Points of devices go through a site, as the recorder's do, into a store and into InfluxDB. The truth is
counted here, second by second.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from math import inf
from pathlib import Path

import pytest

from recorder.commands.configuration import load_configuration
from recorder.influx.server import Connection, InfluxServer
from recorder.influx.setup import SetUp, SetUpSettings
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.points.site import Site
from recorder.store.buckets import STEPS, Step
from recorder.store.history import Question, history
from recorder.store.store import Store, StoreLimits
from tests.influx.plant import NS, quiet
from tests.support.influxd import Influxd

PROFILES = load_configuration(None, {}).profiles
MEASUREMENTS = {one.device: one.measurement for one in PROFILES}
START = datetime(2026, 7, 1, 9, 50, 5, tzinfo=UTC)
START_S = int(START.timestamp())
DAY_S = START_S // 86400 * 86400
NOW = datetime(2026, 7, 2, 12, tzinfo=UTC)
FOR_EVER = StoreLimits(dict.fromkeys(("1m", "15m", "1h", "1d"), inf), 1 << 30)
_, QUARTERS, _, DAYS = STEPS
SECONDS = 3600
IMPORT_W, PV_W = 3600.0, 1800.0
# Between two steps of the counter the integral is counted, for one step at most.
STEP_KWH = 0.0101


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """A server whose own continuous queries do not run."""
    with Influxd(tmp_path / "influxd", sections={"continuous_queries": {"enabled": "false"}}) as server:
        yield server


class Recording:
    """One site into both places."""

    def __init__(self, directory: Path, influxd: Influxd) -> None:
        self._influxd = influxd
        settings = SetUpSettings(profiles=PROFILES, timezone="UTC")
        self._set_up = SetUp(InfluxServer(Connection(influxd.url)), settings)
        self._set_up.apply()
        self._directory = directory
        self.store = self._opened()

    def _opened(self) -> Store:
        store = Store(self._directory, FOR_EVER, "UTC", PROFILES, NOW.timestamp)
        assert store.flush()
        return store

    def record(self, points: Sequence[Point]) -> None:
        """Store points in both places, and let InfluxDB compute."""
        self.store.observe(points)
        self.write(points)

    def write(self, points: Sequence[Point]) -> None:
        """Write points into InfluxDB only, and let it compute."""
        for at in range(0, len(points), 5000):
            self._influxd.write(b"\n".join(map(to_line, points[at : at + 5000])), "ess")
        self._set_up.backfill(START, NOW, NOW, quiet)

    def started_again(self, at_s: int) -> Site:
        """A site as the service starts it from what is on the disk."""
        self.store = self._opened()
        site = Site("home", PROFILES)
        for profile in PROFILES:
            site.start_counters(profile.device, self.store.last_readings("home", profile))
        self.record(site.continue_energies(self.store.energies_until_s("home"), at_s * NS))
        return site

    def in_influxdb(self, measurement: str, flow: str) -> dict[int, float]:
        rows = self._influxd.query(f"SELECT {flow} FROM rollups.{measurement}", "ess")
        return {row["time"] // NS: row[flow] for row in rows if row[flow] is not None}

    def in_history(self, step: Step, flow: str) -> dict[int, float]:
        answer = history(self.store, Question("home", DAY_S, DAY_S + 86400, step))
        columns = zip(answer["time"], answer["energy"][flow], strict=True)
        return {at_s: kwh for at_s, kwh in columns if kwh is not None}

    def energies(self, flow: str) -> dict[int, float]:
        """Energies by quarter of an hour, once both places agree about them and about the day."""
        quarters = self.in_history(QUARTERS, flow)
        assert self.in_influxdb("energy_15m", flow) == pytest.approx(quarters, abs=1e-6)
        assert self.in_influxdb("energy_1d", flow) == pytest.approx(self.in_history(DAYS, flow), abs=1e-6)
        assert sum(self.in_history(DAYS, flow).values()) == pytest.approx(sum(quarters.values()), abs=1e-5)
        return quarters


def device_point(device: str, at_s: float, **fields: float) -> Point:
    tags = (("device", device), ("site", "home"))
    return Point(MEASUREMENTS[device], tags, fields, round(at_s * NS))


def second(site: Site, at_s: int, reading: float) -> list[Point]:
    """What a second of both devices yields: the home uses what is bought and what PV delivers."""
    meter = device_point("meter", at_s, active_power=IMPORT_W, active_import=reading, active_export=0.0)
    pcs = device_point("pcs", at_s, active_power=PV_W, pv_power=PV_W, battery_power=0.0)
    return [*site.take("meter", meter, Counter()), *site.take("pcs", pcs, Counter())]


def counter(at_s: int) -> float:
    """The true counter: 3.6 kW in steps of 0.01 kWh, some way into its life."""
    return 99_998.5 + (at_s - START_S) // 10 / 100


def by_quarter(seconds: Sequence[int], kwh: Callable[[int, int], float]) -> dict[int, float]:
    """Add up what each second after the one before it brought."""
    sums: defaultdict[int, float] = defaultdict(float)
    for before, at_s in pairwise(seconds):
        sums[at_s // 900 * 900] += kwh(before, at_s)
    return dict(sums)


def counted(before: int, at_s: int) -> float:
    return counter(at_s) - counter(before)


FAULT_S = START_S + 1800
FAULTS: dict[str, Callable[[int], float]] = {
    "no fault": counter,
    "single 0": lambda at_s: 0.0 if at_s == FAULT_S else counter(at_s),
    "other register's value": lambda at_s: 64_297.0 if at_s == FAULT_S else counter(at_s),
    "other register's value, twice": lambda at_s: 2307.0 if at_s in {FAULT_S, FAULT_S + 1} else counter(at_s),
    "reset": lambda at_s: counter(at_s) - (counter(FAULT_S) if at_s >= FAULT_S else 0.0),
    "rollover": lambda at_s: counter(at_s) % 100_000,
    "meter replaced by a higher one": lambda at_s: counter(at_s) + (250_000 if at_s >= FAULT_S else 0),
    "meter replaced by a lower one": lambda at_s: counter(at_s) - (90_000 if at_s >= FAULT_S else 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_counter_leave_energies_right(influxd: Influxd, tmp_path: Path, fault: str) -> None:
    """Single wrong readings cost nothing, a new level at most the step of the readings that confirm it."""
    seconds = range(START_S, START_S + SECONDS)
    site, points = Site("home", PROFILES), list[Point]()
    for at_s in seconds:
        points += second(site, at_s, round(FAULTS[fault](at_s), 2))
    recording = Recording(tmp_path / "store", influxd)
    with closing(recording.store):
        recording.record(points + site.finish())
        found, truth = recording.energies("grid_import"), by_quarter(seconds, counted)
        integrated = recording.in_influxdb("energy_15m", "grid_import_integrated")
    assert found == pytest.approx(truth, abs=STEP_KWH)
    expected = by_quarter(seconds, lambda before, at_s: IMPORT_W * (at_s - before) / 3.6e6)
    assert integrated == pytest.approx(expected, abs=1e-6)


def test_minute_that_is_partly_covered_counts_for_the_covered_time(influxd: Influxd, tmp_path: Path) -> None:
    """Ten seconds of a minute are a sixth of its energy; a counter knows what the pause hid."""
    seconds = [*range(START_S, START_S + 610), *range(START_S + 2000, START_S + 2010)]
    site, points = Site("home", PROFILES), list[Point]()
    for at_s in seconds:
        points += second(site, at_s, counter(at_s))
    recording = Recording(tmp_path / "store", influxd)
    with closing(recording.store):
        recording.record(points + site.finish())
        home, bought = recording.energies("home"), recording.energies("grid_import")
    covered = by_quarter(seconds, lambda before, at_s: 1.0 if at_s - before > 60 else at_s - before)
    expected = {at_s: (IMPORT_W + PV_W) * covered_s / 3.6e6 for at_s, covered_s in covered.items()}
    assert home == pytest.approx(expected, abs=1e-6)
    assert bought == pytest.approx(by_quarter(seconds, counted), abs=STEP_KWH)


def test_first_quarter_hour_counts_from_the_first_reading(influxd: Influxd, tmp_path: Path) -> None:
    """What a counter showed before the first start is no energy; what it gained since is, from then on."""
    seconds = range(START_S + 120, START_S + 480)
    site, points = Site("home", PROFILES), list[Point]()
    for at_s in seconds:
        points += second(site, at_s, counter(at_s))
    recording = Recording(tmp_path / "store", influxd)
    with closing(recording.store):
        recording.record(points + site.finish())
        found = recording.energies("grid_import")
        home = recording.energies("home")
    assert found == pytest.approx(by_quarter(seconds, counted), abs=STEP_KWH)
    assert sum(home.values()) == pytest.approx(359 * (IMPORT_W + PV_W) / 3.6e6, abs=1e-6)


def test_replay_of_what_was_recorded_live_changes_no_energy(influxd: Influxd, tmp_path: Path) -> None:
    """The same samples decoded again, from another beginning, overwrite their energies with the same ones."""
    site, points = Site("home", PROFILES), list[Point]()
    for at_s in range(START_S, START_S + SECONDS):
        points += second(site, at_s, counter(at_s))
    recording = Recording(tmp_path / "store", influxd)
    with closing(recording.store):
        recording.record(points + site.finish())
        before = {flow: recording.energies(flow) for flow in ("grid_import", "home", "pv", "pv_to_home")}
        again, replayed = Site("home", PROFILES), list[Point]()
        for at_s in range(START_S + 1003, START_S + 2407):
            replayed += second(again, at_s, counter(at_s))
        recording.write(replayed + again.finish())
        for flow, quarters in before.items():
            found = recording.in_influxdb("energy_15m", flow)
            # The first and the last ten seconds of what is replayed have no more than a part of theirs.
            edge_kwh = 3 * 10 * (IMPORT_W + PV_W) / 3.6e6
            for at_s, kwh in quarters.items():
                is_edge = at_s in {(START_S + 1003) // 900 * 900, (START_S + 2407) // 900 * 900}
                assert found[at_s] == pytest.approx(kwh, abs=edge_kwh if is_edge else 1e-6)


def seconds_of(site: Site, first_s: int, end_s: int) -> list[Point]:
    return [point for at_s in range(first_s, end_s) for point in second(site, at_s, counter(at_s))]


def test_restart_within_a_quarter_hour_costs_no_counted_energy(influxd: Influxd, tmp_path: Path) -> None:
    """What counters gain while no recorder runs is there, and an uncounted flow lacks the pause."""
    stopped_s, started_s, end_s = START_S + 900, START_S + 960, START_S + 1800
    recording = Recording(tmp_path / "store", influxd)
    site = Site("home", PROFILES)
    recording.record(seconds_of(site, START_S, stopped_s) + site.finish())
    recording.store.close()
    again = recording.started_again(started_s)
    with closing(recording.store):
        recording.record(seconds_of(again, started_s, end_s) + again.finish())
        bought, home = recording.energies("grid_import"), recording.energies("home")
    seconds = [*range(START_S, stopped_s), *range(started_s, end_s)]
    assert bought == pytest.approx(by_quarter(seconds, counted), abs=STEP_KWH)
    expected = by_quarter(seconds, lambda before, at_s: (IMPORT_W + PV_W) * (at_s - before == 1) / 3.6e6)
    assert home == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("unstored_seconds", [0, 3, 37, 75])
def test_kill_costs_no_more_than_the_open_ten_seconds(
    influxd: Influxd, tmp_path: Path, unstored_seconds: int
) -> None:
    """Energies that InfluxDB has and the history lost are counted once in both."""
    stored_s, end_s = START_S + 903, START_S + 1800
    killed_s = stored_s + unstored_seconds
    recording = Recording(tmp_path / "store", influxd)
    site = Site("home", PROFILES)
    recording.record(seconds_of(site, START_S, stored_s))
    assert recording.store.flush()
    recording.write(seconds_of(site, stored_s, killed_s))
    again = recording.started_again(killed_s + 20)
    with closing(recording.store):
        recording.record(seconds_of(again, killed_s + 20, end_s) + again.finish())
        bought = sum(recording.energies("grid_import").values())
    truth = counter(end_s - 1) - counter(START_S)
    assert bought == pytest.approx(truth, abs=STEP_KWH)
