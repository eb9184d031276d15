"""Averages without holes: what was written late is computed again, and is as if it had been in time."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from recorder.influx.late_range import FILE_NAME, LateRange, Span
from recorder.influx.repair import Repair
from recorder.influx.schedule import begin_anew, schedule_repair
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.points.site import Site
from tests.influx.plant import METER, NS, PCS, quiet, set_up
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, Row, wait_until

START = datetime(2026, 7, 1, 10, 7, tzinfo=UTC)
START_NS = int(START.timestamp()) * NS
HOUR_NS = 3600 * NS
RESULTS = ("avg10.pcs_avg10", "avg10.powermeter_avg10", "rollups./.*/")


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """A server with the database set up, whose own continuous queries do not run."""
    with Influxd(tmp_path / "influxd", sections={"continuous_queries": {"enabled": "false"}}) as server:
        set_up(server).apply()
        yield server


def results(influxd: Influxd) -> list[Row]:
    """Every row that continuous queries have written."""
    return [row for source in RESULTS for row in influxd.query(f"SELECT * FROM {source}", "ess")]


def samples(seconds: Sequence[int], seed: int = 1) -> list[Point]:
    """A PCS and a meter point for each of these seconds after the start, with the flows and energies of both.

    One field of the PCS is rarer.
    """
    site, points = Site("home", (PCS, METER)), list[Point]()
    for second in seconds:
        rng = Random(seed * 1_000_000 + second)
        at_ns = START_NS + second * NS + rng.randrange(200_000_000)
        fields = {"active_power": rng.uniform(-5000, 5000), "energy": 70.0 + second}
        if rng.random() < 0.67:
            fields["pv1_power"] = rng.uniform(0, 3000)
        meter = {
            "active_import": second / 600,
            "active_export": second / 900,
            "active_power": rng.uniform(0, 9),
        }
        for device, values in (("pcs", fields), ("powermeter", meter)):
            point = Point(device, (("device", device), ("site", "home")), values, at_ns)
            points += site.take(device, point, Counter())
    return points + site.finish()


class Rig:
    """A repair with a clock of the test's own."""

    def __init__(self, influxd: Influxd, directory: Path, now: datetime) -> None:
        self.influxd = influxd
        self.now_ns = int(now.timestamp()) * NS
        self.late = LateRange(directory / FILE_NAME)
        self.repair = Repair(self.late, set_up(influxd), lambda: self.now_ns)

    def write(self, points: Sequence[Point]) -> None:
        """What the writer does: into the database, then told."""
        lines = [to_line(point) for point in points]
        self.influxd.write(b"\n".join(lines), "ess")
        self.repair.note_written(lines)


def at(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


def test_what_is_written_in_time_is_not_repaired(influxd: Influxd, tmp_path: Path) -> None:
    """A point that is some seconds old is no business of a repair, whatever day it is."""
    rig = Rig(influxd, tmp_path, at(110))
    rig.write(samples(range(90, 110)))
    rig.repair.run()
    assert (rig.repair.late_seconds, rig.repair.completed, results(influxd)) == (0, 0, [])


def test_late_points_give_the_results_of_a_run_in_time(influxd: Influxd, tmp_path: Path) -> None:
    """Two hours late, in two pieces of which the newer came first: each row as in one backfill of all."""
    everything = samples(range(2 * 3600))
    rig = Rig(influxd, tmp_path, at(2 * 3600))
    half = len(everything) // 2
    rig.write(everything[half:])
    rig.write(everything[:half])
    rig.now_ns += 61 * NS
    rig.repair.run()
    assert (rig.repair.completed, rig.repair.late_seconds) == (1, 0)
    found = results(influxd)
    assert len(found) > 2 * (7200 - 9)
    set_up(influxd).backfill(at(-86400), at(86400), at(86400), quiet)
    assert results(influxd) == found


def test_range_that_is_not_settled_waits(influxd: Influxd, tmp_path: Path) -> None:
    """While the last late point is not a minute old, the window behind it may not be in the database."""
    rig = Rig(influxd, tmp_path, at(100))
    rig.write(samples(range(60)))
    rig.repair.run()
    assert rig.repair.completed == 0
    rig.now_ns += 120 * NS
    rig.repair.run()
    assert rig.repair.completed == 1


@pytest.mark.parametrize("pause_seconds", [100, 7200, 9 * 86400])
def test_pause_does_not_restart_the_ten_samples(influxd: Influxd, tmp_path: Path, pause_seconds: int) -> None:
    """After a pause of any length an average holds the last ten samples, from before it too."""
    begin = 30 + pause_seconds
    rig = Rig(influxd, tmp_path, at(begin + 200))
    points = samples([*range(30), *range(begin, begin + 30)])
    rig.repair.note_appended(points)
    influxd.write(b"\n".join(map(to_line, points)), "ess")
    rig.repair.run()
    assert rig.repair.completed == 1
    values: list[float] = []
    expected = {}
    for point in points:
        if point.measurement == "pcs":
            values.append(point.fields["active_power"])
            if len(values) >= 10:
                assert point.time_ns
                expected[point.time_ns // 10**8 * 10**8] = pytest.approx(sum(values[-10:]) / 10)
    rows = influxd.query("SELECT active_power FROM avg10.pcs_avg10", "ess")
    assert {row["time"]: row["active_power"] for row in rows} == expected
    gained = influxd.query("SELECT grid_import FROM rollups.energy_15m", "ess")
    assert sum(row["grid_import"] for row in gained) == pytest.approx((begin + 29) / 600, abs=0.0101)


def test_pause_of_one_device_is_noted_while_others_go_on(tmp_path: Path, influxd: Influxd) -> None:
    """Each series has its own pauses."""
    rig = Rig(influxd, tmp_path, at(600))
    tags = (("device", "pcs"), ("site", "home"))
    quiet_one = [Point("pcs", tags, {"active_power": 1.0}, START_NS + second * NS) for second in (0, 90)]
    other = [Point("pcs", (("site", "other"),), {"active_power": 1.0}, START_NS + s * NS) for s in range(90)]
    rig.repair.note_appended([quiet_one[0], *other])
    rig.late.forget()
    rig.repair.note_appended(other)
    assert rig.late.state.pending is None
    rig.repair.note_appended([quiet_one[1]])
    assert rig.late.state.pending == Span(START_NS, START_NS + 120 * NS)


def test_repair_that_was_cut_short_goes_on(influxd: Influxd, tmp_path: Path) -> None:
    """Stopped after its first steps, it goes on in another process, and the result is whole."""
    rig = Rig(influxd, tmp_path, at(5 * 3600))
    rig.write(samples(range(0, 4 * 3600, 5)))
    rig.repair.stop()
    rig.repair.run()
    rig.late.progress(2, rig.late.state.steps)
    assert rig.repair.completed == 0
    again = Rig(influxd, tmp_path, at(5 * 3600 + 60))
    assert again.late.state.done == 2
    again.repair.run()
    assert (again.repair.completed, again.repair.late_seconds) == (1, 0)
    # The two steps that were said to be done were not: it is the others that were.
    first = influxd.query("SELECT first(active_power) FROM avg10.pcs_avg10", "ess")[0]["time"]
    assert first >= START_NS + HOUR_NS - 10 * 60 * NS
    assert not (tmp_path / FILE_NAME).exists()


def test_repair_waits_for_a_server_that_is_away(influxd: Influxd, tmp_path: Path) -> None:
    """An outage during the repair is told, and afterwards it is done."""
    rig = Rig(influxd, tmp_path, at(600))
    rig.write(samples(range(30)))
    influxd.stop()
    rig.repair.run()
    assert "did not answer" in rig.repair.problem
    influxd.start()
    rig.repair.run()
    assert (rig.repair.problem, rig.repair.completed) == ("", 1)


def test_stamp_of_a_year_to_come_delays_no_repair(influxd: Influxd, tmp_path: Path) -> None:
    """A clock that was ahead and set back leaves no range that waits until its time has come."""
    rig = Rig(influxd, tmp_path, at(600))
    year_ns = 365 * 86400 * NS
    ahead = [point._replace(time_ns=(point.time_ns or 0) + year_ns) for point in samples(range(5))]
    rig.repair.note_appended(ahead)
    assert rig.late.state.pending is None
    rig.now_ns += year_ns + 600 * NS
    rig.repair.note_appended(ahead)
    rig.repair.note_written([to_line(point) for point in ahead])
    rig.now_ns -= year_ns
    rig.repair.run()
    assert (rig.repair.completed, rig.repair.late_seconds) == (1, 0)


def test_own_health_is_no_sample(influxd: Influxd, tmp_path: Path) -> None:
    """The recorder's health has no averages, so its pauses need no repair."""
    rig = Rig(influxd, tmp_path, at(600))
    rig.repair.note_appended([Point("recorder", (("site", "home"),), {"written": 1.0}, START_NS)])
    assert rig.late.state.pending is None


async def test_scheduled_repair_waits_for_the_queue_to_drain(influxd: Influxd, tmp_path: Path) -> None:
    """Nothing is computed while points wait; once they do not, the job does it beside the event loop."""
    rig = Rig(influxd, tmp_path, at(600))
    rig.write(samples(range(30)))
    asked: list[bool] = []

    def drained() -> bool:
        asked.append(len(asked) >= 3)
        if len(asked) <= 3:
            assert rig.repair.completed == 0
        return asked[-1]

    scheduler = AsyncIOScheduler()
    schedule_repair(scheduler, rig.repair.run, drained, every_seconds=0.1)
    scheduler.start()
    try:
        await asyncio.to_thread(wait_until, lambda: rig.repair.completed == 1)
    finally:
        scheduler.shutdown()
    assert asked[:4] == [False, False, False, True]
    assert influxd.query("SELECT * FROM avg10.pcs_avg10", "ess")


async def test_jobs_are_planned_anew_when_the_clock_was_set() -> None:
    """A job whose next run lies an hour ahead, by a clock that was set back, runs at its interval again."""
    ran = asyncio.Event()
    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.start()
    try:
        an_hour_ahead = datetime.now(UTC) + timedelta(hours=1)
        job = scheduler.add_job(ran.set, "interval", seconds=0.1, next_run_time=an_hour_ahead)
        begin_anew(scheduler)
        assert job.next_run_time < an_hour_ahead
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await ran.wait()
    finally:
        scheduler.shutdown()
