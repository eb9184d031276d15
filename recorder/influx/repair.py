"""Averages without holes: the continuous queries run again over what they missed.

Takes the stamps of appended and of written points, gives a backfill of exactly the time that was written
late or follows a pause, once the queue has drained. Never runs while points still wait, and does not wait
for a person: after a failure or a restart it goes on where it was.

The installed queries look back a minute for averages and ten for minutes, and see no sample from before
a pause. So a point counts as late long before that, and the first one after a pause always.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Event
from typing import Final

import structlog

from recorder.influx.errors import InfluxError
from recorder.influx.late_range import LateRange, LateState, Span
from recorder.influx.setup import SetUp
from recorder.influx.stamps import stamp_ns
from recorder.points.health import MEASUREMENT as HEALTH_MEASUREMENT
from recorder.points.point import Point

_log = structlog.get_logger(__name__)

LATE_AFTER_SECONDS: Final = 30.0
"""Points are late that are written with a stamp older than this; the queries look back 60 s and more."""

_SECOND_NS: Final = 10**9
# What was computed live near a late point may have missed it: windows of ten samples, the running minute,
# the quarter of an hour in which a counter moved on.
_AROUND_NS: Final = 15 * 60 * _SECOND_NS
# Windows of ten samples that begin with the last late point are in the database by then.
_SETTLED_AFTER_NS: Final = 60 * _SECOND_NS

# What is stamped later than this from now was stamped by a clock that has been set back since.
_FUTURE_NS: Final = 3600 * _SECOND_NS


class _Stopped(Exception):  # noqa: N818  # no error: the service ends
    """The repair is to go on after the next start."""


class Repair:
    """Notes what the continuous queries may miss, and computes it again.

    Args:
        late: where the range is remembered.
        set_up: the database whose queries are run again.
        now_ns: the wall clock, Unix ns; stamps are compared with it, nothing waits by it.
    """

    def __init__(self, late: LateRange, set_up: SetUp, now_ns: Callable[[], int]) -> None:
        self._late = late
        self._set_up = set_up
        self._now_ns = now_ns
        self._newest_ns: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
        self._stop = Event()
        self.completed = 0
        self.last_error = ""

    @property
    def state(self) -> LateState:
        """What is to be computed again, and how far that is."""
        return self._late.state

    @property
    def late_seconds(self) -> float:
        """How long the time is whose averages may still be wrong."""
        return self._late.late_seconds

    @property
    def problem(self) -> str:
        """What keeps averages from being right and what to do about it; empty while all is well."""
        if self._late.problem or not self.last_error:
            return self._late.problem
        return f"averages of an outage are not computed yet: {self.last_error}"

    def note_appended(self, points: Sequence[Point]) -> None:
        """Note each sample that follows a pause, or is the first since the start. Cheap, no I/O."""
        late = []
        future_ns = self._now_ns() + _FUTURE_NS
        for point in points:
            at_ns = point.time_ns
            # A time that has not come yet is a wrong clock's, and tells of no pause.
            if at_ns is None or at_ns > future_ns or point.measurement == HEALTH_MEASUREMENT:
                continue
            series = (point.measurement, point.tags)
            newest_ns = self._newest_ns.get(series)
            if newest_ns is None or newest_ns > future_ns:
                newest_ns = None
                late.append(at_ns)
            elif at_ns - newest_ns > LATE_AFTER_SECONDS * _SECOND_NS:
                late += [newest_ns, at_ns]
            if newest_ns is None or at_ns > newest_ns:
                self._newest_ns[series] = at_ns
        self._late.widen(late)

    def clock_was_set(self) -> None:
        """Learn that our clock was set: the next sample of each series is noted as the first one is."""
        self._newest_ns.clear()

    def note_written(self, lines: Sequence[bytes]) -> None:
        """Note the lines that were written late, on the disk before it returns."""
        late_before_ns = self._now_ns() - int(LATE_AFTER_SECONDS * _SECOND_NS)
        stamps = (stamp_ns(line) for line in lines)
        self._late.widen(at_ns for at_ns in stamps if at_ns is not None and at_ns < late_before_ns)
        self._late.save()

    def run(self) -> None:
        """Compute again what is due, step by step; what is not done stays remembered. Blocks."""
        if not self._set_up.has_continuous_queries:
            self._late.forget()
            return
        now_ns = self._now_ns()
        try:
            state = self._begin(now_ns)
            if state.repairing is None:
                return
            start, end = _instant(state.repairing.first_ns), _instant(state.repairing.last_ns)
            written = self._set_up.backfill(
                start, end, _instant(now_ns), self._progress, (state.done, state.steps)
            )
        except InfluxError as error:
            self.last_error = str(error)
            _log.debug("averages of an outage are not computed yet", reason=str(error))
        except _Stopped:
            return
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the thread unseen
            self.last_error = f"unexpected {type(error).__name__}"
            _log.error("averages of an outage are not computed", exc_info=error)
        else:
            self._late.finish()
            self.completed += 1
            self.last_error = ""
            _log.info("averages and energies computed again", start=start, end=end, points=written)

    def _begin(self, now_ns: int) -> LateState:
        """Choose what is computed again: what is under way, else what is pending and has settled."""
        state = self._late.state
        pending = state.pending
        if state.repairing or pending is None:
            return state
        if now_ns - _SETTLED_AFTER_NS < pending.last_ns <= now_ns + _FUTURE_NS:
            return state
        # A server that went down together with the recorder did not compute the end of what it had.
        before_ns = self._set_up.last_sample_before(_instant(pending.first_ns))
        first_ns = pending.first_ns if before_ns is None else min(before_ns, pending.first_ns)
        last_ns = min(now_ns, pending.last_ns + _AROUND_NS)
        span = Span(min(first_ns - _AROUND_NS, last_ns), last_ns)
        return self._late.begin(pending, span)

    def stop(self) -> None:
        """Let a run that is under way end after its present step."""
        self._stop.set()

    def _progress(self, done: int, steps: int) -> None:
        self.last_error = ""
        self._late.progress(done, steps)
        if self._stop.is_set():
            raise _Stopped


def _instant(at_ns: int) -> datetime:
    return datetime.fromtimestamp(at_ns / 1e9, UTC)
