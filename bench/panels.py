"""How long every panel of every dashboard takes, at one hour, a day, 30 days and a year.

Takes the committed dashboards and a simulated year in a real influxd, gives the median and the slowest panel
of each range. Measures the answers of InfluxDB as Grafana waits for them, one query after the other; never
the browser.
"""

import tempfile
import time
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Final

from bench.report import CannotRunError, Options, Result, Row, Target
from tests.grafana.as_grafana import TimeRange, range_of
from tests.grafana.pages import PAGES, RANGES, Page, statements
from tests.grafana.year import STEP_SECONDS, ZONE, Year, shared_year
from tests.support.influxd import http

_MOST_MS: Final = 200
_MINUTE_SECONDS: Final = 60


def run(options: Options) -> Result:
    """Fill a database with a year of minutes, then ask every panel for each range several times.

    Raises:
        CannotRunError: influxd is not installed, or refused a query.
    """
    runs = 3 if options.quick else 9
    options.show("a year of one home is being simulated and written: a few minutes")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        step_seconds = STEP_SECONDS if options.quick else _MINUTE_SECONDS
        try:
            with shared_year(root / "year", root / "influxd", step_seconds) as year:
                return _measured(year, runs, options)
        except FileNotFoundError as error:
            raise CannotRunError(f"{error.filename} is not installed") from error


def _measured(year: Year, runs: int, options: Options) -> Result:
    rows, slowest_ms, slowest = [], 0.0, ""
    for label, days in RANGES.items():
        chosen = TimeRange(year.now - timedelta(days=days), year.now)
        options.show(f"{len(PAGES)} panels at {label}")
        found = {
            f"{page.dashboard}: {page.panel['title']}": [
                _milliseconds(year, page, chosen) for _ in range(runs)
            ]
            for page in PAGES
        }
        medians = {name: median(times) for name, times in found.items()}
        worst = max(medians, key=lambda name: medians[name])
        rows += [
            Row(f"the median panel, {label}", median(medians.values()), "ms", runs=runs),
            Row(
                f"the slowest panel, {label} ({worst})",
                medians[worst],
                "ms",
                None,
                "",
                Target(at_most=_MOST_MS),
                runs,
            ),
        ]
        for name, times in found.items():
            if max(times) > slowest_ms:
                slowest_ms, slowest = max(times), f"{name}, {label}"
    note = (
        f"All {len(PAGES)} panels of all dashboards, for a plot 1,000 points wide, on a database with a year"
        " of minutes, hours and energies of one home, a month of another, five hours of samples. A panel's"
        " time is that of all of its queries, one after the other, as InfluxDB answers them; a figure is"
        f" the median of its runs. The slowest single run: {slowest_ms:.0f} ms ({slowest})."
    )
    return Result("Dashboards", tuple(rows), (note,))


def _milliseconds(year: Year, page: Page, chosen: TimeRange) -> float:
    asked = statements(page.panel, range_of(page.panel, chosen, ZONE))
    begun = time.perf_counter()
    for statement in asked:
        status, text = http("POST", f"{year.server.url}/query", {"db": "ess", "epoch": "ms", "q": statement})
        if status != 200 or b'"error"' in text:
            raise CannotRunError(f"{page.panel['title']}: {text[:200].decode()}")
    return (time.perf_counter() - begun) * 1000
