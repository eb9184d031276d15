"""Each width of the store, handed over into a real InfluxDB, is what the continuous queries write there."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from math import inf
from pathlib import Path
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from recorder.influx.handover import HandOver
from recorder.influx.server import Connection, InfluxServer
from recorder.influx.setup import SetUp
from recorder.influx.thinned import Thinned
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.points.site import Site
from recorder.store.store import Store, StoreLimits
from recorder.store.thinning import SeriesKey
from tests.influx.plant import METER, NS, PCS, SETTINGS, line, quiet
from tests.support.influxd import Influxd, Row

ZONE = ZoneInfo("Europe/Berlin")
# Over the end of summer time, on the 25th.
START = datetime(2026, 10, 23, 15, 7, tzinfo=ZONE)
NOW = datetime(2026, 10, 27, 12, 20, tzinfo=ZONE)
BATTERY = replace(
    PCS, role="battery", quantities=(("battery_power", "active_power"), ("battery_charge", "energy"))
)
PROFILES = (BATTERY, METER)
HOUR = 3600.0
# Minutes of the 27th, quarters of an hour of the 25th and 26th, hours of the 24th, days before.
LIMITS = StoreLimits({"1m": 36 * HOUR, "15m": 77 * HOUR, "1h": 93 * HOUR, "1d": inf}, 1 << 30)
FOR_EVER = StoreLimits(dict.fromkeys(("1m", "15m", "1h", "1d"), inf), 1 << 30)
NOW_NS = int(NOW.timestamp()) * NS
MINUTE_NS = 60 * NS
SPACING_SECONDS = 30
ROLLUPS = (
    "pcs_1m",
    "powermeter_1m",
    "flow_1m",
    "pcs_1h",
    "powermeter_1h",
    "flow_1h",
    "energy_15m",
    "energy_1h",
)
ENERGIES = ("energy_15m", "energy_1h", "energy_1d")
EXACT = ("_min", "_max", "energy", "active_import", "active_export", "status")


def day(number: int) -> int:
    """Where a day of October begins, ns."""
    return int(datetime(2026, 10, number, tzinfo=ZONE).timestamp()) * NS


def samples(start: datetime = START, end: datetime = NOW) -> list[Point]:
    """A meter and a PCS point each 30 s, with flows and energies; a pause of 40 minutes at each noon."""
    first_s, last_s = int(start.timestamp()), int(end.timestamp())
    site, points = Site("home", PROFILES), list[Point]()
    for at_s in range(first_s, last_s, SPACING_SECONDS):
        local = datetime.fromtimestamp(at_s, ZONE)
        if local.hour == 12 and local.minute < 40:
            continue
        rng = Random(at_s)
        age = at_s - int(START.timestamp())
        pcs = {
            "active_power": rng.uniform(-5000, 5000), "pv1_power": rng.uniform(0, 3000),
            "pv_power": rng.uniform(0, 3000), "energy": 70.0 + age // 600 * 0.1,
            "status": 3.0 + age // 5000 % 2,
        }  # fmt: skip
        meter = {
            "active_import": 900.0 + age // 60 * 0.01, "active_export": 100.0 + age // 90 * 0.01,
            "active_power": rng.uniform(-900, 900),
        }  # fmt: skip
        for device, fields in (("powermeter", meter), ("pcs", pcs)):
            point = Point(device, (("device", device), ("site", "home")), fields, at_s * NS)
            points += site.take(device, point, Counter())
    return points + site.finish()


Key = tuple[int, str, str]


class Database(NamedTuple):
    """One database of a server, set up."""

    influxd: Influxd
    name: str
    server: InfluxServer
    set_up: SetUp

    def rows(self, measurement: str, first_ns: int = 0, last_ns: int = 1 << 62) -> dict[Key, Row]:
        """The rows of a rollup, by time and tags."""
        where = f"time >= {first_ns} AND time < {last_ns}"
        found = self.influxd.query(f"SELECT * FROM rollups.{measurement} WHERE {where}", self.name)
        keys = ("time", "site", "device")
        return {
            (row["time"], row["site"], row["device"]): {
                name: value
                for name, value in row.items()
                if name not in {*keys, "name"} and value is not None
            }
            for row in found
        }

    def write(self, points: Sequence[Point]) -> None:
        """Write raw points."""
        for at in range(0, len(points), 5000):
            self.influxd.write(b"\n".join(map(to_line, points[at : at + 5000])), self.name)


def database(influxd: Influxd, name: str) -> Database:
    server = InfluxServer(Connection(influxd.url, name))
    set_up = SetUp(server, replace(SETTINGS, profiles=PROFILES))
    set_up.apply()
    return Database(influxd, name, server, set_up)


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """A server whose own continuous queries do not run."""
    with Influxd(tmp_path / "influxd", sections={"continuous_queries": {"enabled": "false"}}) as server:
        yield server


def recorded_alone(directory: Path, points: Sequence[Point], limits: StoreLimits = LIMITS) -> Store:
    """A store that has recorded these points without an InfluxDB."""
    store = Store(directory, limits, "Europe/Berlin", PROFILES, NOW.timestamp)
    store.record_alone()
    for at in range(0, len(points), 5000):
        store.observe(points[at : at + 5000])
        assert store.flush()
    store.close()
    # Opened again, it forgets what is too old.
    store = Store(directory, limits, "Europe/Berlin", PROFILES, NOW.timestamp)
    assert store.flush()
    return store


def hand_over(store: Store, to: Database, now: datetime = NOW) -> str:
    """Hand over what is owed, and give what was wrong."""
    now_ns = int(now.timestamp()) * NS
    hand = HandOver(store, to.server, to.set_up, Thinned(PROFILES, "Europe/Berlin"), lambda: now_ns)
    hand.run()
    return hand.problem


def test_each_width_is_what_the_queries_write(influxd: Influxd, tmp_path: Path) -> None:
    """Minutes, hours and energies of five days are those of a twin that InfluxDB had from the start."""
    points = samples()
    twin, handed = database(influxd, "twin"), database(influxd, "handed")
    twin.write(points)
    twin.set_up.backfill(START, NOW, NOW, quiet)
    with closing(recorded_alone(tmp_path, points)) as store:
        assert not hand_over(store, handed)
        assert store.owed is None
    begins = {"1m": day(27), "15m": day(25), "1h": day(24)}
    for measurement in ROLLUPS:
        begin_ns = begins[measurement.rpartition("_")[2]]
        expected, found = twin.rows(measurement, begin_ns), handed.rows(measurement)
        assert found.keys() == expected.keys()
        for key, row in found.items():
            assert_same(measurement, row, expected[key], key[0])
    assert_days(handed.rows("energy_1d"), twin.rows("energy_1d"))


def assert_same(measurement: str, row: Row, expected: Row, at_ns: int) -> None:
    """All is exact but what a pause cuts; a state that changed within what is stored is left out."""
    is_cut = at_ns < day(27) and datetime.fromtimestamp(at_ns / NS, ZONE).hour == 12
    assert expected.keys() - row.keys() <= {"status"}
    assert row.keys() <= expected.keys()
    for name, value in row.items():
        if not is_cut or measurement.startswith("energy") or name.endswith(EXACT):
            assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-9), (measurement, name, at_ns)
        elif name == "coverage":
            assert value == pytest.approx(expected[name], abs=1 / 60)


def assert_days(found: dict[Key, Row], expected: dict[Key, Row]) -> None:
    """Days have the same energies, also those of which nothing finer is stored."""
    assert found.keys() == expected.keys()
    for key, row in found.items():
        assert row == pytest.approx(expected[key], rel=1e-9, abs=1e-9)


def test_states_are_given_where_they_are_known(influxd: Influxd, tmp_path: Path) -> None:
    """The status of each minute is the one that it had; it is left out of those in which it changed."""
    points = samples(datetime(2026, 10, 27, 0, 0, tzinfo=ZONE))
    handed = database(influxd, "handed")
    with closing(recorded_alone(tmp_path, points)) as store:
        assert not hand_over(store, handed)
    seen: dict[int, set[float]] = {}
    for point in points:
        if point.measurement == "pcs" and point.time_ns:
            seen.setdefault(point.time_ns // MINUTE_NS * MINUTE_NS, set()).add(point.fields["status"])
    assert {key[0]: row.get("status") for key, row in handed.rows("pcs_1m").items()} == {
        at_ns: next(iter(values)) if len(values) == 1 else None for at_ns, values in seen.items()
    }
    assert any(len(values) > 1 for values in seen.values())


def test_what_influxdb_has_stays(influxd: Influxd, tmp_path: Path) -> None:
    """A field that InfluxDB has is not overwritten; the others of its minute are added."""
    start = datetime(2026, 10, 27, 10, 0, tzinfo=ZONE)
    at_ns = int(start.timestamp()) * NS
    handed = database(influxd, "handed")
    own = line("pcs_1m", at_ns, {"active_power": 12345.0}, "pcs")
    influxd.write(own, "handed", "rollups")
    with closing(recorded_alone(tmp_path, samples(start))) as store:
        assert not hand_over(store, handed)
    row = handed.rows("pcs_1m")[at_ns, "home", "pcs"]
    assert row["active_power"] == 12345.0
    assert row["pv_power"] > 0


def test_handing_over_twice_changes_nothing(influxd: Influxd, tmp_path: Path) -> None:
    """The same recording handed over again leaves every row as it is."""
    handed = database(influxd, "handed")
    points = samples(datetime(2026, 10, 26, 20, 0, tzinfo=ZONE))
    results = []
    for attempt in ("first", "second"):
        with closing(recorded_alone(tmp_path / attempt, points)) as store:
            assert not hand_over(store, handed)
        results.append([handed.rows(name) for name in (*ROLLUPS, "energy_1d")])
    assert all(results[0])
    assert results[0] == results[1]


def test_quarter_hour_of_which_the_queue_let_a_part_go_is_whole(influxd: Influxd, tmp_path: Path) -> None:
    """Its energy is that of a twin, also after it is handed over again and after a later backfill."""
    start = datetime(2026, 10, 27, 6, 2, tzinfo=ZONE)
    points = samples(start)
    cut_ns = int(datetime(2026, 10, 27, 8, 23, 40, tzinfo=ZONE).timestamp()) * NS
    twin, handed = database(influxd, "twin"), database(influxd, "handed")
    twin.write(points)
    twin.set_up.backfill(start, NOW, NOW, quiet)
    handed.write([point for point in points if point.time_ns and point.time_ns >= cut_ns])
    expected = [twin.rows(name) for name in ENERGIES]
    assert all(expected)
    for attempt in ("first", "second"):
        # What the recorder computes again before anything is handed over, and a person whenever they like.
        handed.set_up.backfill(start, NOW, NOW, quiet)
        with closing(recorded_alone(tmp_path / attempt, points)) as store:
            assert not hand_over(store, handed)
        handed.set_up.backfill(start, NOW, NOW, quiet)
        for rows, measurement in zip(expected, ENERGIES, strict=True):
            found = handed.rows(measurement)
            assert found.keys() == rows.keys()
            for key, row in found.items():
                assert row == pytest.approx(rows[key], rel=1e-9, abs=1e-9), (attempt, measurement)


def test_energies_that_influxdb_knows_better_stay(influxd: Influxd, tmp_path: Path) -> None:
    """Where captures were replayed for a time that the store lacks, nothing is added to their energies."""
    start = datetime(2026, 10, 27, 6, 0, tzinfo=ZONE)
    points = samples(start)
    handed = database(influxd, "handed")
    handed.write(points)
    handed.set_up.backfill(start, NOW, NOW, quiet)
    before = [handed.rows(name) for name in ENERGIES]
    some = [point for point in points if point.time_ns and point.time_ns // NS % 1800 < 1200]
    with closing(recorded_alone(tmp_path, some)) as store:
        assert not hand_over(store, handed)
    assert [handed.rows(name) for name in ENERGIES] == before


def test_what_was_recorded_beside_influxdb_is_not_handed_over(influxd: Influxd, tmp_path: Path) -> None:
    """Only the time without an InfluxDB is owed: the days before it stay as InfluxDB has them."""
    handed = database(influxd, "handed")
    store = Store(tmp_path, FOR_EVER, "Europe/Berlin", PROFILES, NOW.timestamp)
    store.observe(
        samples(datetime(2026, 10, 25, 20, 0, tzinfo=ZONE), datetime(2026, 10, 26, 0, 0, tzinfo=ZONE))
    )
    assert store.flush()
    assert store.owed is None
    assert not hand_over(store, handed)
    assert not handed.rows("pcs_1m")
    store.record_alone()
    store.observe(samples(datetime(2026, 10, 27, 8, 0, tzinfo=ZONE)))
    assert store.flush()
    assert not hand_over(store, handed)
    store.close()
    assert min(key[0] for key in handed.rows("pcs_1m")) == day(27) + 8 * 3600 * NS


def test_clock_that_is_behind_forgets_nothing(influxd: Influxd, tmp_path: Path) -> None:
    """What lies ahead of a clock, as after a boot in 1970, stays owed until the clock is right."""
    handed = database(influxd, "handed")
    points = samples(datetime(2026, 10, 25, 20, 0, tzinfo=ZONE))
    with closing(recorded_alone(tmp_path, points, FOR_EVER)) as store:
        owed = [store.owed]
        for now in (datetime(1970, 1, 1, 0, 1, tzinfo=ZONE), datetime(2026, 10, 26, 9, 0, tzinfo=ZONE)):
            assert "clock" in hand_over(store, handed, now)
            owed.append(store.owed)
        assert not handed.rows("pcs_1m", day(27))
        assert not hand_over(store, handed)
        owed.append(store.owed)
    assert owed[0]
    assert owed == [owed[0], owed[0], (day(27) // NS, owed[0].last_s), None]
    stamps = {point.time_ns // MINUTE_NS for point in points if point.time_ns}
    assert len(handed.rows("pcs_1m")) == len(stamps)


def test_many_buckets_without_a_known_value_end_nothing(influxd: Influxd, tmp_path: Path) -> None:
    """Buckets of which nothing is known do not hide those behind them."""
    handed = database(influxd, "handed")
    begin_ns = int(datetime(2026, 10, 27, 8, 0, tzinfo=ZONE).timestamp()) * NS
    tags = (("device", "pcs"), ("site", "home"))
    points = [
        Point("pcs", tags, {"status": float(n % 2)} if n < 40 else {"status": 1.0}, begin_ns + n * 30 * NS)
        for n in range(60)
    ]
    with closing(recorded_alone(tmp_path, points)) as store:
        assert not hand_over(store, handed)
    assert [row["status"] for row in handed.rows("pcs_1m").values()] == [1.0] * 10


def test_what_retention_does_not_keep_is_left_out(influxd: Influxd, tmp_path: Path) -> None:
    """Rollups that InfluxDB no longer keeps end no run: the rest is handed over, and nothing is owed."""
    handed = database(influxd, "handed")
    influxd.query("ALTER RETENTION POLICY rollups ON handed DURATION 1d SHARD DURATION 1d")
    with closing(recorded_alone(tmp_path, samples(datetime(2026, 10, 26, 20, 0, tzinfo=ZONE)))) as store:
        assert not hand_over(store, handed)
        assert store.owed is None
    assert not handed.rows("pcs_1m")


def test_damaged_mark_hands_everything_over(influxd: Influxd, tmp_path: Path) -> None:
    """Where it is no longer known what is owed, all that is stored is handed over."""
    handed = database(influxd, "handed")
    points = samples(datetime(2026, 10, 27, 8, 0, tzinfo=ZONE))
    recorded_alone(tmp_path, points).close()
    with closing(sqlite3.connect(tmp_path / "history.db")) as file:
        file.execute("UPDATE owed SET first_s = last_s")
        file.commit()
    with closing(recorded_alone(tmp_path, [])) as store:
        assert not hand_over(store, handed)
        assert store.owed is None
    assert len(handed.rows("pcs_1m")) == len(
        {point.time_ns // MINUTE_NS for point in points if point.time_ns}
    )


def test_quarters_make_local_hours() -> None:
    """Where hours begin at :30, an hour holds the quarters of an hour that it has there."""
    thinned = Thinned(PROFILES, "Asia/Kolkata")
    flow = SeriesKey("home", "flow", "pcs")
    begin_s = day(27) // NS
    cells = {"home": (900.0, 900_000.0, 900.0, 1100.0)}
    hours = thinned.hours(flow, {begin_s + 900 * number: cells for number in range(8)})
    assert [(point.time_ns, point.fields["coverage"]) for point in hours] == [
        ((begin_s + offset) * NS, covered) for offset, covered in ((-1800, 0.5), (1800, 1.0), (5400, 0.5))
    ]


def test_renamed_measurement_is_handed_over(influxd: Influxd, tmp_path: Path) -> None:
    """What was recorded before a measurement and a field were renamed is handed over under the old names."""
    database(influxd, "handed")
    alone = recorded_alone(tmp_path, samples(day_at(26), NOW))
    alone.close()
    renamed = replace(
        BATTERY, measurement="inverter", registers=(replace(PCS.registers[0], name="power"),), derived=()
    )
    store = Store(tmp_path, LIMITS, "Europe/Berlin", (renamed, METER), NOW.timestamp)
    assert store.flush()
    set_up = replace(SETTINGS, profiles=(renamed, METER))
    with closing(store):
        server = InfluxServer(Connection(influxd.url, database="handed"))
        hand = HandOver(
            store, server, SetUp(server, set_up), Thinned((renamed, METER), "Europe/Berlin"), lambda: NOW_NS
        )
        hand.run()
        assert (hand.problem, store.owed) == ("", None)
    truth = [point for point in samples(day_at(26), NOW) if point.measurement == "pcs"]
    mean = sum(point.fields["active_power"] for point in truth) / len(truth)
    for name in ("pcs_1m", "pcs_1h"):
        rows = influxd.query(f"SELECT mean(active_power) FROM rollups.{name}", "handed")
        # Hours and minutes with a pause weigh as much as others.
        assert rows[0]["mean"] == pytest.approx(mean, abs=150)
        assert influxd.query(f"SELECT last(energy) FROM rollups.{name}", "handed")


def day_at(number: int) -> datetime:
    return datetime(2026, 10, number, tzinfo=ZONE)
