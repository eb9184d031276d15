"""The simulated year, made once for all workers of a run."""

import os
from collections.abc import Iterator

import pytest

from tests.grafana.year import Year, shared_year


@pytest.fixture(scope="session")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Year]:
    """A database with a year of one site and a month of another."""
    base = tmp_path_factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with shared_year(common / "year", tmp_path_factory.mktemp("year") / "influxd") as filled:
        yield filled
