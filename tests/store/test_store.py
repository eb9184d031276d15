"""The store on a real disk: what goes in comes out, within its bounds, whatever happens to the file."""

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from recorder.points.counters import Reading
from recorder.points.point import Point
from recorder.profiles.model import Profile, Register
from recorder.store.buckets import DAY, STEPS, Step
from recorder.store.database import FILE_NAME
from recorder.store.history import Question, history
from recorder.store.store import Store, StoreLimits
from recorder.store.thinning import SeriesKey, Thinning
from tests.support.influxd import TIMEOUT_SECONDS, wait_until
from tests.support.service import ROOT

MINUTES, QUARTERS, HOURS, DAYS = STEPS
FOR_EVER = StoreLimits(dict.fromkeys(("1m", "15m", "1h", "1d"), inf), 1 << 30)
NOW = 1_781_740_800
METER = Profile(
    "m", "powermeter", "meter", 1, 3, (Register(1, "active_import", "u64", unit="kWh", kind="counter"),
     Register(5, "active_power", "s32", unit="W", low=-1e5, high=1e5)),
    role="grid_meter", quantities=(("grid_import", "active_import"),),
)  # fmt: skip


def point(at_s: float, measurement: str = "pcs", device: str = "pcs", /, **fields: float) -> Point:
    return Point(measurement, (("device", device), ("site", "home")), fields, int(at_s * 1e9))


def store_in(directory: Path, limits: StoreLimits = FOR_EVER, now: float = NOW + 86400.0) -> Store:
    return Store(directory, limits, "UTC", (METER,), lambda: now)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give an open store."""
    one = store_in(tmp_path)
    one.start()
    yield one
    one.close()


def means(store: Store, step: Step, start_s: int = NOW, end_s: int = NOW + 86400) -> list[float]:
    answer = history(store, Question("home", start_s, end_s, step, [("pcs", "power")]))
    return [value for value in answer["series"]["pcs.power"]["mean"] if value is not None]


def test_written_and_pending_samples_are_one_history(store: Store) -> None:
    """A bucket whose first half is on the disk and whose second half is not has the mean of both."""
    store.observe([point(NOW + second, power=100.0) for second in range(30)])
    assert store.flush()
    store.observe([point(NOW + second, power=200.0) for second in range(30, 60)])
    for step in STEPS:
        assert means(store, step) == [pytest.approx(150.0, rel=0.02)]
    assert store.flush()
    for step in STEPS:
        assert means(store, step) == [pytest.approx(150.0, rel=0.02)]


def test_history_survives_a_restart(tmp_path: Path) -> None:
    """What was recorded before a stop and after a start lies in the same buckets."""
    for begin, power in ((0, 100.0), (30, 200.0)):
        store = store_in(tmp_path)
        store.start()
        store.observe([point(NOW + begin + second, power=power) for second in range(30)])
        store.close()
    store = store_in(tmp_path)
    store.start()
    assert means(store, DAY) == [pytest.approx(150.0, rel=0.02)]
    store.close()


def energy(at_s: float, device: str = "pcs", /, **kwh: float) -> Point:
    return point(at_s, "energy_10s", device, **kwh)


def totals(store: Store, step: Step = DAY) -> dict[str, float | None]:
    found: dict[str, float | None] = history(store, Question("home", NOW, NOW + 86400, step))["totals"][
        "energy"
    ]
    return found


def test_energies_add_up_over_a_restart(tmp_path: Path) -> None:
    """The energy of any range is the sum of what was recorded in it, in buckets of every width."""
    for run in range(2):
        store = store_in(tmp_path)
        store.start()
        store.observe(
            [energy(NOW + 900 * run + 10 * n, home=0.25, grid_import_integrated=1.0) for n in range(4)]
        )
        store.observe([energy(NOW + 900 * run, "meter", grid_import=0.5)])
        for step in STEPS:
            assert totals(store, step)["home"] == pytest.approx(run + 1)
            assert totals(store, step)["grid_import"] == pytest.approx(0.5 * (run + 1))
        answer = history(store, Question("home", NOW, NOW + 86400, DAY))
        store.close()
    assert answer["counted"] == ["grid_import"]


def test_submeter_is_shown_beside_the_flows(store: Store) -> None:
    """Its energy is its own, by device, and no part of the site's totals."""
    store.observe(
        [energy(NOW, "heat_pump", submeter_import=0.75, submeter_export=0.0), energy(NOW, home=1.0)]
    )
    answer = history(store, Question("home", NOW, NOW + 900, QUARTERS))
    assert answer["submeters"] == {"heat_pump": {"submeter_import": [0.75], "submeter_export": [0.0]}}
    assert answer["totals"]["submeters"] == {"heat_pump": 0.75}
    assert answer["totals"]["energy"]["grid_import"] is None


def test_history_of_an_earlier_version_has_its_energies(tmp_path: Path) -> None:
    """It has energies of counters only: other flows are integrated up to when this version first ran."""
    store = store_in(tmp_path)
    store.start()
    store.observe([point(NOW + second, "flow", home=6000.0, grid_import=3000.0) for second in range(61)])
    store.observe([energy(NOW, "meter", grid_import=0.05)])
    store.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection, connection:
        connection.execute("DELETE FROM facts")
    store = store_in(tmp_path)
    store.start()
    assert totals(store)["home"] == pytest.approx(6.0 * 60 / 3600, rel=1e-3)
    assert totals(store)["grid_import"] == pytest.approx(0.05)
    store.observe([point(NOW + 7200 + second, "flow", home=6000.0) for second in range(61)])
    store.observe([energy(NOW + 7200, home=0.1)])
    assert totals(store, MINUTES)["home"] == pytest.approx(0.1 + 6.0 * 60 / 3600, rel=1e-3)
    store.close()


def test_last_readings_of_counters_survive_a_restart(tmp_path: Path) -> None:
    """They are where the next run continues counting; before the start there are none."""
    store = store_in(tmp_path)
    store.start()
    store.observe([point(NOW + n, "powermeter", "meter", active_import=100.0 + n / 4) for n in range(9)])
    store.close()
    store = store_in(tmp_path)
    assert store.last_readings("home", METER) == {}
    store.start()
    assert store.last_readings("home", METER) == {"active_import": Reading(102.0, NOW * 10**9)}
    store.close()


def test_counter_that_was_absent_meanwhile_begins_anew(tmp_path: Path) -> None:
    """The device had another name for a run: what its counter gained then is counted under that."""
    renamed = replace(METER, device="grid")
    for profile in (METER, renamed, METER):
        store = Store(tmp_path, FOR_EVER, "UTC", (profile,), lambda: NOW + 86400.0)
        store.start()
        readings = store.last_readings("home", profile)
        store.observe([point(NOW, "powermeter", profile.device, active_import=100.0)])
        store.close()
        assert readings == {}


def test_counter_of_a_site_that_had_another_name_begins_anew(tmp_path: Path) -> None:
    """Where it is the only site: a home that was silent while another one was read is no such case."""
    for number, site in enumerate(("home", "house")):
        store = store_in(tmp_path)
        store.start()
        tags = (("device", "meter"), ("site", site))
        one = Point("powermeter", tags, {"active_import": 100.0}, (NOW + 3600 * number) * 10**9)
        store.observe([one])
        store.close()
    store = store_in(tmp_path)
    store.start()
    assert store.last_readings("home", METER, {"home"}) == {}
    assert store.last_readings("home", METER, {"home", "house"}).keys() == {"active_import"}
    store.close()


def test_old_minutes_go_and_days_stay(tmp_path: Path) -> None:
    """Beyond its age a width of buckets is forgotten, the coarser ones are kept as set."""
    limits = StoreLimits({"1m": 3600.0, "15m": 86400.0, "1h": inf, "1d": inf}, 1 << 30)
    for now in (NOW + 60.0, NOW + 7200.0):
        store = store_in(tmp_path, limits, now)
        store.start()
        if now == NOW + 60.0:
            store.observe([point(NOW + second, power=1.0) for second in range(60)])
        found = {step.name: means(store, step) for step in STEPS}
        store.close()
    assert found == {"1m": [], "15m": [1.0], "1h": [1.0], "1d": [1.0]}


def test_file_stays_within_its_size(tmp_path: Path) -> None:
    """At its size the oldest minutes go first; the newest ones and all days stay."""
    limits = StoreLimits(FOR_EVER.kept_seconds, 1_500_000)
    store = store_in(tmp_path, limits, NOW + 30 * 86400.0)
    store.start()
    for day in range(10):
        begin = NOW + day * 86400
        fields = dict.fromkeys(("a", "b", "c", "d", "e", "f", "g", "h", "i"), 1.0)
        store.observe([point(begin + 60 * n, **fields, power=float(day)) for n in range(1440)])
        assert store.flush()
        assert store.used_bytes <= limits.max_bytes
    kept = means(store, MINUTES, NOW, NOW + 10 * 86400)
    assert 0 < len(kept) < 10 * 1440
    assert kept[-1] == 9.0
    assert means(store, DAY, NOW, NOW + 10 * 86400) == [float(day) for day in range(10)]
    store.close()


@pytest.mark.parametrize("content", [b"", b"no database " * 999, b"SQLite format 3\0" + b"\xff" * 9000])
def test_file_that_is_no_store_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    """An empty, foreign or broken file is kept beside a fresh store, which works."""
    (tmp_path / "history.db").write_bytes(content)
    store = store_in(tmp_path)
    store.start()
    assert store.problem == ""
    assert (tmp_path / "history.db.damaged-1").read_bytes() == content
    store.observe([point(NOW, power=1.0)])
    assert store.flush()
    assert means(store, DAY) == [1.0]
    store.close()


def test_another_programs_database_is_left_whole(tmp_path: Path) -> None:
    """A database of another program is moved, and not written to."""
    with sqlite3.connect(tmp_path / "history.db") as other:
        other.execute("CREATE TABLE precious (value)")
    other.close()
    store = store_in(tmp_path)
    store.start()
    store.close()
    with sqlite3.connect(tmp_path / "history.db.damaged-1") as moved:
        assert moved.execute("SELECT name FROM sqlite_master").fetchall() == [("precious",)]
    moved.close()


def damaged_copies(whole: bytes) -> Iterator[bytes]:
    """A file with some bits flipped, in many ways, and with the head of each of its pages gone."""
    rng = random.Random(7)
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        yield bytes(damaged)
    for at in range(0, len(whole), 4096):
        yield whole[:at] + bytes([255]) * 12 + whole[at + 12 :]


def test_flipped_bytes_never_become_values(tmp_path: Path) -> None:
    """Whatever is damaged, the store starts, is used again, and gives no value that was not recorded then."""
    store = store_in(tmp_path)
    store.start()
    store.observe([point(NOW + 60 * n, power=1000.0 + n) for n in range(1440)])
    store.observe([point(NOW + 60 * n, "powermeter", "meter", active_import=0.1 * n) for n in range(1440)])
    store.close()
    whole = (tmp_path / "history.db").read_bytes()
    true = {round(1000.0 + n, 6) for n in range(1440)}
    for damaged in damaged_copies(whole):
        for file in tmp_path.glob("history.db*"):
            file.unlink()
        (tmp_path / "history.db").write_bytes(damaged)
        store = store_in(tmp_path)
        store.start()
        try:
            found = means(store, MINUTES)
        except OSError:
            # Damage that only a reader meets: the file goes aside, and the next one is fresh.
            store.flush()
            found = means(store, MINUTES)
        assert found == sorted(found)
        assert set(found) <= true
        store.observe([point(NOW, power=1.0)])
        # Damage that only a writer meets is met by the first.
        assert store.flush() or store.flush()
        store.close()


def test_disk_that_fails_is_told_and_recovers(tmp_path: Path) -> None:
    """Where the file cannot be written the history goes on in memory, and is stored once it can be."""
    place = tmp_path / "data"
    place.write_text("a file where a directory should be")
    store = store_in(place)
    store.start()
    store.observe([point(NOW, power=1.0)])
    assert not store.flush()
    assert "free space there, or check the disk" in store.problem
    assert means(store, DAY) == [1.0]
    place.unlink()
    assert store.flush()
    assert store.problem == ""
    store.close()
    again = store_in(place)
    again.start()
    assert means(again, DAY) == [1.0]
    again.close()


def test_wrong_clocks_points_are_left_out(store: Store) -> None:
    """A point from 1970 or from next year makes no bucket; neither does one without a time."""
    store.observe(
        [
            point(5, power=1.0),
            point(NOW + 400 * 86400, power=1.0),
            Point("pcs", (("device", "pcs"), ("site", "home")), {"power": 1.0}, None),
        ]
    )
    assert store.series() == []


def test_memory_is_bounded_while_the_disk_fails(tmp_path: Path) -> None:
    """Years of minutes that cannot be stored are dropped, the oldest first, and not kept without end."""
    place = tmp_path / "data"
    place.write_text("")
    store = Store(place, FOR_EVER, "UTC", (), lambda: NOW + 40_000 * 60.0)
    store.start()
    store.observe([point(NOW + 60 * n, power=float(n)) for n in range(30_000)])
    kept = means(store, MINUTES, NOW, NOW + 30_000 * 60)
    assert len(kept) <= 20_000
    assert kept[-1] == 29_999.0
    assert store.dropped_minutes == 10_000
    store.close()


def test_kill_costs_what_was_not_flushed_and_nothing_else(tmp_path: Path) -> None:
    """After kill -9 the file opens, with every sample of each flush that returned."""
    code = (
        "import sys, pathlib, itertools\n"
        "from tests.store.test_store import NOW, point, store_in\n"
        "store = store_in(pathlib.Path(sys.argv[1]), now=NOW + 1e8)\n"
        "store.start()\n"
        "for n in itertools.count():\n"
        "    store.observe([point(NOW + 60 * n, power=float(n))])\n"
        "    store.flush()\n"
        "    print(n, flush=True)\n"
    )
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        last = 0
        for line in process.stdout:
            last = int(line)
            if last >= 50:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = store_in(tmp_path, now=NOW + 1e8)
        store.start()
        kept = means(store, MINUTES, NOW, NOW + 60 * (last + 1))
        assert kept == [float(n) for n in range(last + 1)]
        store.close()


def test_many_sites_are_stored_in_portions_and_are_whole_at_any_time(tmp_path: Path) -> None:
    """All can be read while a part of it is stored, and `close` waits for no pause."""
    sites = [f"home-{number:03}" for number in range(200)]
    store = store_in(tmp_path)
    store.start()
    store.observe(
        [Point("pcs", (("device", "pcs"), ("site", site)), {"power": 7.0}, NOW * 10**9) for site in sites]
    )
    flushing = threading.Thread(target=store.flush, args=(3600.0,), daemon=True)
    flushing.start()
    wait_until(lambda: _stored_minutes(tmp_path) > 0)
    assert _stored_minutes(tmp_path) < len(sites)
    wanted = {SeriesKey(site, "pcs", "pcs"): ("power",) for site in sites}
    found = store.read(wanted, MINUTES, NOW, NOW + 60)
    assert {key.site for key, buckets in found.items() if buckets} == set(sites)
    store.close()
    flushing.join(timeout=TIMEOUT_SECONDS)
    assert not flushing.is_alive()
    assert _stored_minutes(tmp_path) == len(sites)


def _stored_minutes(directory: Path) -> int:
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        ((rows,),) = connection.execute("SELECT count(*) FROM bucket")
    return int(rows) // len(STEPS)


def test_what_could_not_be_stored_is_still_the_oldest() -> None:
    """Minutes that were given back are the first to be taken again, each with what came meanwhile."""
    thinning = Thinning(most_minutes=10)
    thinning.observe([point(NOW + 60 * minute, power=1.0) for minute in range(3)], NOW)
    oldest = thinning.take(2)
    thinning.observe([point(NOW + 1, power=3.0)], NOW)
    thinning.give_back(oldest)
    assert thinning.pending_minutes == 3
    taken = thinning.take(2)
    assert [at_s for _, at_s in taken] == [NOW, NOW + 60]
    assert taken[SeriesKey("home", "pcs", "pcs"), NOW]["power"][3] == 3.0
