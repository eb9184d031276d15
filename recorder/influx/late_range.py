"""The time whose averages the continuous queries may have missed, remembered until it is computed again.

Takes stamps of points that were written late and of pauses in the samples, gives spans to compute again.
Keeps them in one small file, so that a restart does not forget. Never talks to a database; any thread
may call it.

    widen ─► pending ─ begin ─► repairing ─ done ─► forgotten
                                  └ progress: what is done so far
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock

import structlog

_log = structlog.get_logger(__name__)

FILE_NAME = "late-range.json"
_MINUTE_NS = 60 * 10**9


@dataclass(frozen=True, slots=True)
class Span:
    """A time from `first_ns` to `last_ns`, Unix ns."""

    first_ns: int
    last_ns: int

    def __post_init__(self) -> None:
        """Refuse what is no span.

        Raises:
            ValueError: an end is no integer of 64 bits, or the last is before the first.
        """
        if not all(type(at) is int and abs(at) < 1 << 63 for at in (self.first_ns, self.last_ns)):
            raise ValueError("a span has two integers")
        if self.last_ns < self.first_ns:
            raise ValueError("a span ends before it begins")

    def holding(self, first_ns: int, last_ns: int) -> "Span":
        """Give the span widened to hold another one."""
        return Span(min(self.first_ns, first_ns), max(self.last_ns, last_ns))

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.last_ns - self.first_ns) / 1e9


@dataclass(frozen=True, slots=True)
class LateState:
    """What is to be computed again: `pending` later, `repairing` now, `done` of its `steps` so far."""

    pending: Span | None = None
    repairing: Span | None = None
    done: int = 0
    steps: int = 0


class LateRange:
    """One file that remembers which time is to be computed again.

    A damaged file is said and forgotten. A disk that does not take the file is said in `problem`; the range
    is then kept in memory only.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = Lock()
        # Apart from the other one, so that nobody who notes a stamp waits for a disk.
        self._file_lock = Lock()
        self._state = self._load()
        self._saved = self._state
        self.problem = ""

    @property
    def state(self) -> LateState:
        """What is to be computed again, and how far that is."""
        return self._state

    @property
    def late_seconds(self) -> float:
        """How long the time is whose averages may still be wrong."""
        spans = (self._state.pending, self._state.repairing)
        return sum(span.seconds for span in spans if span)

    def widen(self, stamps_ns: Iterable[int]) -> None:
        """Let the pending span hold these stamps, in whole minutes; nothing is written to the disk yet."""
        stamps = sorted(stamps_ns)
        if not stamps:
            return
        first_ns, last_ns = stamps[0] // _MINUTE_NS * _MINUTE_NS, -(-stamps[-1] // _MINUTE_NS) * _MINUTE_NS
        with self._lock:
            pending = self._state.pending or Span(first_ns, last_ns)
            self._state = replace(self._state, pending=pending.holding(first_ns, last_ns))

    def begin(self, pending: Span, repairing: Span) -> LateState:
        """Let `repairing` be what is computed again now, and `pending` be no longer pending.

        Where `pending` was widened meanwhile nothing changes.
        """
        with self._lock:
            if self._state == LateState(pending):
                self._state = LateState(repairing=repairing)
            return self._state

    def forget(self) -> None:
        """Forget everything, on the disk too."""
        with self._lock:
            self._state = LateState()
        self.save()

    def progress(self, done: int, steps: int) -> None:
        """Remember on the disk how much of the repair is done."""
        with self._lock:
            self._state = replace(self._state, done=done, steps=steps)
        self.save()

    def finish(self) -> None:
        """Forget the span that was repaired, on the disk too."""
        with self._lock:
            self._state = LateState(self._state.pending)
        self.save()

    def save(self) -> None:
        """Bring the file up to date, durably; blocks only when something changed."""
        with self._file_lock:
            state = self._state
            if state == self._saved:
                return
            try:
                self._write(state)
            except OSError as error:
                self.problem = (
                    f"the range of late points is not stored in {self._file}: {error.strerror or error}; "
                    "make room there, and let the recorder write there"
                )
                _log.warning("the range of late points is kept in memory only", reason=str(error))
            else:
                self._saved, self.problem = state, ""

    def _write(self, state: LateState) -> None:
        if state == LateState():
            self._file.unlink(missing_ok=True)
            return
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self._file.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # a path has no file mode
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(descriptor)
        beside.replace(self._file)

    def _load(self) -> LateState:
        try:
            stored = json.loads(self._file.read_bytes())
            pending, repairing = (
                Span(**stored[name]) if stored[name] else None for name in ("pending", "repairing")
            )
            return LateState(pending, repairing, int(stored["done"]), int(stored["steps"]))
        except FileNotFoundError:
            return LateState()
        except (OSError, ValueError, LookupError, TypeError, RecursionError, OverflowError) as error:
            _log.warning(
                "the range of late points can not be read; run `ess-recorder queries backfill` over the last "
                "outage",
                file=str(self._file),
                reason=str(error),
            )
            return LateState()
