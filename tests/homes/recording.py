"""A simulated home, recorded: what the page's API, InfluxDB's rollups and the plant itself say of its energy.

The text of the home's buses goes two ways. The stages of the service decode it second by second, with the
time of its receipt, into the local history, which a recorder then serves over HTTP; `ess-recorder replay`
writes the same text into InfluxDB. A day takes half a minute of a processor.
"""

import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from recorder.commands.configuration import Configuration, load_configuration
from recorder.pipeline import Pipeline
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.points.site import Site
from recorder.profiles.catalogue import Catalogue
from recorder.simulator.homes import HOMES
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import ExpectedSample, SiteStream
from recorder.store.buckets import STEPS
from recorder.store.store import Store, StoreLimits
from tests.support.home_truth import HomeTruth, PvSide, self_consumption, self_sufficiency, total
from tests.support.influxd import Influxd
from tests.support.service import Service, ess_recorder

SITE: Final = "home"
FIGURES: Final = (
    "home", "grid_import", "grid_export", "pv", "battery_charge", "battery_discharge",
    "self_sufficiency", "self_consumption",
)  # fmt: skip
LARGEST_DEVIATION: Final = 0.005
_NS: Final = 10**9
_LINES_A_WRITE: Final = 5000
_ROOT: Final = Path(__file__).parents[2]
_INVERTER: Final = _ROOT / "tests/support/inverter.yaml"
_LG_ESS: Final = "  - profile: lg-ess-gen1-pcs\n"
_HEAT_PUMP: Final = "- {profile: abb-b2x, unit: 2, device: heat_pump"
# Where the sun is up by day: longitudes of the zones of the tests.
_PLACES: Final = {
    "Asia/Kolkata": (22.6, 88.4),
    "Asia/Kathmandu": (27.7, 85.3),
    "Australia/Lord_Howe": (-31.5, 159.1),
}


@dataclass(frozen=True, slots=True)
class Case:
    """What is recorded: a kind of home from a local moment on, in seconds.

    In `pauses`, pairs of seconds since the start, nothing reaches the recorder. After `restart_after`
    seconds the recorder is stopped and started again. `separate` streams are of one process each.
    """

    home: str
    start: datetime
    seconds: int
    pauses: tuple[tuple[int, int], ...] = ()
    restart_after: int | None = None
    separate: bool = False
    seed: int = 1

    @property
    def start_s(self) -> int:
        """The beginning, Unix s."""
        return int(self.start.timestamp())

    @property
    def zone(self) -> str:
        """The IANA name of the home's time zone."""
        assert isinstance(self.start.tzinfo, ZoneInfo)
        return self.start.tzinfo.key

    @property
    def pv_side(self) -> PvSide:
        """Where the inverter without a battery measures: alone it knows its AC power only."""
        return "ac" if self.home == "pv" else "dc"


class Recorded(NamedTuple):
    """A home that was recorded, and the truth: of all its time, and of the time that reached the recorder.

    `samples` are what was to be found in the text, and `lines` what the recorder would have sent to InfluxDB.
    """

    case: Case
    directory: Path
    config: Path
    files: Sequence[Path]
    truth: HomeTruth
    seen: HomeTruth
    samples: list[ExpectedSample]
    lines: list[bytes]


def record(case: Case, directory: Path, *, keep: bool = False) -> Recorded:
    """Simulate a home, and record it into the local history and into files of text.

    Samples and lines are kept where `keep` says so.
    """
    directory.mkdir(parents=True)
    config = write_configuration(case, directory)
    kind = HOMES[case.home]
    latitude, longitude = _PLACES.get(case.zone, (51.2, 9.8))
    settings = replace(kind.settings, latitude_deg=latitude, longitude_deg=longitude)
    plant = Plant(case.seed, case.start_s, settings)
    both = not case.separate
    stream = SiteStream(plant, DIALECTS["ttt"], seed=case.seed, both=both, devices=kind.devices)
    truth, seen = HomeTruth(case.pv_side), HomeTruth(case.pv_side)
    samples: list[ExpectedSample] = []
    lines: list[bytes] = []
    names = ("home.strace",) if both else ("inverters.strace", "meters.strace")
    files = [directory / name for name in names]
    service = _Recorder(config, directory, len(files), keeps_lines=keep)
    with ExitStack() as stack:
        texts = [stack.enter_context(file.open("wb")) for file in files]
        for passed in range(case.seconds):
            if passed == case.restart_after:
                lines += service.stop()
                service = _Recorder(config, directory, len(files), keeps_lines=keep)
            if any(first <= passed < last for first, last in case.pauses):
                truth.add(plant.sample(plant.now_s + 1))
                continue
            second = next(stream)
            truth.add(plant.state)
            seen.add(plant.state)
            for text, written in zip(texts, second.texts, strict=True):
                text.write(written)
            lines += service.feed(second.texts, second.at_ns + _NS)
            if keep:
                samples += second.truth
    lines += service.stop()
    return Recorded(case, directory, config, files, truth, seen, samples, lines)


class _Recorder:
    """The stages of the service from text to history, on the clock of the plant."""

    def __init__(self, config: Path, directory: Path, streams: int, *, keeps_lines: bool) -> None:
        self._keeps_lines = keeps_lines
        configuration = configuration_of(config, directory)
        settings, profiles = configuration.settings, configuration.profiles
        self._now_ns = 0
        limits = StoreLimits({step.name: inf for step in STEPS}, settings.store.max_bytes)
        self._store = Store(
            settings.data_dir, limits, settings.timezone, profiles, lambda: self._now_ns / _NS
        )
        # As `Store.start`, but for the thread that writes by real time.
        self._store.flush()
        self._site = Site(SITE, profiles, settings.flow.meter_max_age_seconds)
        for profile in profiles:
            self._site.start_counters(profile.device, self._store.last_readings(SITE, profile))
        self._pipelines = [Pipeline(Catalogue(profiles), self._site) for _ in range(streams)]
        self._flushed_ns = 0

    def feed(self, texts: Sequence[bytes], received_at_ns: int) -> list[bytes]:
        """Take what each connection brought in a second; return the lines of the points."""
        self._now_ns = received_at_ns
        points: list[Point] = []
        for pipeline, text in zip(self._pipelines, texts, strict=True):
            points += pipeline.feed(text, received_at_ns)
            points += pipeline.expire(received_at_ns)
        self._store.observe(points)
        if received_at_ns - self._flushed_ns > 3600 * _NS:
            self._store.flush()
            self._flushed_ns = received_at_ns
        return self._lines(points)

    def stop(self) -> list[bytes]:
        """End every stream, and write what is left."""
        points = [point for pipeline in self._pipelines for point in pipeline.finish()]
        points += self._site.finish()
        self._store.observe(points)
        self._store.close()
        return self._lines(points)

    def _lines(self, points: Sequence[Point]) -> list[bytes]:
        return [to_line(point) for point in points] if self._keeps_lines else []


def write_configuration(case: Case, directory: Path) -> Path:
    """Write the shipped settings with the devices of the home, which keep raw data for ever."""
    text = (_ROOT / "config/recorder.yaml").read_text()
    names = {device.name for device in HOMES[case.home].devices}
    assert _LG_ESS in text
    assert f"# {_HEAT_PUMP}" in text
    if "pcs" not in names:
        text = text.replace(_LG_ESS, "")
    if "heat_pump" in names:
        text = text.replace(f"# {_HEAT_PUMP}", _HEAT_PUMP)
    if "inverter" in names:
        profile = _INVERTER.read_text()
        if case.pv_side == "ac":
            profile = re.sub(r"(?m)^  (pv_power|pv): .*\n", "", profile)
            profile = profile.replace("  ac_power: ac_power\n", "  ac_power: ac_power\n  pv: ac_energy\n")
        (directory / "inverter.yaml").write_text(profile)
        text = text.replace("devices:\n", "devices:\n  - profile: inverter.yaml\n", 1)
    text = re.sub(r"(?m)^(  (?:raw|avg10|minutes|quarter_hours)): \w+", r"\1: inf", text)
    path = directory / "recorder.yaml"
    path.write_text(text.replace("${ESS_TIMEZONE:-Europe/Berlin}", case.zone))
    return path


def configuration_of(config: Path, directory: Path) -> Configuration:
    """Load what `write_configuration` wrote."""
    return load_configuration(config, {"ESS_DATA_DIR": str(directory / "data")})


def figures(energy: dict[str, float]) -> dict[str, float | None]:
    """Return what is compared: energies in kWh, and the ratios, 0 to 1, by the oracle's definitions."""
    return {
        **{name: energy.get(name, 0.0) for name in FIGURES[:6]},
        "self_sufficiency": self_sufficiency(energy),
        "self_consumption": self_consumption(energy),
    }


def from_api(recorded: Recorded, ranges: Sequence[tuple[int, int, str]]) -> list[dict[str, Any]]:
    """Ask a recorder on the home's data directory for the history of ranges: Unix s, and a step."""
    directory = recorded.directory
    with Service(directory, "", ESS_CONFIG=str(recorded.config)) as service:
        return [
            _get(service.http_port, {"site": SITE, "from": str(start), "to": str(end), "step": step})
            for start, end, step in ranges
        ]


def _get(port: int, parameters: dict[str, str]) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}/api/v1/history?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def figures_of_api(answer: dict[str, Any]) -> dict[str, float | None]:
    """Return what an answer of `/api/v1/history` says of its whole range."""
    totals = answer["totals"]
    ratios = {name: totals[name] for name in FIGURES[6:]}
    return {
        **{name: totals["energy"][name] for name in FIGURES[:6]},
        **{name: None if percent is None else percent / 100 for name, percent in ratios.items()},
    }


def replay(recorded: Recorded, influxd: Influxd, database: str) -> None:
    """Write the text of the home into InfluxDB by the command."""
    env = {
        "ESS_DATA_DIR": str(recorded.directory / "replay"),
        "ESS_INFLUXDB_URL": influxd.url,
        "ESS_INFLUXDB_DATABASE": database,
    }
    files = [str(file) for file in recorded.files]
    # A day may take long on a busy machine: whoever asks for one waits for it.
    done = subprocess.run(
        [sys.executable, "-m", "recorder", "replay", *files, "--config", str(recorded.config)],
        cwd=_ROOT, env={**os.environ, **env}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()


def write_live(recorded: Recorded, influxd: Influxd, database: str) -> None:
    """Write what the recorder itself sent, and compute the rollups of its time."""
    env = {
        "ESS_DATA_DIR": str(recorded.directory / "live"),
        "ESS_INFLUXDB_URL": influxd.url,
        "ESS_INFLUXDB_DATABASE": database,
    }
    config = ("--config", str(recorded.config))
    applied = ess_recorder("queries", "apply", *config, env=env)
    assert applied.returncode == 0, applied.stderr.decode()
    for first in range(0, len(recorded.lines), _LINES_A_WRITE):
        influxd.write(b"\n".join(recorded.lines[first : first + _LINES_A_WRITE]), database)
    begin, end = (
        datetime.fromtimestamp(recorded.case.start_s + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for seconds in (0, recorded.case.seconds + 60)
    )
    done = ess_recorder("queries", "backfill", "--from", begin, "--to", end, *config, env=env)
    assert done.returncode == 0, done.stderr.decode()


def from_influxdb(
    influxd: Influxd, database: str, measurement: str, start_s: int, end_s: int
) -> dict[int, dict[str, float]]:
    """Return the energies of the rollups that begin in a range, summed over the series of the site."""
    statement = (
        f'SELECT * FROM "rollups"."{measurement}" WHERE "site" = \'{SITE}\' '
        f"AND time >= {start_s}s AND time < {end_s}s"
    )
    found: dict[int, list[dict[str, float]]] = {}
    for row in influxd.query(statement, database):
        at_s = row.pop("time") // _NS
        energies = {name: value for name, value in row.items() if isinstance(value, int | float)}
        found.setdefault(at_s, []).append(energies)
    return {at_s: total(rows) for at_s, rows in found.items()}


def deviation(name: str, value: float | None, truth: float | None) -> float:
    """Return how far a figure is from the truth: of an energy relative to it, of a ratio in absolute terms.

    The deviation of an energy below 1 kWh is relative to 1 kWh: counters have steps.
    """
    if value is None or truth is None:
        return 0.0 if value is None and truth is None else inf
    if name in FIGURES[6:]:
        return abs(value - truth)
    return abs(value - truth) / max(abs(truth), 1.0)
