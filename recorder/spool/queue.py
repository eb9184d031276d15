"""What any queue between decoding and InfluxDB promises.

Takes lines of line protocol, gives them back in batches, oldest first, and keeps each line until it
is known to be in the database or to be refused by it. Never loses a line without counting it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines that were taken together; every one of them ends accepted, rejected or kept.

    `sequence` names the batch to the queue that it came from. `nbytes` is the size of the lines
    joined by newlines, with one at the end.
    """

    sequence: int
    lines: tuple[bytes, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Points that left a queue without being written: how many, why, and when they had been appended.

    Both times are Unix seconds; `reason` is a few words for the user.
    """

    first_at: float
    last_at: float
    points: int
    reason: str


@dataclass(frozen=True, slots=True)
class Depth:
    """How full a queue is, taken batches included, and what has left it without being written.

    `oldest_age_seconds` is 0 when the queue is empty. `dropped` counts lines that went because the
    queue was full or they were too old, `rejected` those that the database refused, `damaged` those
    that could not be read back; all since the queue was opened. `gaps` tells the latest times of what
    was dropped or damaged. Of lines on a disk, `nbytes` is an estimate.
    """

    points: int
    nbytes: int
    oldest_age_seconds: float
    dropped: int
    rejected: int
    damaged: int = 0
    gaps: tuple[Gap, ...] = ()


class PointQueue(Protocol):
    """A bounded queue of lines, first in first out unless the class says otherwise.

    The order of calls is `append` at any time, and for each batch `take`, then exactly one of
    `accept`, `reject` and `keep`. Several batches may be out at once. At its bound the queue drops
    the oldest lines that are not out in a batch, in the groups in which they were appended, and
    counts them. `take` may read a disk and wait for it; nothing else does.
    """

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines at the end, as one group; a group without lines changes nothing."""

    def take(self, max_points: int, max_bytes: int) -> Batch | None:
        """The next lines that are not out, within both limits but at least one line; None when empty.

        Raises:
            OSError: What waits on the disk cannot be read now.
        """

    def accept(self, batch: Batch) -> None:
        """Every line of the batch is in the database: forget them.

        Raises:
            KeyError: The batch is not out.
        """

    def reject(self, batch: Batch, reasons: Mapping[int, str]) -> None:
        """The lines at these indices were refused for these reasons, the others are in the database.

        Raises:
            KeyError: The batch is not out.
        """

    def keep(self, batch: Batch) -> None:
        """Nothing is known about the batch: its lines are the next ones to be taken.

        Raises:
            KeyError: The batch is not out.
        """

    def depth(self) -> Depth:
        """How full the queue is now."""
