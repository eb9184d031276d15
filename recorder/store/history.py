"""What a range of the past looks like: columns for a chart, energies, and the figures of the whole.

Takes a question and the store's buckets, returns the answer as plain values, ready to be JSON. Energies
are those that the recorder computed from counters, or from power over time. Never touches the file itself.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from recorder.points.energy import SUBMETER_FIELDS, integrated_name
from recorder.points.flow import FLOW_FIELDS, self_consumption, self_sufficiency
from recorder.points.flow import MEASUREMENT as FLOW
from recorder.store.buckets import STEPS, Cell, Cells, Step
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
)
_WATT_SECONDS_PER_KWH: Final = 3_600_000.0
_DECIMALS: Final = 6
_EMPTY: Final[Cells] = {}
_INTEGRATED: Final = tuple(map(integrated_name, FLOW_FIELDS))

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
    shown = {name: [key for key in of_site if key.measurement == name] for name in measurements}
    flows = [key for key in of_site if key.measurement == FLOW]
    energies = [key for key in of_site if key.measurement == ENERGY]
    wanted: dict[SeriesKey, set[str]] = {key: set(FLOW_FIELDS) for key in flows}
    wanted |= {key: {*FLOW_FIELDS, *_INTEGRATED, *SUBMETER_FIELDS} for key in energies}
    for measurement, name in question.fields:
        for one in shown[measurement]:
            wanted.setdefault(one, set()).add(name)
    found = store.read(wanted, step, first_s, end_s)

    rows = {key: [buckets.get(at_s, _EMPTY) for at_s in times] for key, buckets in found.items()}
    series = {}
    for measurement, name in question.fields:
        # Of several devices each bucket shows the first by name that has the field: one may have been
        # renamed.
        cells = [
            next((row[name] for one in shown[measurement] if name in (row := rows[one][index])), None)
            for index in range(len(times))
        ]
        series[f"{measurement}.{name}"] = _column_of(cells)
    of_flows = [rows[key] for key in flows]
    of_energies = [rows[key] for key in energies]
    is_older = [at_s < store.energy_since_s for at_s in times]
    energy = _energy(of_flows, of_energies, is_older, store.counted_flows)
    known = {name for column in of_energies for cells in column for name in cells}
    covered = [sum(cells["home"][0] for cells in column if "home" in cells) for column in of_flows]
    submeters = {
        key.device: {name: _sums([rows[key]], len(times), name) for name in SUBMETER_FIELDS}
        for key in energies
        if any(name in cells for cells in rows[key] for name in SUBMETER_FIELDS)
    }
    return {
        "site": question.site,
        "from": first_s,
        "to": end_s,
        "step": step.name,
        "time": times,
        "series": series,
        "energy": energy,
        "counted": [name for name in FLOW_FIELDS if integrated_name(name) in known],
        "submeters": submeters,
        "totals": _totals(energy, submeters, sum(covered)),
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


def _column_of(cells: Sequence[Cell | None]) -> dict[str, Column]:
    return {
        "mean": [round(cell[1] / cell[0], _DECIMALS) if cell else None for cell in cells],
        "min": [round(cell[2], _DECIMALS) if cell else None for cell in cells],
        "max": [round(cell[3], _DECIMALS) if cell else None for cell in cells],
    }


def _energy(
    flows: Sequence[Sequence[Cells]],
    energies: Sequence[Sequence[Cells]],
    is_older: Sequence[bool],
    counted: frozenset[str],
) -> dict[str, Column]:
    """Return kWh by flow and bucket.

    In buckets of an older version only counters have energies: there a flow that no counter knows is
    integrated.
    """
    columns = {}
    for name in FLOW_FIELDS:
        column = _sums(energies, len(is_older), name)
        if name not in counted:
            integrals = _sums(flows, len(is_older), name, _WATT_SECONDS_PER_KWH)
            column = [
                integral if older else value
                for value, integral, older in zip(column, integrals, is_older, strict=True)
            ]
        columns[name] = column
    return columns


def _sums(series: Sequence[Sequence[Cells]], buckets: int, name: str, divisor: float = 1.0) -> Column:
    """Return the sum over all series for each bucket."""
    column: Column = [None] * buckets
    for rows in series:
        for index, cells in enumerate(rows):
            cell = cells.get(name)
            if cell is not None:
                column[index] = (column[index] or 0.0) + cell[1] / divisor
    return [None if value is None else round(value, _DECIMALS) for value in column]


def _totals(
    energy: dict[str, Column], submeters: dict[str, dict[str, Column]], covered_seconds: float
) -> dict[str, Any]:
    totals = {name: _total(column) for name, column in energy.items()}
    ratios = {
        "self_sufficiency": self_sufficiency(totals["grid_import"], totals["home"]),
        "self_consumption": self_consumption(
            totals["pv_to_home"], totals["pv_to_battery"], totals["pv_to_grid"]
        ),
    }
    return {
        "energy": totals,
        "submeters": {device: _total(columns[SUBMETER_FIELDS[0]]) for device, columns in submeters.items()},
        **{name: None if ratio is None else _rounded(100.0 * ratio) for name, ratio in ratios.items()},
        "covered_seconds": _rounded(covered_seconds),
    }


def _total(column: Column) -> float | None:
    known = [value for value in column if value is not None]
    return _rounded(sum(known)) if known else None


def _rounded(value: float) -> float:
    return round(value, _DECIMALS)
