"""A setting is changed between two recordings of a home: the energies of both stay what the plant did.

The recorder's stages record some hours, are stopped, and go on with the changed configuration: into the local
history, and into a real InfluxDB with the queries that the commands install. `python -m
tests.homes.test_changed_settings` prints the table of all changes.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from recorder.commands.configuration import load_configuration
from recorder.pipeline import Pipeline
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.points.site import Site
from recorder.profiles.catalogue import Catalogue
from recorder.simulator.homes import HOMES
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from recorder.store.buckets import STEPS
from recorder.store.history import Question, history
from recorder.store.store import Store, StoreLimits
from tests.homes.recording import Case, write_configuration
from tests.support.home_truth import HomeTruth, total
from tests.support.influxd import Influxd
from tests.support.service import ess_recorder

ROOT: Final = Path(__file__).parents[2]
HOME: Final = "night-charge"
# In Berlin a day ends within the first half; in the other zones it does not.
START: Final = datetime(2026, 1, 14, 23, 40, tzinfo=ZoneInfo("Europe/Berlin"))
HALF_SECONDS: Final = 45 * 60
FLOWS: Final = ("home", "grid_import", "grid_to_battery", "battery_charge")
DEVICES: Final = "devices:\n  - profile: lg-ess-gen1-pcs\n  - profile: abb-b2x\n"
OWN_DEVICES: Final = "devices:\n  - profile: own-pcs.yaml\n  - profile: own-meter.yaml\n"
COUNTERS: Final = "  grid_import: active_import\n  grid_export: active_export\n"
NS: Final = 10**9
Energies = dict[str, float]


@dataclass(frozen=True)
class Change:
    """What is replaced in which file between the two halves, as texts of before and after.

    `factor` is what the counters of purchase said too much before.
    """

    file: str
    before: str
    after: str
    site: str = "home"
    factor: float = 1.0


IMPORT: Final = "name: active_import, type: u64, scale: "
CHANGES: Final = {
    "nothing": Change("recorder.yaml", "", ""),
    "time zone, by hours": Change("recorder.yaml", "Europe/Berlin", "America/New_York"),
    "time zone, by half an hour": Change("recorder.yaml", "Europe/Berlin", "Asia/Kolkata"),
    "counters added": Change("own-meter.yaml", "", COUNTERS),
    "counters removed": Change("own-meter.yaml", COUNTERS, ""),
    "scale halved": Change("own-meter.yaml", f"{IMPORT}0.02", f"{IMPORT}0.01", factor=2.0),
    "scale doubled": Change("own-meter.yaml", f"{IMPORT}0.005", f"{IMPORT}0.01", factor=0.5),
    "measurement renamed": Change("own-meter.yaml", "measurement: powermeter", "measurement: grid"),
    "device renamed": Change("own-pcs.yaml", "device: pcs", "device: ess"),
    "site renamed": Change("recorder.yaml", "${ESS_SITE:-home}", "${ESS_SITE:-house}", site="house"),
}


class Outcome:
    """What the truth, the local history and InfluxDB say, in kWh by flow."""

    def __init__(
        self, truth: Energies, by_history: dict[str, Energies], by_influxdb: dict[str, Energies]
    ) -> None:
        self.truth = truth
        self.by_history = by_history
        self.by_influxdb = by_influxdb


def configured(change: Change, directory: Path, text: str) -> None:
    """Write the configuration with one text of a change in its place."""
    case = Case(HOME, START, 0)
    path = write_configuration(case, directory)
    settings = path.read_text()
    assert DEVICES in settings
    path.write_text(settings.replace(DEVICES, OWN_DEVICES))
    for shipped, own in (("lg-ess-gen1-pcs", "own-pcs"), ("abb-b2x", "own-meter")):
        profile = (ROOT / f"config/profiles/{shipped}.yaml").read_text()
        (directory / f"{own}.yaml").write_text(profile)
    file = directory / change.file
    original = file.read_text()
    place = {"": COUNTERS, f"{IMPORT}0.02": f"{IMPORT}0.01", f"{IMPORT}0.005": f"{IMPORT}0.01"}
    old = change.before if change.before in original and change.before else place.get(change.before, COUNTERS)
    if change.before != change.after:
        assert old in original
        file.write_text(original.replace(old, text, 1))


class Recording:
    """The stages of the service, on the clock of the plant, which are stopped and started again."""

    def __init__(self, directory: Path, influxd: Influxd, database: str) -> None:
        self._directory = directory
        self._influxd = influxd
        self._database = database
        kind = HOMES[HOME]
        self._plant = Plant(1, int(START.timestamp()), kind.settings)
        self._stream = SiteStream(self._plant, DIALECTS["ttt"], seed=1, both=True, devices=kind.devices)
        self.halves: list[Energies] = []
        self.env = {
            "ESS_DATA_DIR": str(directory / "data"),
            "ESS_INFLUXDB_URL": influxd.url,
            "ESS_INFLUXDB_DATABASE": database,
        }

    def command(self, *arguments: str) -> str:
        """Run a command of the recorder, with the configuration as it is now."""
        config = ("--config", str(self._directory / "recorder.yaml"))
        done = ess_recorder(*arguments, *config, env=self.env)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode() + done.stderr.decode()

    def record(self, seconds: int) -> None:
        """Run the service for a while."""
        self.command("queries", "apply")
        configuration = load_configuration(self._directory / "recorder.yaml", self.env)
        settings, profiles = configuration.settings, configuration.profiles
        truth = HomeTruth()
        now_s = float(self._plant.now_s)
        store = self.store()
        (name,) = settings.site_names
        site = Site(name, profiles, settings.flow.meter_max_age_seconds)
        for profile in profiles:
            site.start_counters(profile.device, store.last_readings(name, profile))
        pipeline = Pipeline(Catalogue(profiles), site)
        lines: list[bytes] = []

        def take(points: list[Point]) -> None:
            store.observe(points)
            lines.extend(to_line(point) for point in points)

        for _ in range(seconds):
            second = next(self._stream)
            truth.add(self._plant.state)
            now_s = second.at_ns / NS + 1
            take(list(pipeline.feed(b"".join(second.texts), int(now_s * NS))))
        take([*pipeline.finish(), *site.finish()])
        store.close()
        for first in range(0, len(lines), 5000):
            self._influxd.write(b"\n".join(lines[first : first + 5000]), self._database)
        self.backfill(seconds)
        self.halves.append(total(truth.quarters.values()))

    def store(self) -> Store:
        """Open the history as the configuration is now, and let it do what a change of it needs."""
        configuration = load_configuration(self._directory / "recorder.yaml", self.env)
        settings = configuration.settings
        limits = StoreLimits({step.name: inf for step in STEPS}, 1 << 30)
        store = Store(
            settings.data_dir, limits, settings.timezone, configuration.profiles, lambda: self._plant.now_s
        )
        store.flush()
        while store.regroup():
            pass
        return store

    def backfill(self, seconds: int) -> None:
        """Compute what the continuous queries compute of this time."""
        begin, end = (
            datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            for at in (self._plant.now_s - seconds, self._plant.now_s + 60)
        )
        self.command("queries", "backfill", "--from", begin, "--to", end)

    def by_history(self, site: str) -> dict[str, Energies]:
        """Return the energies of all that was recorded, by each width of buckets."""
        store = self.store()
        begin, end = START - timedelta(days=2), START + timedelta(days=2)
        found = {}
        for step in STEPS[1:]:
            question = Question(site, begin.timestamp(), end.timestamp(), step)
            found[step.name] = history(store, question)["totals"]["energy"]
        store.close()
        return found

    def by_influxdb(self, site: str) -> dict[str, Energies]:
        """Return the energies of all that was recorded, by each width of rollups."""
        found = {}
        for width in ("15m", "1h", "1d"):
            sums = ", ".join(f"sum({flow}) AS {flow}" for flow in FLOWS)
            rows = self._influxd.query(
                f"SELECT {sums} FROM rollups.energy_{width} WHERE site = '{site}'", self._database
            )
            found[width] = {flow: rows[0][flow] for flow in FLOWS}
        return found


def outcome_of(name: str, directory: Path, influxd: Influxd) -> Outcome:
    """Record two halves of a home with a change between them."""
    change = CHANGES[name]
    directory.mkdir(parents=True, exist_ok=True)
    recording = Recording(directory, influxd, f"d{list(CHANGES).index(name)}")
    configured(change, directory, change.before)
    recording.record(HALF_SECONDS)
    configured(change, directory, change.after)
    recording.record(HALF_SECONDS)
    if change.site != "home":
        recording.command("rename-site", "home", change.site)
        # It may be repeated.
        recording.command("rename-site", "home", change.site)
    if "zone" in name:
        recording.command("queries", "apply")
    first, second = recording.halves
    truth = {flow: first[flow] + second[flow] for flow in FLOWS}
    truth["grid_import"] += (change.factor - 1) * first["grid_import"]
    return Outcome(truth, recording.by_history(change.site), recording.by_influxdb(change.site))


@pytest.fixture(scope="module")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with Influxd(tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.mark.parametrize("name", CHANGES)
def test_energies_are_those_of_the_plant(name: str, tmp_path: Path, influxd: Influxd) -> None:
    """Whatever is changed, each width of history and InfluxDB has the energies of the plant."""
    outcome = outcome_of(name, tmp_path, influxd)
    for where in (outcome.by_history, outcome.by_influxdb):
        for width, energies in where.items():
            for flow, truth in outcome.truth.items():
                assert energies[flow] == pytest.approx(truth, rel=0.005, abs=0.021), (flow, width)


def table(write: Callable[[str], object]) -> None:
    """Print what each change does to the energies."""
    write(f"{'changed':28} {'flow':18} {'truth':>8}  history 15m, 1h, 1d        InfluxDB 15m, 1h, 1d")
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Influxd(root / "influxd"))
        for number, name in enumerate(CHANGES):
            outcome = outcome_of(name, root / str(number), server)
            for flow in FLOWS:
                cells = [
                    f"{energies[flow]:8.4f}"
                    for where in (outcome.by_history, outcome.by_influxdb)
                    for energies in where.values()
                ]
                write(f"{name:28} {flow:18} {outcome.truth[flow]:8.4f}  {' '.join(cells)}")


if __name__ == "__main__":
    table(lambda line: sys.stdout.write(f"{line}\n") and sys.stdout.flush())
