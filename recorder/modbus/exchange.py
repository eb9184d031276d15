"""Exchanges on a tapped bus: each request joined to its answer.

Takes the bytes that a Modbus master wrote and read, as a tap sees them: in pieces, with stale
bytes, with parts missing. Gives an `Exchange` for every read of registers (functions 3 and 4)
whose answer has the right unit, function, byte count and CRC. Never does I/O.

An RTU answer does not name its address, so after a request without an answer the next one may be
the late answer to the earlier request. Where both would look alike, exchanges are held until one
that fits a single request proves the bus in step, and are given up when the bus proves to be out of
step. A bus that polls one address, as the PCS's does, is never in that doubt.
"""

from collections import Counter
from functools import lru_cache
from typing import Final, NamedTuple

from recorder.modbus.frames import (
    EXCEPTION_ANSWER_BYTES,
    EXCEPTION_FLAG,
    MAX_FRAME_BYTES,
    READ_HOLDING_REGISTERS,
    READ_INPUT_REGISTERS,
    answer_length,
    has_valid_crc,
    request_length,
)

MAX_BUSES: Final = 64
MAX_IN_DOUBT: Final = 16
_MAX_PENDING_BYTES: Final = 2 * MAX_FRAME_BYTES
_DECODED_FUNCTIONS: Final = frozenset({READ_HOLDING_REGISTERS, READ_INPUT_REGISTERS})


class Exchange(NamedTuple):
    """A request to read registers, and the registers that answered it.

    `register_bytes` holds two bytes a register, high byte first. `captured_at_ns` is the Unix time
    in ns at which the last byte of the answer was read, or None where the stream has no stamps.
    """

    unit: int
    function: int
    address: int
    register_bytes: bytes
    captured_at_ns: int | None


class BusState(NamedTuple):
    """What a bus has taken and not finished: bytes, requests as their frames, and exchanges in doubt."""

    written: bytes
    read: bytes
    pending: bytes | None
    doubted: tuple[bytes, ...]
    held: tuple[Exchange, ...]


BusesState = tuple[tuple[tuple[int, int], BusState], ...]
"""The state of each bus by process and descriptor, the one that was silent for longest first."""


class _Request:
    """A request that waits for its answer; it never changes, as buses share it."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.unit = frame[0]
        self.function = frame[1]
        self.decoded = self.function in _DECODED_FUNCTIONS
        self.address = int.from_bytes(frame[2:4])
        self.answer_length = answer_length(frame)
        if self.decoded and self.answer_length is not None:
            self.answer_start = bytes((self.unit, self.function, (self.answer_length - 5) & 0xFF))
        else:
            self.answer_start = frame[:2]
        self.most_bytes_at_once = min(self.answer_length or 0, _MAX_PENDING_BYTES)
        self.refusal_start = bytes((self.unit, self.function | EXCEPTION_FLAG))

    def looks_like(self, other: "_Request") -> bool:
        """Tell whether an answer to this request could be taken for one to `other`."""
        return self.answer_start == other.answer_start and self.address != other.address


class Bus:
    """One master's bus: one descriptor of one process.

    Args:
        counts: where frames, and all that is dropped, are counted by the names in `recorder.counts`.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._written = b""
        self._read = b""
        self._pending: _Request | None = None
        self._doubted: list[_Request] = []
        self._held: list[Exchange] = []

    @property
    def state(self) -> BusState:
        """Where the bus stands: what it will give depends on this and on what comes."""
        pending = self._pending.frame if self._pending else None
        doubted = tuple(request.frame for request in self._doubted)
        return BusState(self._written, self._read, pending, doubted, tuple(self._held))

    def resume(self, state: BusState) -> None:
        """Go on from where another bus stood."""
        self._written, self._read, pending, doubted, held = state
        self._pending = _Request(pending) if pending else None
        self._doubted = [_Request(frame) for frame in doubted]
        self._held = list(held)

    def wrote(self, data: bytes, *, complete: bool) -> None:
        """Take bytes that the master wrote; `complete` is False where the tap cut them."""
        # Whatever a master writes, it no longer waits for the answer to its last request.
        if self._pending is not None or self._read:
            self._give_up_pending()
        if complete and not self._written and len(data) <= MAX_FRAME_BYTES:
            request = _sole_request(data)
            if request is not None:
                self._counts["requests"] += 1
                self._pending = request
                return
        self._written += data
        while self._written:
            start, length = _find_request(self._written)
            if length == 0:
                break
            self._count_stray(start)
            self._request(_Request(self._written[start : start + length]))
            self._written = self._written[start + length :]
        surplus = len(self._written) - _MAX_PENDING_BYTES
        if surplus > 0 or not complete:
            drop = surplus if complete else len(self._written)
            self._counts["stray_bytes"] += drop
            self._written = self._written[drop:]

    def read_at_once(self, data: bytes, captured_at_ns: int | None) -> list[Exchange] | None:
        """Take bytes that were read by several calls, the last of them at `captured_at_ns`, as `read` does.

        Returns:
            The exchanges, or None, and nothing is taken, where something might be found before the
            last byte: where it is more than the answer that the master waits for, or holds what begins
            like a refusal.
        """
        pending = self._pending
        if pending is None:
            return None
        received = self._read + data
        missing = pending.most_bytes_at_once - len(received)
        if missing < 0 or pending.refusal_start in received:
            return None
        self._read = received
        return [] if missing else self._match(pending, captured_at_ns)

    def read(self, data: bytes, *, complete: bool, captured_at_ns: int | None) -> list[Exchange]:
        """Take bytes that the master read, and give the exchanges that are now certain."""
        if self._pending is None:
            return self._read_unasked(data)
        self._read += data
        if not complete:
            # What follows a cut cannot be joined to what stands before it.
            self._counts["stray_bytes"] += len(self._read)
            self._read = b""
            return []
        exchanges = self._match(self._pending, captured_at_ns)
        if len(self._read) > _MAX_PENDING_BYTES:
            self._bound_read()
        return exchanges

    def finish(self) -> None:
        """Give up what is open and count it: the stream ends, or a part of it could not be read."""
        self._give_up_pending()
        self._give_up_held()
        self._count_stray(len(self._written))
        self._written = b""

    def _request(self, request: _Request) -> None:
        self._counts["requests"] += 1
        self._give_up_pending()
        self._pending = request

    def _give_up_pending(self) -> None:
        pending, self._pending = self._pending, None
        received, self._read = self._read, b""
        if pending is None:
            self._count_stray(len(received))
            return
        # One lost answer is doubt enough: after a second one nothing tells whose the held ones are.
        self._give_up_held()
        if not received:
            self._counts["unanswered"] += 1
        elif _full_length_start(received, pending) is not None:
            self._counts["crc_errors"] += 1
        else:
            self._counts["incomplete_answers"] += 1
        self._counts["stray_bytes"] += len(received)
        self._doubt(pending)

    def _read_unasked(self, data: bytes) -> list[Exchange]:
        """Drop bytes that no request asked for, unless they prove that the last answer was a late one."""
        self._read += data
        if self._held and has_valid_crc(self._read):
            self._give_up_held()
        self._bound_read()
        return []

    def _bound_read(self) -> None:
        surplus = len(self._read) - _MAX_PENDING_BYTES
        if surplus > 0:
            self._counts["stray_bytes"] += surplus
            self._read = self._read[surplus:]

    def _match(self, pending: _Request, captured_at_ns: int | None) -> list[Exchange]:
        received = self._read
        start = received.find(pending.answer_start)
        while start >= 0:
            length = pending.answer_length or len(received) - start
            if start + length > len(received):
                break
            frame = received[start : start + length]
            if has_valid_crc(frame):
                return self._answered(pending, frame, start, captured_at_ns)
            start = received.find(pending.answer_start, start + 1)
        start = received.find(pending.refusal_start)
        while start >= 0:
            if has_valid_crc(received[start : start + EXCEPTION_ANSWER_BYTES]):
                self._counts["exceptions"] += 1
                self._close(start, EXCEPTION_ANSWER_BYTES)
                return []
            start = received.find(pending.refusal_start, start + 1)
        return []

    def _answered(
        self, pending: _Request, frame: bytes, start: int, captured_at_ns: int | None
    ) -> list[Exchange]:
        self._close(start, len(frame))
        if not pending.decoded:
            self._counts["other_functions"] += 1
            return []
        self._counts["frames"] += 1
        exchange = Exchange(pending.unit, pending.function, pending.address, frame[3:-2], captured_at_ns)
        if not self._doubted:
            return [exchange]
        self._held.append(exchange)
        if any(pending.looks_like(doubted) for doubted in self._doubted):
            self._doubt(pending)
            return []
        held, self._held = self._held, []
        self._doubted.clear()
        return held

    def _close(self, start: int, length: int) -> None:
        self._pending = None
        if start:
            self._count_stray(start)
        self._read = self._read[start + length :]

    def _doubt(self, request: _Request) -> None:
        """Remember a request whose answer may still come, or whose answer was perhaps another's."""
        if not request.decoded:
            return
        self._doubted.append(request)
        if len(self._doubted) > MAX_IN_DOUBT:
            # No answer is that late: by now the bus is in step, or the CRCs would tell.
            self._give_up_held()
            self._doubted.clear()

    def _give_up_held(self) -> None:
        self._counts["ambiguous_answers"] += len(self._held)
        self._held.clear()

    def _count_stray(self, count: int) -> None:
        if count:
            self._counts["resyncs"] += 1
            self._counts["stray_bytes"] += count


class Buses:
    """The buses of one stream, each process and descriptor one of its own.

    A stream that names more than `MAX_BUSES` loses the one that has been silent for longest.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._buses: dict[tuple[int, int], Bus] = {}

    @property
    def state(self) -> BusesState:
        """Where the buses stand."""
        return tuple((key, bus.state) for key, bus in self._buses.items())

    def resume(self, state: BusesState) -> None:
        """Go on from where other buses stood."""
        self._buses = {key: Bus(self._counts) for key, _ in state}
        for key, of_bus in state:
            self._buses[key].resume(of_bus)

    def bus(self, key: tuple[int, int]) -> Bus:
        """Give the bus of a process and its descriptor, a new one where there is none."""
        bus = self._buses.pop(key, None)
        if bus is None:
            bus = Bus(self._counts)
            if len(self._buses) >= MAX_BUSES:
                self._buses.pop(next(iter(self._buses))).finish()
                self._counts["dropped_buses"] += 1
        self._buses[key] = bus
        return bus

    def lose(self) -> None:
        """Learn that a transfer was lost: no bus may take an answer for one that was asked before."""
        for bus in self._buses.values():
            bus.finish()

    def finish(self) -> None:
        """Count what the end of the stream leaves open on every bus, and forget them."""
        self.lose()
        self._buses.clear()


@lru_cache(maxsize=1024)
def _sole_request(written: bytes) -> _Request | None:
    """Give the request that `written` is, or None where it is not just one."""
    start, length = _find_request(written)
    return _Request(written) if start == 0 and length == len(written) > 0 else None


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


def _full_length_start(received: bytes, request: _Request) -> int | None:
    """Give where an answer of full length to `request` would start in `received`, whatever its CRC."""
    start = received.find(request.answer_start)
    length = request.answer_length or EXCEPTION_ANSWER_BYTES
    return start if start >= 0 and len(received) - start >= length else None
