"""A disk that fails in the middle of what the store writes: nothing is lost, counted twice, or another's."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path

import pytest

from recorder.store.buckets import DAY
from recorder.store.history import Question, history
from recorder.store.store import Store, StoreLimits
from tests.store.test_store import METER, NOW, point

HOUR = 3600
PAGE_BYTES = 4096
LIMITS = StoreLimits({"1m": HOUR, "15m": inf, "1h": inf, "1d": inf}, 1 << 30)


class Clock:
    """A clock that is set."""

    now_s = NOW + 60.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def files_end_at(nbytes: int) -> Iterator[None]:
    """Let the kernel refuse every write beyond a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def opened(directory: Path, clock: Clock) -> Store:
    store = Store(directory, LIMITS, "UTC", (METER,), clock)
    store.start()
    assert store.problem == ""
    return store


def means(store: Store, field: str) -> list[float]:
    answer = history(store, Question("home", NOW, NOW + 86400, DAY, [("pcs", field), ("solar", field)]))
    return [value for column in answer["series"].values() for value in column["mean"] if value is not None]


@pytest.mark.parametrize("pages", range(0, 24, 2))
def test_disk_that_is_full_at_any_page_counts_nothing_twice(tmp_path: Path, pages: int) -> None:
    """Wherever in a minute's writing the disk is full, each kWh and each series is there once afterwards."""
    clock = Clock()
    store = opened(tmp_path, clock)
    minutes = [point(NOW + 60 * n, "energy_10s", "meter", grid_import=0.01) for n in range(200)]
    clock.now_s += 100 * 60
    store.observe(minutes[:100])
    assert store.flush()
    # Two hours later old minutes are to be forgotten, in a second transaction, and a series is new.
    clock.now_s += 2 * HOUR
    store.observe(minutes[100:])
    store.observe([point(NOW + 60 * n, "solar", "roof", power=5.0) for n in range(9)])
    log_bytes = (tmp_path / "history.db-wal").stat().st_size
    with files_end_at(log_bytes + pages * PAGE_BYTES):
        store.flush()
    store.observe([point(NOW + 9 * 60, "pcs", "pcs", power=7.0)])
    assert store.flush()
    store.close()
    again = opened(tmp_path, clock)
    answer = history(again, Question("home", NOW, NOW + 86400, DAY))
    assert answer["totals"]["energy"]["grid_import"] == pytest.approx(2.0)
    assert means(again, "power") == [7.0, 5.0]
    again.close()
