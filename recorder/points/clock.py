"""The controller's clock against ours.

Turns the stamps that strace put on lines into times by the recorder's clock. Reads no clock itself.

A stamp is the better time: it does not contain the network. So a stamp is kept, plus one offset that is
0 while the two clocks agree within the tolerance, and that changes in rare steps otherwise.

Text is never received before it was written, but it may be late by any time. What `received - stamped`
tells of the clock is therefore its lowest value, never a single one:

- The offset of a connection's first lines is decided only when the lowest value is confirmed by text that
  arrives live: half a second where the clock seems right, else two seconds. Until then the caller holds
  the lines back (`is_learning`). An offset that the sender had before is confirmed by one line.
- Later, the lowest value is followed down at once and up by at most 0.5 %, so that a drifting clock is
  corrected before it is off by the tolerance, and late text moves nothing.
- Stamps that go back, or that are ahead of their receipt, are a clock that was set. Since text is read in
  order, the new offset is known at once from the line before; where it is not, lines are held back again.
- Late text after a pause may be late or stamped by a clock that was set back: lines are held back until
  the lateness ends or proves to be constant.

Nothing can tell text that is late by a constant time from a wrong clock; it counts as a wrong clock. Each
change of the offset of a stream is counted in `clock_steps`.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple

DEFAULT_TOLERANCE_SECONDS: Final = 2.0

_SECOND_NS: Final = 10**9
# A network may hold text back for this long before a larger offset counts as a wrong clock.
_LONGEST_STALL_NS: Final = 60 * _SECOND_NS
# Lines of a bus that is polled follow each other within this time; strace writes them in order.
_CONTIGUOUS_NS: Final = 2 * _SECOND_NS
_OUT_OF_ORDER_NS: Final = _SECOND_NS // 2
# Text is live while its lateness stays within this.
_AGREEMENT_NS: Final = _SECOND_NS // 2
_DISAGREEMENT_NS: Final = 3 * _SECOND_NS // 2
# How long text must be live to decide: where the clock seems right, and where it seems wrong.
_SETTLE_RIGHT_NS: Final = _SECOND_NS // 2
_SETTLE_NS: Final = 2 * _SECOND_NS
# Without more text: a bus may be polled every ten seconds only.
_QUIET_NS: Final = 15 * _SECOND_NS
_LONGEST_HOLD_NS: Final = 30 * _SECOND_NS
# Within this, some text of a stream that is always late by another time was hardly late.
_PROVEN_NS: Final = 10 * _SECOND_NS
# The lowest lateness rises by at most one part in this many.
_RISE: Final = 200


@dataclass(slots=True)
class Sender:
    """What is known of a sender's clock when it connects again: its offset in ns, None at first."""

    offset_ns: int | None = None

    def clock_was_set(self, by_ns: int) -> None:
        """Learn that our own clock was set."""
        if self.offset_ns is not None:
            self.offset_ns += by_ns


class _Segment(NamedTuple):
    """Lines under one offset that is not decided yet; all in ns.

    `anchor_ns` is the offset that holds unless these lines prove another one. `floor_ns` is the least that
    the offset can be, since the first line was written after the last one of the segment before.
    """

    number: int
    anchor_ns: int | None
    floor_ns: int | None
    is_contiguous: bool
    lowest_ns: int
    first_ns: int
    last_ns: int


class _Learning(NamedTuple):
    """Segments that wait for a decision, when the first line came, and since when text has been live."""

    segments: tuple[_Segment, ...]
    since_ns: int
    live_since_ns: int
    off_since_ns: int | None


class ClockState(NamedTuple):
    """What was learned of a controller's clock; all in Unix ns or ns."""

    offset_ns: int | None
    level_ns: int
    level_at_ns: int
    stamped_at_ns: int
    received_at_ns: int
    late: tuple[int, int] | None
    segment: int
    decided: tuple[tuple[int, int], ...]
    learning: _Learning | None


class ControllerClock:
    """Turns the stamps of one stream into Unix time by the recorder's clock.

    Args:
        counts: where `clock_steps` is counted.
        tolerance_seconds: how far the clocks may differ before stamps are corrected.
        sender: what is known of the sender's clock; kept up to date for its next connection.
    """

    def __init__(
        self,
        counts: Counter[str],
        tolerance_seconds: float = DEFAULT_TOLERANCE_SECONDS,
        sender: Sender | None = None,
    ) -> None:
        self._counts = counts
        self._sender = sender or Sender()
        tolerance_ns = round(tolerance_seconds * 1e9)
        self._longest_stall_ns = max(_LONGEST_STALL_NS, tolerance_ns)
        # Below the tolerance, so that a clock that drifts is corrected in time. A clock that is corrected
        # anyway is kept closer: its steps are then smaller than the time between two samples.
        self._right_ns = tolerance_ns * 9 // 10
        self._near_ns = tolerance_ns * 2 // 5
        self._offset_ns: int | None = None
        # The lowest lateness, under the offset, and when it was last told.
        self._level_ns = 0
        self._level_at_ns = 0
        # Of the line before.
        self._stamped_at_ns = 0
        self._received_at_ns = 0
        # Since when text has been late by a constant time, and by how much at least.
        self._late: tuple[int, int] | None = None
        self._segment = 0
        self._decided: dict[int, int] = {}
        self._learning: _Learning | None = None

    @property
    def offset_ns(self) -> int:
        """What is added to a stamp, in ns; 0 while the clocks agree."""
        return self._offset_ns or 0

    @property
    def is_learning(self) -> bool:
        """Whether the offset of lines that were placed is not decided yet."""
        return self._learning is not None

    @property
    def state(self) -> ClockState:
        """Return all that the clock's next results depend on."""
        return ClockState(
            self._offset_ns,
            self._level_ns,
            self._level_at_ns,
            self._stamped_at_ns,
            self._received_at_ns,
            self._late,
            self._segment,
            tuple(self._decided.items()),
            self._learning,
        )

    def resume(self, state: ClockState) -> None:
        """Continue from the state of another clock."""
        self._offset_ns, self._level_ns, self._level_at_ns, self._stamped_at_ns = state[:4]
        self._received_at_ns, self._late, self._segment, decided, self._learning = state[4:]
        self._decided = dict(decided)

    def offset_of(self, first_ns: int, last_ns: int, received_at_ns: int) -> int | None:
        """Take the lines of a chunk at once, where that gives the same as `place` one by one.

        Args:
            first_ns: the stamp of the first; all lie in order between it and `last_ns`.
            last_ns: the stamp of the last.
            received_at_ns: when they arrived.

        Returns:
            What to add to each stamp, in ns; or None, and nothing is taken, where the clock may have
            been set, or is not known yet.
        """
        offset_ns = self._offset_ns
        if offset_ns is None or self._learning is not None or first_ns < self._stamped_at_ns:
            return None
        lag_ns = received_at_ns - last_ns - offset_ns
        limit_ns = self._near_ns if offset_ns else self._right_ns
        if not -limit_ns <= lag_ns <= limit_ns and not (
            lag_ns > 0
            and first_ns - self._stamped_at_ns <= _CONTIGUOUS_NS
            and received_at_ns - self._received_at_ns <= _CONTIGUOUS_NS
        ):
            return None
        self._stamped_at_ns, self._received_at_ns = last_ns, received_at_ns
        self._level_ns = min(lag_ns, self._level_ns + max(0, received_at_ns - self._level_at_ns) // _RISE)
        self._level_at_ns = received_at_ns
        if lag_ns > limit_ns or self._level_ns > limit_ns:
            self.end_chunk()
        else:
            self._late = None
        return offset_ns

    def place(self, stamped_at_ns: int, received_at_ns: int) -> int:
        """Take a line, all in Unix ns, and return the number of its segment; see `offset_in`."""
        if self._learning is None:
            self._begin_where_unclear(stamped_at_ns, received_at_ns)
        learning = self._learning
        if learning is not None:
            self._learn(learning, stamped_at_ns, received_at_ns)
        number = self._segment
        self._stamped_at_ns, self._received_at_ns = stamped_at_ns, received_at_ns
        return number

    def offset_in(self, segment: int) -> int:
        """Return what to add to the stamps of a segment, in ns; not while the clock is learning."""
        return self._decided.get(segment, self._offset_ns or 0)

    def end_chunk(self) -> None:
        """Learn that all lines were placed that arrived together, and decide where that is possible."""
        offset_ns, learning = self._offset_ns, self._learning
        if learning is not None:
            segment = learning.segments[-1]
            told_ns = self._offset_told(segment)
            live_ns = self._received_at_ns - learning.live_since_ns
            if told_ns is not None:
                self._settle(learning, told_ns)
            elif learning.off_since_ns is None and live_ns >= self._settle_ns(segment):
                self._settle(learning, segment.lowest_ns)
        elif offset_ns is not None:
            limit_ns = self._near_ns if offset_ns else self._right_ns
            self._watch_lateness(self._received_at_ns - self._stamped_at_ns - offset_ns, limit_ns)
            if self._level_ns > limit_ns:
                self._step(offset_ns + self._level_ns)

    def forget_segments(self) -> None:
        """Learn that nobody asks any more for the offset of a segment but the present one."""
        self._decided.clear()

    def expire(self, now_ns: int) -> None:
        """Decide on lines that have waited for too long; `now_ns` is Unix time in ns."""
        learning = self._learning
        if learning is None:
            return
        segment = learning.segments[-1]
        is_late = segment.lowest_ns - (segment.anchor_ns or 0) > self._right_ns
        quiet_ns = _QUIET_NS if is_late and segment.floor_ns is None else self._settle_ns(segment)
        if now_ns - self._received_at_ns >= quiet_ns or now_ns - learning.since_ns >= _LONGEST_HOLD_NS:
            self.decide()

    def decide(self) -> None:
        """Decide on what has been placed, because no more comes or no more can be held back."""
        learning = self._learning
        if learning is None:
            return
        segment = learning.segments[-1]
        lowest_ns, anchor_ns, floor_ns = segment.lowest_ns, segment.anchor_ns, segment.floor_ns
        is_proven = (
            self._received_at_ns - learning.live_since_ns >= _SECOND_NS
            or self._received_at_ns - learning.since_ns >= _PROVEN_NS
        )
        is_stall = lowest_ns - (anchor_ns or 0) <= self._longest_stall_ns
        if anchor_ns is not None and (segment.is_contiguous or (is_stall and not is_proven)):
            offset_ns = anchor_ns
        elif floor_ns is not None and not is_proven:
            offset_ns = lowest_ns if lowest_ns - floor_ns <= _AGREEMENT_NS else floor_ns
        elif is_proven or not is_stall or lowest_ns < -self._right_ns:
            offset_ns = lowest_ns
        else:
            offset_ns = 0
        self._settle(learning, offset_ns)

    def clock_was_set(self, by_ns: int) -> None:
        """Learn that our own clock was set: the controller's is as far from it as before, and by that."""
        self._received_at_ns += by_ns
        self._level_at_ns += by_ns
        self._late = None
        if self._learning is not None:
            self._learning = _moved(self._learning, by_ns)
        if self._offset_ns is None:
            return
        self._decided = {number: offset_ns + by_ns for number, offset_ns in self._decided.items()}
        lowest_ns = self._offset_ns + self._level_ns + by_ns
        offset_ns = self._offset_ns + by_ns if self._offset_ns else lowest_ns
        self._offset_ns = 0 if abs(lowest_ns) <= self._right_ns else offset_ns
        self._level_ns = lowest_ns - self._offset_ns
        self._sender.offset_ns = self._offset_ns
        if self._learning is None:
            self._segment += 1

    def _watch_lateness(self, lag_ns: int, limit_ns: int) -> None:
        """Take lateness for a wrong clock where it has been the same for a minute, however it began."""
        if lag_ns <= limit_ns:
            self._late = None
        elif self._late is None or abs(lag_ns - self._late[1]) > _AGREEMENT_NS:
            self._late = (self._received_at_ns, lag_ns)
        else:
            since_ns, least_ns = self._late[0], min(lag_ns, self._late[1])
            self._late = (since_ns, least_ns)
            if self._received_at_ns - since_ns > _LONGEST_STALL_NS:
                self._level_ns = least_ns

    def _begin_where_unclear(self, stamped_at_ns: int, received_at_ns: int) -> None:
        """Begin to learn where a line does not have the known offset, or may not."""
        offset_ns, seen_ns = self._offset_ns, received_at_ns - stamped_at_ns
        if offset_ns is None:
            self._begin(stamped_at_ns, received_at_ns, self._sender.offset_ns, None)
            return
        lag_ns = seen_ns - offset_ns
        limit_ns = self._near_ns if offset_ns else self._right_ns
        since_ns = stamped_at_ns - self._stamped_at_ns
        floor_ns = -since_ns + offset_ns
        if lag_ns < -limit_ns:
            self._begin(stamped_at_ns, received_at_ns, None, floor_ns)
            return
        if since_ns > _CONTIGUOUS_NS and received_at_ns == self._received_at_ns:
            # The bus was quiet, or the clock was set ahead while text waited.
            self._begin(stamped_at_ns, received_at_ns, offset_ns, None)
            return
        if lag_ns > limit_ns:
            if since_ns < -_OUT_OF_ORDER_NS:
                self._begin(stamped_at_ns, received_at_ns, None, floor_ns)
                return
            is_contiguous = since_ns <= _CONTIGUOUS_NS
            if not is_contiguous or received_at_ns - self._received_at_ns > _CONTIGUOUS_NS:
                self._begin(stamped_at_ns, received_at_ns, offset_ns, None, is_contiguous=is_contiguous)
                return
        risen_ns = max(0, received_at_ns - self._level_at_ns) // _RISE
        self._level_ns = min(lag_ns, self._level_ns + risen_ns + max(0, -since_ns))
        self._level_at_ns = received_at_ns

    def _begin(
        self,
        stamped_at_ns: int,
        received_at_ns: int,
        anchor_ns: int | None,
        floor_ns: int | None,
        *,
        is_contiguous: bool = False,
    ) -> None:
        if self._offset_ns is not None:
            # Lines of the chunk that were placed before keep what they have.
            self._decided[self._segment] = self._offset_ns
        self._segment += 1
        seen_ns = received_at_ns - stamped_at_ns
        segment = _Segment(
            self._segment, anchor_ns, floor_ns, is_contiguous, seen_ns, stamped_at_ns, stamped_at_ns
        )
        self._learning = _Learning((segment,), received_at_ns, received_at_ns, None)

    def _learn(self, learning: _Learning, stamped_at_ns: int, received_at_ns: int) -> None:
        """Take a line while the offset is not decided."""
        segment, seen_ns = learning.segments[-1], received_at_ns - stamped_at_ns
        live_since_ns, off_since_ns = learning.live_since_ns, learning.off_since_ns
        anchor_ns, earlier = segment.anchor_ns, learning.segments[:-1]
        is_set = self._is_set(segment, stamped_at_ns, seen_ns)
        if (
            is_set
            and stamped_at_ns >= segment.last_ns
            and anchor_ns is not None
            and not segment.is_contiguous
        ):
            # None of these lines has the offset that they seemed to have.
            anchor_ns, is_set = None, False
            segment = segment._replace(anchor_ns=None)
        is_after_pause = (
            anchor_ns is not None
            and stamped_at_ns > segment.last_ns + _CONTIGUOUS_NS
            and received_at_ns == self._received_at_ns
        )
        if is_set or is_after_pause:
            earlier = learning.segments
            floor_ns = None
            if is_set and anchor_ns is not None:
                floor_ns, anchor_ns = segment.last_ns + anchor_ns - stamped_at_ns, None
            self._segment += 1
            segment = _Segment(
                self._segment, anchor_ns, floor_ns, False, seen_ns, stamped_at_ns, stamped_at_ns
            )
            live_since_ns, off_since_ns = received_at_ns, None
        elif seen_ns < segment.lowest_ns - _AGREEMENT_NS:
            live_since_ns, off_since_ns = received_at_ns, None
        elif seen_ns > segment.lowest_ns + _AGREEMENT_NS:
            off_since_ns = received_at_ns if off_since_ns is None else off_since_ns
        else:
            if off_since_ns is not None and received_at_ns - off_since_ns > _DISAGREEMENT_NS:
                live_since_ns = received_at_ns
            off_since_ns = None
        segment = segment._replace(lowest_ns=min(segment.lowest_ns, seen_ns), last_ns=stamped_at_ns)
        self._learning = _Learning((*earlier, segment), learning.since_ns, live_since_ns, off_since_ns)

    def _is_set(self, segment: _Segment, stamped_at_ns: int, seen_ns: int) -> bool:
        """Return whether the controller's clock was set between the line before and this one."""
        anchor_ns = segment.anchor_ns
        known_ns = segment.lowest_ns if anchor_ns is None else anchor_ns
        limit_ns = self._near_ns if known_ns else self._right_ns
        if stamped_at_ns < segment.last_ns - _OUT_OF_ORDER_NS and seen_ns > known_ns + limit_ns:
            return True
        if anchor_ns is not None:
            return seen_ns < anchor_ns - limit_ns
        return seen_ns < segment.lowest_ns - self._longest_stall_ns

    def _offset_told(self, segment: _Segment) -> int | None:
        """Return the offset where lines tell it that need not be confirmed."""
        anchor_ns, floor_ns, lowest_ns = segment.anchor_ns, segment.floor_ns, segment.lowest_ns
        if anchor_ns is not None:
            limit_ns = self._near_ns if anchor_ns else self._right_ns
            return anchor_ns if -limit_ns <= lowest_ns - anchor_ns <= limit_ns else None
        if floor_ns is not None:
            return lowest_ns if lowest_ns - floor_ns <= _AGREEMENT_NS else None
        if self._offset_ns is None and _LONGEST_STALL_NS - self._right_ns <= lowest_ns <= self._right_ns:
            # However late the text may be, the clock is right.
            return 0
        return None

    def _settle_ns(self, segment: _Segment) -> int:
        return _SETTLE_RIGHT_NS if abs(segment.lowest_ns) <= self._right_ns else _SETTLE_NS

    def _settle(self, learning: _Learning, offset_ns: int) -> None:
        """Decide on all segments, of which the last one has this offset."""
        self._learning = None
        *earlier, last = learning.segments
        offsets_ns: list[int] = []
        for before, segment in zip([None, *earlier], earlier, strict=False):
            lowest_ns, floor_ns = segment.lowest_ns, segment.floor_ns
            if segment.anchor_ns is not None:
                lowest_ns = segment.anchor_ns
            elif before is not None:
                floor_ns = before.last_ns + offsets_ns[-1] - segment.first_ns
            is_late = floor_ns is not None and lowest_ns - floor_ns > _AGREEMENT_NS
            offsets_ns.append(floor_ns if is_late and floor_ns is not None else lowest_ns)
        offsets_ns.append(offset_ns)
        # A line was written before the first one of the segment behind it.
        for place in range(len(earlier) - 1, -1, -1):
            behind = learning.segments[place + 1]
            latest_ns = behind.first_ns + offsets_ns[place + 1] - earlier[place].last_ns
            if earlier[place].anchor_ns is None:
                offsets_ns[place] = min(offsets_ns[place], latest_ns)
        for segment, raw_ns in zip(learning.segments, offsets_ns, strict=True):
            is_right = raw_ns != segment.anchor_ns and abs(raw_ns) <= self._right_ns
            self._change(0 if is_right else raw_ns)
            self._decided[segment.number] = self._offset_ns or 0
        self._level_ns = last.lowest_ns - (self._offset_ns or 0)
        self._level_at_ns = self._received_at_ns

    def _step(self, offset_ns: int) -> None:
        """Change the offset from the next line on, to what the lowest lateness tells."""
        self._decided[self._segment] = self._offset_ns or 0
        self._segment += 1
        self._change(0 if abs(offset_ns) <= self._near_ns else offset_ns)
        self._level_ns = offset_ns - (self._offset_ns or 0)

    def _change(self, offset_ns: int) -> None:
        self._late = None
        if self._offset_ns is not None and offset_ns != self._offset_ns:
            self._counts["clock_steps"] += 1
        self._offset_ns = self._sender.offset_ns = offset_ns


def _moved(learning: _Learning, by_ns: int) -> _Learning:
    """Return what is being learned, by a clock that was set meanwhile."""
    return _Learning(
        tuple(
            segment._replace(
                anchor_ns=None if segment.anchor_ns is None else segment.anchor_ns + by_ns,
                floor_ns=None if segment.floor_ns is None else segment.floor_ns + by_ns,
                lowest_ns=segment.lowest_ns + by_ns,
            )
            for segment in learning.segments
        ),
        learning.since_ns + by_ns,
        learning.live_since_ns + by_ns,
        None if learning.off_since_ns is None else learning.off_since_ns + by_ns,
    )
