"""The controller's clock against ours.

Takes the stamps that strace put on lines and the times at which they arrived; gives the time that a
point carries. Never reads a clock itself.

A stamp is the better time: it does not contain the network. It is kept as it is while the two
clocks agree within the tolerance, so that a stream and a replay of its copy give the same times.
Beyond that, stamps are corrected by one offset, held until it is off by more than the tolerance.
Text that comes late may only have waited in the network, so lateness of up to a minute counts as a
wrong clock only when it lasts, or when the stamps went back.

No point is later than its receipt by more than the tolerance. How far it may be off besides:

- after a clock was set to a wrong time, by as long as the first line after that was on its way, until
  a line proves it by more than the tolerance; nothing where lines of both clocks came in one chunk;
- by up to a minute, for a minute, after a clock was set by less than that while nothing was sent or text
  came late, or from a wrong time to one that is a minute or less behind;
- by as long as it was held back, text that was held back for more than a minute: that cannot be told
  from a clock that was set, so it has about the time of its receipt.

Each change of the offset of a stream is counted in `clock_steps`.
"""

from collections import Counter
from typing import Final, NamedTuple

DEFAULT_TOLERANCE_SECONDS: Final = 2.0

# A network may hold text back for this long before a larger offset is taken for a set clock.
_LONGEST_STALL_NS: Final = 60 * 10**9


class ClockState(NamedTuple):
    """What was learned of a controller's clock, all in Unix ns or ns; the last two are of the line before."""

    offset_ns: int | None
    lagging_since_ns: int | None
    least_lag_ns: int
    stamped_at_ns: int
    received_at_ns: int


class ControllerClock:
    """Turns the stamps of one stream into Unix time by the recorder's clock.

    Args:
        counts: where `clock_steps` is counted.
        tolerance_seconds: how far the clocks may differ before stamps are corrected.
    """

    def __init__(self, counts: Counter[str], tolerance_seconds: float = DEFAULT_TOLERANCE_SECONDS) -> None:
        self._counts = counts
        self._tolerance_ns = round(tolerance_seconds * 1e9)
        self._longest_stall_ns = max(_LONGEST_STALL_NS, self._tolerance_ns)
        self._offset_ns: int | None = None
        self._lagging_since_ns: int | None = None
        self._least_lag_ns = 0
        # Of the line before.
        self._stamped_at_ns = 0
        self._received_at_ns = 0

    @property
    def offset_seconds(self) -> float:
        """What is added to a stamp, in s; 0 while the clocks agree."""
        return (self._offset_ns or 0) / 1e9

    @property
    def state(self) -> ClockState:
        """Where the clock stands: what it will give depends on this and on what comes."""
        return ClockState(
            self._offset_ns,
            self._lagging_since_ns,
            self._least_lag_ns,
            self._stamped_at_ns,
            self._received_at_ns,
        )

    def resume(self, state: ClockState) -> None:
        """Go on from where another clock stood."""
        self._offset_ns, self._lagging_since_ns, self._least_lag_ns = state[:3]
        self._stamped_at_ns, self._received_at_ns = state[3:]

    def correct(self, stamped_at_ns: int, received_at_ns: int) -> int:
        """Give the time of a line, all in Unix ns: when it was stamped, and when it arrived."""
        seen_ns = received_at_ns - stamped_at_ns
        if self._offset_ns is None:
            self._offset_ns = 0 if self._may_wait(seen_ns) else seen_ns
        lag_ns = seen_ns - self._offset_ns
        if not self._may_wait(lag_ns):
            # Text cannot arrive before it was written, nor wait for ever: a clock was set, most likely right.
            self._step(0 if self._may_wait(seen_ns) else seen_ns - self._lag_at(received_at_ns))
        elif stamped_at_ns < self._stamped_at_ns - self._tolerance_ns:
            self._step(seen_ns - self._lag_at(received_at_ns))
        elif lag_ns > self._tolerance_ns:
            self._watch(lag_ns, received_at_ns)
        else:
            self._lagging_since_ns = None
        self._stamped_at_ns, self._received_at_ns = stamped_at_ns, received_at_ns
        return stamped_at_ns + self._offset_ns

    def offset_of(self, first_ns: int, last_ns: int, received_at_ns: int) -> int | None:
        """Take lines that arrived together at once, where that gives the same as `correct` one by one.

        Args:
            first_ns: the stamp of the first; all lie in order between it and `last_ns`.
            last_ns: the stamp of the last.
            received_at_ns: when they arrived.

        Returns:
            What to add to each stamp, in ns; or None, and nothing is taken, where a line may teach
            another offset than the one before it.
        """
        offset_ns = self._offset_ns
        if (
            offset_ns is None
            or first_ns < self._stamped_at_ns - self._tolerance_ns
            or not self._learns_no_offset(received_at_ns - last_ns - offset_ns, first_ns, received_at_ns)
        ):
            return None
        self._stamped_at_ns, self._received_at_ns = last_ns, received_at_ns
        return offset_ns

    def _learns_no_offset(self, least_lag_ns: int, first_ns: int, received_at_ns: int) -> bool:
        """Take lines in order at once where all are in time, or all are late as text may be."""
        most_lag_ns = received_at_ns - first_ns - (self._offset_ns or 0)
        if -self._tolerance_ns <= least_lag_ns and most_lag_ns <= self._tolerance_ns:
            self._lagging_since_ns = None
            return True
        since_ns = received_at_ns if self._lagging_since_ns is None else self._lagging_since_ns
        if (
            least_lag_ns <= self._tolerance_ns
            or most_lag_ns > self._longest_stall_ns
            or received_at_ns - since_ns > _LONGEST_STALL_NS
        ):
            return False
        if self._lagging_since_ns is None:
            self._least_lag_ns = least_lag_ns
        self._lagging_since_ns = since_ns
        self._least_lag_ns = min(self._least_lag_ns, least_lag_ns)
        return True

    def _may_wait(self, lag_ns: int) -> bool:
        return -self._tolerance_ns <= lag_ns <= self._longest_stall_ns

    def _lag_at(self, received_at_ns: int) -> int:
        """How long text was on its way that arrived now: what waits is let go at once, so less and less."""
        lag_ns = self._received_at_ns - self._stamped_at_ns - (self._offset_ns or 0)
        return max(0, lag_ns - abs(received_at_ns - self._received_at_ns))

    def _watch(self, lag_ns: int, received_at_ns: int) -> None:
        """Tell a clock that was set from a network that stalls: only the first lags without a pause."""
        if self._lagging_since_ns is None:
            self._lagging_since_ns = received_at_ns
            self._least_lag_ns = lag_ns
        self._least_lag_ns = min(self._least_lag_ns, lag_ns)
        if received_at_ns - self._lagging_since_ns > _LONGEST_STALL_NS:
            self._step((self._offset_ns or 0) + self._least_lag_ns)

    def _step(self, offset_ns: int) -> None:
        self._offset_ns = offset_ns if abs(offset_ns) > self._tolerance_ns else 0
        self._lagging_since_ns = None
        self._counts["clock_steps"] += 1
