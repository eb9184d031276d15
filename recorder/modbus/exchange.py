"""Exchanges on a tapped bus: each request joined to its response.

Takes the bytes that a Modbus master wrote and read, as a tap sees them: in pieces, with stale
bytes, with parts missing. Gives an `Exchange` for every read of registers (functions 3 and 4)
whose response has the right unit, function, byte count and CRC, and certainly belongs to its request,
which `sync` decides. Never does I/O.
"""

from collections import Counter
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from recorder.modbus.frames import (
    EXCEPTION_ANSWER_BYTES,
    MAX_FRAME_BYTES,
    has_valid_crc,
    request_length,
)
from recorder.modbus.messages import (
    MAX_PENDING_BYTES,
    Exchange,
    Request,
    find_responses,
    split_responses,
)
from recorder.modbus.sync import OUT_OF_SYNC, TOTAL, BusSync, NarrowestOther, Start, SyncState

__all__ = ["MAX_BUSES", "Bus", "BusState", "Buses", "BusesState", "Exchange"]

MAX_BUSES: Final = 64


class Stamped(Protocol):
    """A read or write, as far as it tells its time."""

    @property
    def stamped_at_ns(self) -> int | None:
        """Its stamp by the clock of the traced machine, Unix time in ns, or None where it has none."""

    @property
    def first_stamped_at_ns(self) -> int | None:
        """That of its first call."""


class _Stamp(NamedTuple):
    stamped_at_ns: int | None

    @property
    def first_stamped_at_ns(self) -> int | None:
        return self.stamped_at_ns


_NO_STAMP: Final = _Stamp(None)


class BusState(NamedTuple):
    """What a bus has taken and not finished: bytes, the pending request with its stamp, and its sync.

    `first_stamped_at_ns` is the stamp of the first of `read`, None where that is empty or has no stamp.
    """

    written: bytes
    read: bytes
    first_stamped_at_ns: int | None
    pending: tuple[bytes, int | None] | None
    sync: SyncState


BusesState = tuple[tuple[tuple[int, int], BusState], ...]
"""The state of each bus by process and descriptor, the one that was silent for longest first."""


def _nothing_known(_unit: int, _function: int, _address: int, _count: int) -> float:
    return 0


class Bus:
    """One master's bus: one descriptor of one process.

    Whatever it learns may make earlier exchanges certain: each method gives those that now are.

    Args:
        counts: where frames, and all that is dropped, are counted by the names in `recorder.counts`.
        narrowest_other: what profiles say about other polls of a device.
        start: what is known of the bus when it is first seen.
    """

    def __init__(
        self,
        counts: Counter[str],
        narrowest_other: NarrowestOther = _nothing_known,
        start: Start = Start.UNKNOWN,
    ) -> None:
        self._counts = counts
        self._written = b""
        self._read = b""
        self._pending: Request | None = None
        # Their stamps are looked at only where something is in question.
        self._request_stamped: Stamped = _NO_STAMP
        self._first_stamped: Stamped = _NO_STAMP
        self._sync = BusSync(counts, narrowest_other, start)

    @property
    def undecidable(self) -> bool:
        """Whether the requests of the bus are such that no response can ever prove it in sync."""
        return self._sync.undecidable

    @property
    def state(self) -> BusState:
        """Where the bus stands: what it will give depends on this and on what comes."""
        pending = (self._pending.frame, self._request_stamped.stamped_at_ns) if self._pending else None
        first_stamped_at_ns = self._first_stamped.first_stamped_at_ns if self._read else None
        return BusState(self._written, self._read, first_stamped_at_ns, pending, self._sync.state)

    def resume(self, state: BusState) -> None:
        """Go on from where another bus stood."""
        self._written, self._read, first_stamped_at_ns, pending, sync = state
        self._first_stamped = _Stamp(first_stamped_at_ns)
        self._pending = Request(pending[0]) if pending else None
        self._request_stamped = _Stamp(pending[1] if pending else None)
        self._sync.resume(sync)

    def wrote(self, data: bytes, *, complete: bool, stamped: Stamped = _NO_STAMP) -> list[Exchange]:
        """Take bytes that the master wrote.

        Args:
            data: the bytes.
            complete: False where the tap cut them.
            stamped: tells when.
        """
        # Whatever a master writes, it no longer waits for the response to its last request.
        exchanges: list[Exchange] = []
        if self._pending is not None or self._read:
            exchanges = self._give_up_pending()
        if complete and not self._written and len(data) <= MAX_FRAME_BYTES:
            request = _sole_request(data)
            if request is not None:
                self._counts["requests"] += 1
                self._pending = request
                self._request_stamped = stamped
                if not self._sync.in_sync:
                    self._sync.requested(stamped.stamped_at_ns)
                return exchanges
        return exchanges + self._wrote_pieces(data, complete, stamped)

    def read_at_once(
        self, data: bytes, captured_at_ns: int | None, stamped: Stamped = _NO_STAMP
    ) -> list[Exchange] | None:
        """Take bytes that were read by several calls, the last of them at `captured_at_ns`, as `read` does.

        Returns:
            The exchanges, or None, and nothing is taken, where something might be found before the
            last byte: where it is more than the response that the master waits for, or holds what begins
            like an exception response.
        """
        pending = self._pending
        if pending is None:
            return None
        received = self._read + data
        missing = pending.most_bytes_at_once - len(received)
        if missing < 0 or pending.exception_shape in received:
            return None
        if not self._read:
            self._first_stamped = stamped
        self._read = received
        return [] if missing else self._match(pending, captured_at_ns)

    def read(
        self, data: bytes, *, complete: bool, captured_at_ns: int | None, stamped: Stamped = _NO_STAMP
    ) -> list[Exchange]:
        """Take bytes that the master read.

        Args:
            data: the bytes.
            complete: False where the tap cut them.
            captured_at_ns: the time of an exchange that they complete.
            stamped: tells when by the clock of the traced machine, as for what it wrote.
        """
        if not self._read:
            self._first_stamped = stamped
        self._read += data
        if not complete:
            # What follows a cut cannot be joined to what stands before it.
            self._counts["stray_bytes"] += len(self._read)
            self._read = b""
            return self._sync.unreadable()
        if self._pending is None:
            return self._read_unasked()
        exchanges = self._match(self._pending, captured_at_ns)
        if len(self._read) > MAX_PENDING_BYTES:
            self._bound_read()
        return exchanges

    def lose(self) -> list[Exchange]:
        """Give up what is open and count it: a part of the stream could not be read."""
        exchanges = self._give_up_pending()
        self._count_stray(len(self._written))
        self._written = b""
        return exchanges + self._sync.unreadable()

    def finish(self) -> list[Exchange]:
        """Count what the end of the stream leaves open, and give what it leaves certain."""
        exchanges = self._sync.finish()
        self._give_up_pending()
        self._count_stray(len(self._written))
        self._written = b""
        return exchanges

    def _wrote_pieces(self, data: bytes, complete: bool, stamped: Stamped) -> list[Exchange]:
        """Take a write that is not just one request."""
        exchanges: list[Exchange] = []
        self._written += data
        while self._written:
            start, length = _find_request(self._written)
            if length == 0:
                break
            if start:
                self._count_stray(start)
                exchanges += self._sync.unreadable()
            exchanges += self._request(Request(self._written[start : start + length]), stamped)
            self._written = self._written[start + length :]
        surplus = len(self._written) - MAX_PENDING_BYTES
        if surplus > 0 or not complete:
            drop = surplus if complete else len(self._written)
            self._counts["stray_bytes"] += drop
            self._written = self._written[drop:]
            exchanges += self._sync.unreadable()
        return exchanges

    def _request(self, request: Request, stamped: Stamped) -> list[Exchange]:
        self._counts["requests"] += 1
        exchanges = self._give_up_pending()
        self._pending = request
        self._request_stamped = stamped
        self._sync.requested(stamped.stamped_at_ns)
        return exchanges

    def _give_up_pending(self) -> list[Exchange]:
        pending, self._pending = self._pending, None
        received, self._read = self._read, b""
        if pending is None:
            if not received:
                return []
            self._count_stray(len(received))
            return self._sync.stray(find_responses(received))
        if not received:
            self._counts["unanswered"] += 1
        elif _full_length_start(received, pending) is not None:
            self._counts["crc_errors"] += 1
        else:
            self._counts["incomplete_answers"] += 1
        self._counts["stray_bytes"] += len(received)
        strays = find_responses(received)
        if len(received) == pending.answer_length and received.startswith(pending.shape) and not strays:
            # It is the response, with a wrong byte.
            return self._sync.answered(pending, None, before=True, behind=False, first_stamped_at_ns=None)
        return self._sync.gave_up(pending, strays, self._request_stamped.stamped_at_ns)

    def _read_unasked(self) -> list[Exchange]:
        """Take bytes that no request asked for: whole responses at once, others as soon as no more come."""
        strays, rest = split_responses(self._read)
        exchanges: list[Exchange] = []
        if strays or self._sync.in_sync:
            exchanges = self._sync.stray(strays)
        self._count_stray(len(self._read) - len(rest))
        self._read = rest
        self._bound_read()
        return exchanges

    def _bound_read(self) -> None:
        surplus = len(self._read) - MAX_PENDING_BYTES
        if surplus > 0:
            self._counts["stray_bytes"] += surplus
            self._read = self._read[surplus:]

    def _match(self, pending: Request, captured_at_ns: int | None) -> list[Exchange]:
        received = self._read
        if (
            len(received) == pending.answer_length
            and received.startswith(pending.shape)
            and has_valid_crc(received)
        ):
            # As nearly always: the response, and nothing else.
            self._read, self._pending = b"", None
            return self._joined(pending, received, captured_at_ns, before=False)
        start = received.find(pending.shape)
        while start >= 0:
            length = pending.answer_length or len(received) - start
            if start + length > len(received):
                break
            frame = received[start : start + length]
            if has_valid_crc(frame):
                exchanges = self._close(start, length)
                return exchanges + self._joined(pending, frame, captured_at_ns, before=start > 0)
            start = received.find(pending.shape, start + 1)
        start = received.find(pending.exception_shape)
        while start >= 0:
            if has_valid_crc(received[start : start + EXCEPTION_ANSWER_BYTES]):
                self._counts["exceptions"] += 1
                exchanges = self._close(start, EXCEPTION_ANSWER_BYTES)
                return exchanges + self._sync.refused(pending, behind=bool(self._read))
            start = received.find(pending.exception_shape, start + 1)
        return []

    def _joined(
        self, pending: Request, frame: bytes, captured_at_ns: int | None, *, before: bool
    ) -> list[Exchange]:
        exchange = None
        if pending.decoded:
            self._counts["frames"] += 1
            exchange = Exchange(pending.unit, pending.function, pending.address, frame[3:-2], captured_at_ns)
            if not before and not self._read and self._sync.certain_at_once(pending):
                return [exchange]
        else:
            self._counts["other_functions"] += 1
        return self._sync.answered(
            pending,
            exchange,
            before=before,
            behind=bool(self._read),
            first_stamped_at_ns=self._first_stamped.first_stamped_at_ns,
        )

    def _close(self, start: int, length: int) -> list[Exchange]:
        """Take a response out of the bytes that were read, and give up those before it."""
        received, self._read = self._read, self._read[start + length :]
        self._pending = None
        if not start:
            return []
        self._count_stray(start)
        return self._sync.stray(find_responses(received[:start]))

    def _count_stray(self, count: int) -> None:
        if count:
            self._counts["resyncs"] += 1
            self._counts["stray_bytes"] += count


class Buses:
    """The buses of one stream, each process and descriptor one of its own.

    A stream that names more than `MAX_BUSES` loses the one that has been silent for longest.

    Args:
        counts: where frames, and all that is dropped, are counted.
        narrowest_other: what profiles say about other polls of a device.
        assume_in_sync: whether a bus counts as in sync when it is first seen.
    """

    def __init__(
        self,
        counts: Counter[str],
        narrowest_other: NarrowestOther = _nothing_known,
        *,
        assume_in_sync: bool = False,
    ) -> None:
        self._counts = counts
        self._narrowest_other = narrowest_other
        self._assume_in_sync = assume_in_sync
        self._buses: dict[tuple[int, int], Bus] = {}

    @property
    def undecidable(self) -> int:
        """How many buses can never be proven in sync."""
        return sum(bus.undecidable for bus in self._buses.values())

    @property
    def state(self) -> BusesState:
        """Where the buses stand."""
        return tuple((key, bus.state) for key, bus in self._buses.items())

    def resume(self, state: BusesState) -> None:
        """Go on from where other buses stood."""
        self._buses = {key: Bus(self._counts, self._narrowest_other) for key, _ in state}
        for key, of_bus in state:
            self._buses[key].resume(of_bus)

    def bus(self, key: tuple[int, int]) -> Bus:
        """Give the bus of a process and its descriptor, a new one where there is none."""
        bus = self._buses.pop(key, None)
        if bus is None:
            bus = Bus(self._counts, self._narrowest_other, self._start(key))
            if len(self._buses) >= MAX_BUSES:
                self._forget(next(iter(self._buses)))
                self._counts["dropped_buses"] += 1
        self._buses[key] = bus
        return bus

    def lose(self) -> list[Exchange]:
        """Learn that a transfer was lost: no bus may take a response for one that was asked before."""
        return [exchange for bus in self._buses.values() for exchange in bus.lose()]

    def finish(self) -> list[Exchange]:
        """Count what the end of the stream leaves open on each bus, give what is certain, and forget them."""
        exchanges = [exchange for bus in self._buses.values() for exchange in bus.finish()]
        self._buses.clear()
        return exchanges

    def _start(self, key: tuple[int, int]) -> Start:
        """Tell what is known of a new bus.

        strace names processes only while it traces two or more: the bus of a descriptor goes on under another
        name where that begins or ends, and what was under way there may have failed.
        """
        process, descriptor = key
        renamed = [
            other for other in self._buses if other[1] == descriptor and (other[0] == 0) != (process == 0)
        ]
        for other in renamed:
            self._forget(other)
        if self._assume_in_sync:
            return Start.IN_SYNC
        return Start.OUT_OF_SYNC if renamed else Start.UNKNOWN

    def _forget(self, key: tuple[int, int]) -> None:
        exchanges = self._buses.pop(key).finish()
        self._counts.update({reason: len(exchanges) for reason in (TOTAL, OUT_OF_SYNC) if exchanges})


@lru_cache(maxsize=1024)
def _sole_request(written: bytes) -> Request | None:
    """Give the request that `written` is, or None where it is not just one."""
    start, length = _find_request(written)
    return Request(written) if start == 0 and length == len(written) > 0 else None


def _find_request(written: bytes) -> tuple[int, int]:
    """Find the first whole request: where it starts and its length, or length 0 when there is none yet."""
    for start in range(len(written) - 3):
        length = request_length(written[start : start + 11])
        if length is None:
            # Of a function of unknown shape only a write that is one frame to its end shows the length.
            length = len(written) if start == 0 else 0
        frame = written[start : start + length]
        if 4 <= length <= MAX_FRAME_BYTES and len(frame) == length and has_valid_crc(frame):
            return start, length
    return 0, 0


def _full_length_start(received: bytes, request: Request) -> int | None:
    """Give where an answer of full length to `request` would start in `received`, whatever its CRC."""
    start = received.find(request.shape)
    length = request.answer_length or EXCEPTION_ANSWER_BYTES
    return start if start >= 0 and len(received) - start >= length else None
