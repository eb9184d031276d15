"""Every row of the matrix that takes seconds: nothing lost uncounted, nothing twice, nothing wrong."""

from pathlib import Path

import pytest

from tests.faults.matrix import CannotInjectError, Ground, Row
from tests.faults.rows import ROWS

SHORT = [
    pytest.param(row, id=f"{row.number}-{row.run.__name__}")
    for row in ROWS.values()
    if row.length == "seconds"
]


@pytest.mark.parametrize("row", SHORT)
def test_row_of_the_matrix(row: Row, tmp_path: Path) -> None:
    """The row's own expectation holds, and every sample that was sent is accounted for, once, unchanged."""
    try:
        result = row.run(Ground(tmp_path, full=False))
    except CannotInjectError as reason:
        pytest.skip(str(reason))
    assert result.sent > 0
    assert result.violations == [], result
