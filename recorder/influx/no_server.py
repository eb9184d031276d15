"""InfluxDB where none is configured: points stay in the queue until there is one.

Takes points as `InfluxSink` does, gives the same figures. Never sends anything; what the queue's bounds
let go is meant to go, and is no problem.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.spool.queue import Depth, PointQueue


class NoServer:
    """Keeps points for an InfluxDB that is named later.

    Args:
        queue: where points wait.
    """

    configured: Final = False
    state: Final = "none"
    problem: Final = ""
    side_problems: Final[tuple[str, ...]] = ()
    set_up_problems: Final[tuple[str, ...]] = ()
    late_range: Final[Mapping[str, object]] = {}

    def __init__(self, queue: PointQueue) -> None:
        self._queue = queue

    def start(self) -> None:
        """Nothing is to be started."""

    async def stop(self, deadline_seconds: float) -> None:
        """Nothing is to be ended; what waits stays in the queue."""

    def clock_was_set(self) -> None:
        """Nothing is planned by the clock."""

    def append(self, points: Sequence[Point]) -> None:
        """Put points into the queue.

        Raises:
            OSError: the queue could not store them.
        """
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
