"""`python -m tests.homes [--quick] [CASE...]`: a simulated day of each home, and special ones, and the truth.

Takes the names of cases, or none for all; prints each as it ends, and a run of all of them writes
`docs/accuracy.md`. With --quick nothing is decoded: samples go to the stages behind it, and no document is
written. Exit code 1 where a figure is further from the truth than 0.5 %.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from rich.console import Console

from recorder.simulator.homes import HOMES
from tests.homes.recording import (
    FIGURES,
    LARGEST_DEVIATION,
    Case,
    deviation,
    figures,
    figures_of_api,
    from_api,
    from_influxdb,
    record,
    replay,
    write_live,
)
from tests.support.influxd import Influxd

DOCUMENT: Final = Path(__file__).parents[2] / "docs/accuracy.md"
INTRODUCTION: Final = """\
# Accuracy of energies

`python -m tests.homes` wrote this. Each simulated home is recorded for one local day, from a quarter of an
hour before midnight to a quarter of an hour after the next. Its text goes through the recorder's stages into
the local history, which is read from `/api/v1/history`, and by `ess-recorder replay` into an InfluxDB 1.6,
from which `energy_1d` is read. The truth comes from the simulated plant, by an implementation of its own of
the definitions in [energy-flow.md](energy-flow.md). *Deviation* is the larger of both: of energies relative
to the truth (below 1 kWh: to 1 kWh), of ratios in percentage points. It must not be above 0.5.

| home | figure | truth | page and API | InfluxDB | deviation |
| --- | --- | --- | --- | --- | --- |
"""
NAMES: Final = (
    "home", "bought", "sold", "PV", "charged", "discharged", "self-sufficiency", "self-consumption",
)  # fmt: skip
_MARGIN: Final = timedelta(minutes=15)
_BERLIN: Final = ZoneInfo("Europe/Berlin")
_Figures = Mapping[str, float | None]


class Day(NamedTuple):
    """A local day of a home; `title` is how the table names it."""

    title: str
    home: str
    day: datetime

    @property
    def case(self) -> Case:
        """What is recorded of it."""
        start, (begin_s, end_s) = self.day - _MARGIN, self.bounds
        return Case(self.home, start, end_s - begin_s + 2 * int(_MARGIN.total_seconds()))

    @property
    def bounds(self) -> tuple[int, int]:
        """Its beginning and end, Unix s."""
        return int(self.day.timestamp()), int((self.day + timedelta(days=1)).timestamp())


def _day(home: str, month: int, day: int, zone: str = "Europe/Berlin", title: str = "") -> Day:
    return Day(title or HOMES[home].description, home, datetime(2026, month, day, tzinfo=ZoneInfo(zone)))


DAYS: Final = {
    "ess": _day("ess", 4, 18),
    "heat-pump": _day("heat-pump", 3, 20),
    "two-inverters": _day("two-inverters", 4, 18),
    "pv": _day("pv", 6, 20),
    "meter": _day("meter", 11, 20),
    "night-charge": _day("night-charge", 1, 14),
    "kolkata": _day("ess", 4, 18, "Asia/Kolkata", "LG ESS in Asia/Kolkata"),
    "kathmandu": _day("ess", 4, 18, "Asia/Kathmandu", "LG ESS in Asia/Kathmandu"),
    "lord-howe": _day("ess", 10, 4, "Australia/Lord_Howe", "LG ESS in Australia/Lord_Howe, 23.5 hours"),
    "short-day": _day("ess", 3, 29, title="LG ESS, a day of 23 hours"),
    "long-day": _day("ess", 10, 25, title="LG ESS, a day of 25 hours"),
}


def main() -> int:
    """Record the days that the command line names, or all; 0 where every figure is right."""
    quick = "--quick" in sys.argv
    chosen = [name for name in sys.argv[1:] if name != "--quick"] or list(DAYS)
    console = Console(width=200)
    lines: list[str] = []
    right = True
    with tempfile.TemporaryDirectory(prefix="ess-homes-") as directory:
        for name in chosen:
            truth, api, influx = measure(DAYS[name], Path(directory) / name, quick=quick)
            for label, figure in zip(NAMES, FIGURES, strict=True):
                found = (api[figure], influx[figure])
                furthest = max(deviation(figure, value, truth[figure]) for value in found)
                right &= furthest <= LARGEST_DEVIATION
                values = (_shown(figure, value) for value in (truth[figure], *found))
                cells = (DAYS[name].title, label, *values)
                lines.append(f"| {' | '.join(cells)} | {100 * furthest:.2f} % |")
                console.print(lines[-1])
    if len(chosen) == len(DAYS) and not quick:
        DOCUMENT.write_text(INTRODUCTION + "\n".join(lines) + "\n")
        console.print(f"written: {DOCUMENT.name}")
    return int(not right)


def measure(day: Day, directory: Path, *, quick: bool) -> tuple[_Figures, _Figures, _Figures]:
    """Record a day; return its figures by the truth, the API and InfluxDB."""
    begin_s, end_s = day.bounds
    recorded = record(replace(day.case, text=not quick), directory)
    with Influxd(directory / "influxd", sections={"continuous_queries": {"enabled": "false"}}) as influxd:
        (write_live if quick else replay)(recorded, influxd, "ess")
        for file in recorded.files:
            file.unlink()
        rollups = from_influxdb(influxd, "ess", "energy_1d", begin_s, end_s)
    (answer,) = from_api(recorded, [(begin_s, end_s, "1d")])
    truth = figures(recorded.truth.between(begin_s, end_s))
    return truth, figures_of_api(answer), figures(rollups[begin_s])


def _shown(figure: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if figure in FIGURES[6:] else f"{value:.3f} kWh"


if __name__ == "__main__":
    sys.exit(main())
