"""All rows of the matrix in one place: importing this registers them.

Takes the modules of rows, gives `ROWS` in the order of their numbers.
"""

from tests.faults import rows_influxdb
from tests.faults.matrix import ROWS as _REGISTERED

MODULES = (rows_influxdb,)
ROWS = dict(sorted(_REGISTERED.items()))
