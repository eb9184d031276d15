"""What a bench found, and the page that tells it.

Takes figures, gives a table for the terminal and `docs/performance.md`. Never measures anything.

A bench is a module of `bench/` with `def run(options: Options) -> Result`.
"""

import os
import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.table import Table

from recorder.version import VERSION

DOCUMENT: Final = Path(__file__).parents[1] / "docs/performance.md"
_END: Final = (
    "<!-- What stands above is written by `make bench`; what stands below is written by hand, and kept. -->\n"
)
_COLUMNS: Final = ("what", "figure", "ratio", "beside", "target", "met", "runs")


class CannotRunError(Exception):
    """This machine does not let the bench run; the message says why."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure: `quick` is a short form for trying out, `show` tells the user what goes on."""

    quick: bool = False
    show: Callable[[str], object] = lambda _message: None


@dataclass(frozen=True, slots=True)
class Target:
    """What a row has to reach: a bound of its figure, of its ratio, or of both."""

    at_least: float | None = None
    at_most: float | None = None
    ratio_at_least: float | None = None

    def is_met_by(self, figure: float, ratio: float | None) -> bool:
        """Whether every bound holds."""
        return (
            (self.at_least is None or figure >= self.at_least)
            and (self.at_most is None or figure <= self.at_most)
            and (self.ratio_at_least is None or (ratio is not None and ratio >= self.ratio_at_least))
        )

    def __str__(self) -> str:
        bounds = (("≥ ", self.at_least, ""), ("≤ ", self.at_most, ""), ("≥ ", self.ratio_at_least, " x"))
        return ", ".join(f"{sign}{_number(bound)}{of}" for sign, bound, of in bounds if bound is not None)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, the median of `runs`.

    `ratio` is the figure divided by that of `beside`, measured in the same run on the same machine.
    """

    name: str
    figure: float
    unit: str
    ratio: float | None = None
    beside: str = ""
    target: Target | None = None
    runs: int = 1

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        return self.target.is_met_by(self.figure, self.ratio) if self.target else None

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of the columns."""
        met = {None: "", True: "met", False: "**missed**"}[self.met]
        ratio = "" if self.ratio is None else f"{_number(self.ratio)} x"
        figure = f"{_number(self.figure)} {self.unit}"
        return self.name, figure, ratio, self.beside, str(self.target or ""), met, str(self.runs)


@dataclass(frozen=True, slots=True)
class Result:
    """What one bench found: its rows, and `notes` in Markdown on how they were measured."""

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """What the figures were measured on."""

    processor: str
    cores: int
    system: str
    python: str
    influxd: str

    def __str__(self) -> str:
        influxd = f"influxd {self.influxd}" if self.influxd else "no influxd"
        return f"{self.processor}, {self.cores} cores, {self.system}, Python {self.python}, {influxd}"


def this_machine() -> Machine:
    """Describe the machine at hand; `influxd` is empty where there is none."""
    models = re.findall(r"(?m)^(?:model name|Model)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text())
    try:
        answer = subprocess.run(["influxd", "version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        answer = ""
    version = re.search(r"\d+(?:\.\d+)+", answer)
    return Machine(
        processor=models[0] if models else platform.machine(),
        cores=os.cpu_count() or 1,
        system=f"Linux {platform.release().split('-')[0]}",
        python=platform.python_version(),
        influxd=version[0] if version else "",
    )


def terminal_table(results: Sequence[Result]) -> Table:
    """Give all rows as a table for the terminal."""
    table = Table(*_COLUMNS)
    for result in results:
        table.add_section()
        for row in result.rows:
            table.add_row(*(cell.replace("**", "") for cell in row.cells()))
    return table


def write_document(text: str, path: Path = DOCUMENT) -> None:
    """Write the measured part of the page, and keep what was written by hand beneath it."""
    path.write_text(text + "\n" + _END + _halves(path)[1])


def update_document(results: Sequence[Result], path: Path = DOCUMENT) -> None:
    """Put what was measured again in place of what the page says of the same benches."""
    measured, by_hand = _halves(path)
    head, *sections = re.split(r"(?m)^(?=## )", measured)
    known = {section.splitlines()[0]: section for section in sections}
    known |= {f"## {result.title}": _section(result) + "\n" for result in results}
    path.write_text(head + "".join(known.values()).rstrip("\n") + "\n\n" + _END + by_hand)


def document(results: Sequence[Result], machine: Machine, *, quick: bool) -> str:
    """Give the page, in Markdown."""
    length = "the short form, `make bench BENCH_OPTIONS=--quick`" if quick else "`make bench`"
    head = [
        "# Performance, measured\n",
        f"Written by {length}, of ess-recorder {VERSION}; figures are medians of the runs named in each row.",
        "`python -m bench NAME` measures one of them again. A ratio compares with what was measured beside",
        "it in the same run, so it holds elsewhere too.\n",
        f"The machine: {machine}.\n",
    ]
    return "\n".join([*head, *map(_section, results)]).rstrip("\n") + "\n"


def _section(result: Result) -> str:
    """Give what the page says of one bench."""
    return "\n".join(
        [
            f"## {result.title}\n",
            f"| {' | '.join(_COLUMNS)} |",
            f"|{' --- |' * len(_COLUMNS)}",
            *(f"| {' | '.join(row.cells())} |" for row in result.rows),
            "",
            *(f"{note}\n" for note in result.notes),
            f"Measured on {datetime.now(UTC):%Y-%m-%d}.\n",
        ]
    )


def _halves(path: Path) -> tuple[str, str]:
    """Give what a run wrote into the page, and what was written by hand beneath it."""
    measured, _, by_hand = (path.read_text() if path.exists() else "").partition(_END)
    return measured, by_hand


def _number(value: float) -> str:
    """Three digits that count, and whole thousands with commas."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
