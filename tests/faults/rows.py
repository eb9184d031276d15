"""All rows of the matrix in one place: importing this registers them.

Takes the modules of rows, gives `ROWS` in the order of their numbers.
"""

from tests.faults import rows_disk, rows_doors, rows_influxdb, rows_input, rows_process
from tests.faults.matrix import ROWS as _REGISTERED

MODULES = (rows_disk, rows_doors, rows_influxdb, rows_input, rows_process)
ROWS = dict(sorted(_REGISTERED.items()))
