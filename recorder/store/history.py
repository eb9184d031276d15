"""What a range of the past looks like: columns for a chart, energies, and the figures of the whole.

Takes a question and the store's buckets, gives the answer as plain values, ready to be JSON. Energies
come from a device's counters where it has some, else from power over time. Never touches the file itself.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from recorder.points.flow import FLOW_FIELDS
from recorder.store.buckets import STEPS, Cells, Step
from recorder.store.store import Store
from recorder.store.thinning import ENERGY, SeriesKey

MOST_BUCKETS: Final = 10_000
AUTO_BUCKETS: Final = 1_500
MOST_FIELDS: Final = 16
DEFAULT_FIELDS: Final = (
    ("flow", "home"),
    ("flow", "pv"),
    ("flow", "grid_import"),
    ("flow", "grid_export"),
    ("flow", "battery_charge"),
    ("flow", "battery_discharge"),
    ("pcs", "battery_soc"),
)
_WATT_SECONDS_PER_KWH: Final = 3_600_000.0
_DECIMALS: Final = 6
_EMPTY: Final[Cells] = {}

Column = list[float | None]


@dataclass(frozen=True, slots=True)
class Question:
    """Which buckets of which fields, (measurement, field), of one site; times are Unix seconds.

    `step` is None for the finest that suits the range.
    """

    site: str
    start_s: float
    end_s: float
    step: Step | None = None
    fields: Sequence[tuple[str, str]] = DEFAULT_FIELDS


def history(store: Store, question: Question) -> dict[str, Any]:
    """Answer a question, of a range with more than `MOST_BUCKETS` its last ones; may wait for a disk.

    Raises:
        OSError: the store cannot be read now.
    """
    step = question.step or _finest(store, question)
    times = list(deque(_beginnings(store, step, question), MOST_BUCKETS))
    first_s = times[0] if times else int(question.start_s)
    end_s = store.buckets.following(step, times[-1]) if times else first_s
    of_site = [key for key in store.series() if key.site == question.site]
    measurements = dict.fromkeys(measurement for measurement, _ in question.fields)
    shown = {name: next((key for key in of_site if key.measurement == name), None) for name in measurements}
    flows = [key for key in of_site if key.measurement == "flow"]
    counters = [key for key in of_site if key.measurement == ENERGY]
    wanted: dict[SeriesKey, set[str]] = {key: set(FLOW_FIELDS) for key in (*flows, *counters)}
    for measurement, name in question.fields:
        one = shown[measurement]
        if one is not None:
            wanted.setdefault(one, set()).add(name)
    found = store.read(wanted, step, first_s, end_s)

    rows = {key: [buckets.get(at_s, _EMPTY) for at_s in times] for key, buckets in found.items()}
    series = {}
    for measurement, name in question.fields:
        one = shown[measurement]
        series[f"{measurement}.{name}"] = _column_of(rows[one] if one else [_EMPTY] * len(times), name)
    of_flows = [rows[key] for key in flows]
    energy, counted = _energy(of_flows, [rows[key] for key in counters], len(times))
    covered = [sum(cells["home"][0] for cells in column if "home" in cells) for column in of_flows]
    return {
        "site": question.site,
        "from": first_s,
        "to": end_s,
        "step": step.name,
        "time": times,
        "series": series,
        "energy": energy,
        "counted": counted,
        "totals": _totals(energy, of_flows, max(covered, default=0.0)),
    }


def _finest(store: Store, question: Question) -> Step:
    """Give the finest step that has not too many buckets, and still has those of the beginning."""
    span_s = question.end_s - question.start_s
    for step in STEPS[:-1]:
        if span_s / step.width_seconds <= AUTO_BUCKETS and question.start_s >= store.kept_since(step):
            return step
    return STEPS[-1]


def _beginnings(store: Store, step: Step, question: Question) -> Iterator[int]:
    if question.end_s <= question.start_s:
        return iter(())
    # A local day has 25 hours at most.
    start_s = max(question.start_s, question.end_s - MOST_BUCKETS * step.width_seconds * 25 / 24)
    return store.buckets.beginnings(step, store.buckets.begin(step, start_s), ceil(question.end_s))


def _column_of(rows: Sequence[Cells], name: str) -> dict[str, Column]:
    cells = [row.get(name) for row in rows]
    return {
        "mean": [round(cell[1] / cell[0], _DECIMALS) if cell else None for cell in cells],
        "min": [round(cell[2], _DECIMALS) if cell else None for cell in cells],
        "max": [round(cell[3], _DECIMALS) if cell else None for cell in cells],
    }


def _energy(
    flows: Sequence[Sequence[Cells]], counters: Sequence[Sequence[Cells]], buckets: int
) -> tuple[dict[str, Column], list[str]]:
    """Give kWh by flow and bucket, and the flows that counters know."""
    known = {name for rows in counters for cells in rows for name in cells}
    counted: list[str] = [name for name in FLOW_FIELDS if name in known]
    columns = {
        name: _sums(counters, buckets, name, 1.0)
        if name in known
        else _sums(flows, buckets, name, _WATT_SECONDS_PER_KWH)
        for name in FLOW_FIELDS
    }
    return columns, counted


def _sums(series: Sequence[Sequence[Cells]], buckets: int, name: str, divisor: float) -> Column:
    """Give the sum over all series for each bucket."""
    column: Column = [None] * buckets
    for rows in series:
        for index, cells in enumerate(rows):
            cell = cells.get(name)
            if cell is not None:
                column[index] = (column[index] or 0.0) + cell[1] / divisor
    return [None if value is None else round(value, _DECIMALS) for value in column]


def _totals(
    energy: dict[str, Column], flows: Sequence[Sequence[Cells]], covered_seconds: float
) -> dict[str, Any]:
    totals = {}
    for name, column in energy.items():
        known = [value for value in column if value is not None]
        totals[name] = _rounded(sum(known)) if known else None
    integrated = {
        name: sum(cells[name][1] for rows in flows for cells in rows if name in cells)
        for name in ("home", "pv", "grid_to_home", "pv_to_grid")
    }
    return {
        "energy": totals,
        "self_sufficiency": _share_kept(integrated["grid_to_home"], integrated["home"]),
        "self_consumption": _share_kept(integrated["pv_to_grid"], integrated["pv"]),
        "covered_seconds": _rounded(covered_seconds),
    }


def _share_kept(part: float, whole: float) -> float | None:
    """Give 1 less the part of the whole, in %."""
    if whole <= 0:
        return None
    return _rounded(100.0 * min(1.0, max(0.0, 1.0 - part / whole)))


def _rounded(value: float) -> float:
    return round(value, _DECIMALS)
