"""All rows of the matrix in one place: importing this registers them.

Takes the modules of rows, gives `ROWS` in the order of their numbers, and runs one by its number.
"""

import tempfile
import traceback
from pathlib import Path

from tests.faults import (
    rows_clock,
    rows_disk,
    rows_doors,
    rows_influxdb,
    rows_input,
    rows_network,
    rows_process,
)
from tests.faults.matrix import ROWS as _REGISTERED
from tests.faults.matrix import CannotInjectError, Ground, Result

MODULES = (rows_clock, rows_disk, rows_doors, rows_influxdb, rows_input, rows_network, rows_process)
ROWS = dict(sorted(_REGISTERED.items()))


def run_row(number: int) -> Result | CannotInjectError | str:
    """Run one row, in a process of its own; the traceback where it failed."""
    try:
        with tempfile.TemporaryDirectory(prefix=f"fault-{number}-") as directory:
            return ROWS[number].run(Ground(Path(directory), full=True))
    except CannotInjectError as reason:
        return reason
    except Exception:  # noqa: BLE001  # one row that fails does not hide the others
        return traceback.format_exc()
