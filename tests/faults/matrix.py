"""The fault matrix as data: what a row is, and what it has to report.

Takes nothing, gives `Row`, `Result` and the register of all rows. Never runs anything itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Length = Literal["seconds", "minutes"]


class CannotInjectError(Exception):
    """This machine does not let the fault be injected; the message says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of every sample of a row.

    A sample is one scan of one device, named by its device and its stamp. `dropped_counted` are those
    that the recorder dropped and counted, `allowed` those that the promise lets go (at most a commit
    interval before a kill -9). `duplicated` are stored points that nobody sent at that time, with the
    values of one that was; `wrong` are stored points with any other value. `peak_rss_mb` is the
    recorder's VmHWM. `figure` is the row's own figure.
    """

    sent: int
    accepted: int
    duplicated: int
    wrong: int
    peak_rss_mb: float
    figure: str
    dead_lettered: int = 0
    dropped_counted: int = 0
    allowed: int = 0

    @property
    def lost_uncounted(self) -> int:
        """Samples of which nobody can say where they are."""
        return self.sent - self.accepted - self.dead_lettered - self.dropped_counted - self.allowed

    @property
    def violations(self) -> list[str]:
        """What must be 0 and is not."""
        must_be_none = {
            "lost uncounted": self.lost_uncounted,
            "duplicated": self.duplicated,
            "wrong": self.wrong,
        }
        return [f"{name}: {count}" for name, count in must_be_none.items() if count]


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a row runs: a directory of its own; `full` where minutes do not matter."""

    directory: Path
    full: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One fault. `run` injects it, checks the row's own expectation, and reports."""

    number: int
    fault: str
    expected: str
    length: Length
    run: Callable[[Ground], Result]


ROWS: dict[int, Row] = {}

# Rows of the matrix that have nothing to inject into, or nothing to inject with.
NOT_HERE: dict[int, tuple[str, str]] = {
    32: ("MQTT or Signal K receiver stopped", "the recorder has no MQTT and no Signal K output yet"),
}


def row(
    number: int, fault: str, expected: str, length: Length = "seconds"
) -> Callable[[Callable[[Ground], Result]], Callable[[Ground], Result]]:
    """Register a function as a row of the matrix."""

    def register(run: Callable[[Ground], Result]) -> Callable[[Ground], Result]:
        assert number not in ROWS
        ROWS[number] = Row(number, fault, expected, length, run)
        return run

    return register
