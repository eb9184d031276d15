"""`python -m tests.faults [NUMBER...]`: runs the whole matrix and writes `docs/reliability.md`.

Takes the numbers of rows, or none for all; prints each as it ends, and writes them into the document.
Exit code 1 where anything was lost uncounted, doubled or wrong, or a row failed.
"""

import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.matrix import NOT_HERE, CannotInjectError, Result, Row
from tests.faults.rows import ROWS, run_row

DOCUMENT = Path(__file__).parents[2] / "docs/reliability.md"
ROWS_AT_A_TIME = 3
LONGEST_ROWS = (6, 34, 23, 1)
COLUMNS = (
    "#", "fault", "sent", "accepted", "dead-lettered", "dropped, counted", "allowed",
    "lost uncounted", "duplicated", "wrong", "peak RSS, MB", "figure", "measured",
)  # fmt: skip
INTRODUCTION = """\
# Reliability, measured

`make faults` wrote this, and `python -m tests.faults NUMBER` measures single rows of it again. Each row
runs the real recorder as a process, fed by the simulator, against a real influxd, and injects the fault for
real. Every sample (one scan of one device) is known by its stamp.
*Allowed* is input that came after a sample seen on the disk or in InfluxDB before a kill -9; the figure
says how old it was.
Rows run three at a time, so seconds are those of a busy machine.
*Lost uncounted*, *duplicated* and *wrong* must be 0.
Clocks and devices over two connections are in [clocks.md](clocks.md).

"""


def main() -> int:
    """Run the rows named on the command line, or all; 0 where every one holds."""
    chosen = [int(number) for number in sys.argv[1:]] or sorted(ROWS)
    console = Console(width=200)
    lines: list[tuple[str, ...]] = []
    reasons: dict[int, tuple[str, str]] = dict(NOT_HERE)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    failed = False
    # Rows wait more than they compute. The longest come first, so that the last ones are short.
    with ProcessPoolExecutor(ROWS_AT_A_TIME, mp_context=get_context("spawn")) as pool:
        begun = {pool.submit(run_row, number): ROWS[number] for number in sorted(chosen, key=_by_length)}
        for done in as_completed(begun):
            row, outcome = begun[done], done.result()
            if isinstance(outcome, Result):
                failed |= bool(outcome.violations)
                lines.append((*_cells(row, outcome), today))
                console.print(f"{row.number}: {row.fault}:", *outcome.violations, outcome.figure)
            elif isinstance(outcome, CannotInjectError):
                reasons[row.number] = (row.fault, str(outcome))
            else:
                failed = True
                lines.append((str(row.number), row.fault, *["-"] * 9, "FAILED", today))
                console.print(f"{row.number}: {row.fault}: FAILED\n{outcome}")
    lines += [line for line in _measured_before() if int(line[0]) not in {*chosen, *reasons}]
    lines.sort(key=lambda line: int(line[0]))
    table = Table(*COLUMNS)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    for number, (fault, why) in sorted(reasons.items()):
        console.print(f"{number}: {fault}: not injected: {why}")
    DOCUMENT.write_text(_document(lines, reasons))
    console.print(f"written: {DOCUMENT.name}")
    return int(failed)


def _measured_before() -> list[tuple[str, ...]]:
    """The rows that the document holds."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    found = [tuple(cell.strip() for cell in line.strip("| ").split(" | ")) for line in text.splitlines()]
    return [line for line in found if len(line) == len(COLUMNS) and line[0].isdigit()]


def _by_length(number: int) -> tuple[bool, int]:
    return (number not in LONGEST_ROWS, number)


def _cells(row: Row, result: Result) -> tuple[str, ...]:
    numbers = (
        result.sent, result.accepted, result.dead_lettered, result.dropped_counted, result.allowed,
        result.lost_uncounted, result.duplicated, result.wrong,
    )  # fmt: skip
    return (
        str(row.number), f"{row.fault}: {row.expected}", *(f"{number:,}" for number in numbers),
        f"{result.peak_rss_mb:.0f}", result.figure,
    )  # fmt: skip


def _document(lines: list[tuple[str, ...]], reasons: dict[int, tuple[str, str]]) -> str:
    text = INTRODUCTION + f"The machine: {_machine()}.\n\n"
    for line in (COLUMNS, ("---",) * len(COLUMNS), *lines):
        text += "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n"
    missing = sorted(ROWS.keys() - {int(line[0]) for line in lines} - reasons.keys())
    if missing:
        text += f"\nNot measured yet for this document: {', '.join(map(str, missing))}.\n"
    if reasons:
        text += "\n## Not injected\n\n"
        text += "".join(f"- {number}, {fault}: {why}.\n" for number, (fault, why) in sorted(reasons.items()))
    return text


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} cores of {model}, {memory_gb:.0f} GB of RAM, Linux {platform.release()}"


if __name__ == "__main__":
    sys.exit(main())
