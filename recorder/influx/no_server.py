"""InfluxDB where none is configured: points wait in the queue, and their history in the store.

Takes points as `InfluxSink` does, gives the same figures. Never sends anything; what the queue's bounds
let go is meant to go, and is no problem.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.spool.queue import Depth, PointQueue
from recorder.store.store import Store


class NoServer:
    """Keeps points for an InfluxDB that is named later.

    Args:
        queue: where points wait.
        store: what keeps the history of those that the queue lets go.
    """

    configured: Final = False
    state: Final = "none"
    problem: Final = ""
    side_problems: Final[tuple[str, ...]] = ()
    set_up_problems: Final[tuple[str, ...]] = ()
    notes: Final[tuple[str, ...]] = ()
    late_range: Final[Mapping[str, object]] = {}

    def __init__(self, queue: PointQueue, store: Store) -> None:
        self._queue = queue
        self._store = store

    def start(self) -> None:
        """Let the store remember what the InfluxDB that comes later has not got."""
        self._store.record_alone()

    async def stop(self, deadline_seconds: float) -> None:
        """Nothing is to be ended; what waits stays in the queue."""

    def clock_was_set(self) -> None:
        """Nothing is planned by the clock."""

    def append(self, points: Sequence[Point]) -> None:
        """Put points into the queue."""
        self._queue.append([to_line(point) for point in points])

    def figures(self) -> dict[str, float]:
        """How full the queue is."""
        return figures_of(self._queue.depth())


def figures_of(depth: Depth, **done: float) -> dict[str, float]:
    """How full a queue is, and what was `done` with its points since the start."""
    return {
        "queue_points": depth.points,
        "queue_bytes": depth.nbytes,
        "queue_age": depth.oldest_age_seconds,
        "dropped": depth.dropped,
        "damaged": depth.damaged,
        "rejected": depth.rejected,
        **dict.fromkeys(("written", "retries", "dead_letters", "late_seconds", "backfills"), 0),
        **done,
    }
