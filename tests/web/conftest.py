"""A recorder that tests share which only ask."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import Service


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a recorder without InfluxDB and without samples."""
    directory: Path = tmp_path_factory.mktemp("shared")
    with Service(directory, "") as service:
        yield service
