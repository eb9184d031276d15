from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controller.rig import Controller


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    """A controller whose script is ended, and whose processes are gone, after the test."""
    made = Controller(tmp_path)
    yield made
    made.close()
