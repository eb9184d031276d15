"""Which responses on a tapped bus certainly belong to their requests.

A response does not name its address, so a late one can look like the response to the next request. It is
not certain because it fits, but because nothing unexplained happened since the bus was last known to be in
sync. `BusSync` learns of each request, response and stray byte of one bus and decides which exchanges are
given, withheld until more is known, or dropped and counted. It never sees a byte itself.

- **In sync**: each request got exactly its response. Exchanges are given at once.
- **A response is missing**, and all else is accounted for: only exchanges that look like a request whose
  response may still come are in question. The bus is in sync again as soon as the missing responses were
  seen as stray ones.
- **Anything may be outstanding**: after bytes that no request explains, or a line that cannot be read.
  Only exchanges that no other request could be mistaken for are given.

Responses may also be lost, so that none is ever seen as a stray one. Exchanges in question are dropped until
one that is not was read with nothing before or behind it: the proof that responses are not shifted. Behind
that they are withheld until a whole cycle of requests and `SETTLED_AFTER_NS` have passed without any event,
for a response can also overtake others. At the start of a bus nothing has failed yet, and a shift would be
the same all the time: there exchanges are withheld from the first one on.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final, NamedTuple

from recorder.modbus.frames import EXCEPTION_FLAG, read_request
from recorder.modbus.messages import Exchange, Request

# How long after its master gave up waiting a response may still come, with margin.
LATE_WITHIN_NS: Final = 500_000_000
SETTLED_AFTER_NS: Final = 1_000_000_000
# The same where lines have no stamps, in cycles of all requests: back-to-back cycles take 0.2 s.
LATE_WITHIN_CYCLES: Final = 2
SETTLED_AFTER_CYCLES: Final = 3

MAX_WITHHELD: Final = 512
MAX_REQUESTS: Final = 128
# Responses to a request that were read cleanly are counted up to here: by the second one, a cycle has passed.
_CYCLED: Final = 2
_OFTEN: Final = 3
# A poll of so many registers that reads all that a profile knows has no other of its length beside it.
_LONG_POLL: Final = 32

AT_START: Final = "withheld_at_start"
AFTER_FAILURE: Final = "withheld_after_failure"
OUT_OF_SYNC: Final = "withheld_out_of_sync"
UNREADABLE: Final = "withheld_unreadable"
UNDECIDABLE: Final = "withheld_undecidable"
TOTAL: Final = "ambiguous_answers"

NarrowestOther = Callable[[int, int, int, int], float]
"""The words of the narrowest register that another poll of the device could read, by unit, function, address
and count of a request: infinite where the request reads all, 0 where nothing is known of the device."""


class Start(Enum):
    """What is known of a bus when it is first seen."""

    UNKNOWN = "nothing, and nothing has failed"
    IN_SYNC = "that it is in sync, as its owner says"
    OUT_OF_SYNC = "that it was read under another name just before"


@dataclass(slots=True)
class _Outstanding:
    """Requests of one shape of which at most `count` may still get a response."""

    count: int = 0
    frames: set[bytes] = field(default_factory=set)


class _Withheld(NamedTuple):
    """An exchange that waits; `certain` where only for its turn, `proof` where nothing stood beside it."""

    exchange: Exchange
    certain: bool
    proof: bool


@dataclass(slots=True)
class _Loss:
    """What is known since a bus was last in sync.

    `accounted` is True while `outstanding` holds every response that may still come, at most `missing` in
    all. `failed` is False at the start only. `since_ns` is the stamp of the first request behind the latest
    event and `requests` counts from it. `proven_at` is the value of `requests` at the proof.
    """

    reason: str
    accounted: bool
    failed: bool = True
    undecidable: bool = False
    outstanding: dict[bytes, _Outstanding] = field(default_factory=dict)
    missing: int = 0
    requests: int = 0
    since_ns: int | None = None
    now_ns: int | None = None
    proven_at: int | None = None
    withheld: list[_Withheld] = field(default_factory=list)


class LossState(NamedTuple):
    """A `_Loss` as a value."""

    flags: tuple[str, bool, bool, bool]
    outstanding: tuple[tuple[bytes, int, tuple[bytes, ...]], ...]
    figures: tuple[int, int, int | None, int | None, int | None]
    withheld: tuple[_Withheld, ...]


class SyncState(NamedTuple):
    """Where a `BusSync` stands: the requests that it has seen, and its loss of sync, None while in sync."""

    seen: tuple[tuple[bytes, int], ...]
    loss: LossState | None


class BusSync:
    """Decides which exchanges of one bus are certain.

    `certain_at_once(request)` tells whether a clean response is given without asking further.

    Args:
        counts: where withheld exchanges are counted.
        narrowest_other: what profiles say about other polls of a device.
        start: what is known of the bus.
    """

    def __init__(self, counts: Counter[str], narrowest_other: NarrowestOther, start: Start) -> None:
        self._counts = counts
        self._narrowest_other = narrowest_other
        # How often each request was cleanly answered, up to `_OFTEN`.
        self.seen: dict[bytes, int] = {}
        self._alike: dict[bytes, set[bytes]] = {}
        self.loss: _Loss | None = None
        if start is Start.UNKNOWN:
            self.loss = _Loss(AT_START, accounted=False, failed=False)
        elif start is Start.OUT_OF_SYNC:
            self.loss = _Loss(OUT_OF_SYNC, accounted=False)

    @property
    def undecidable(self) -> bool:
        """Whether the requests of the bus are such that no response can ever prove it in sync."""
        return self.loss is not None and self.loss.undecidable

    @property
    def state(self) -> SyncState:
        """Where the bus stands, with nothing of its history while it is in sync."""
        loss = self.loss
        return SyncState(
            tuple(sorted(self.seen.items())),
            None
            if loss is None
            else LossState(
                (loss.reason, loss.accounted, loss.failed, loss.undecidable),
                tuple(
                    (shape, group.count, tuple(sorted(group.frames)))
                    for shape, group in sorted(loss.outstanding.items())
                ),
                (loss.missing, loss.requests, loss.since_ns, loss.now_ns, loss.proven_at),
                tuple(loss.withheld),
            ),
        )

    def resume(self, state: SyncState) -> None:
        """Go on from where another one stood."""
        self.seen, self._alike = {}, {}
        for frame, answered in state.seen:
            self._note(Request(frame))
            self.seen[frame] = answered
        self.loss = None
        if state.loss is not None:
            flags, outstanding, figures, withheld = state.loss
            groups = {shape: _Outstanding(count, set(frames)) for shape, count, frames in outstanding}
            self.loss = _Loss(*flags, groups, *figures, list(withheld))

    def certain_at_once(self, request: Request) -> bool:
        """Tell whether a clean response to `request` is certain, and nothing is to be learnt from it."""
        return self.loss is None and self.seen.get(request.frame) == _OFTEN

    def requested(self, stamped_at_ns: int | None) -> None:
        """Learn that a request was written while the bus is not in sync."""
        loss = self.loss
        if loss is None:
            return
        loss.requests += 1
        loss.now_ns = stamped_at_ns
        if loss.requests == 1:
            loss.since_ns = stamped_at_ns

    def answered(
        self, request: Request, exchange: Exchange | None, *, before: bool, behind: bool
    ) -> list[Exchange]:
        """Learn of a response that fits its request, and return the exchanges that are now certain.

        Args:
            request: what the master waited for.
            exchange: the two joined, None for functions that are not decoded.
            before: whether other bytes stood before the response; `stray` has learnt of them.
            behind: whether other bytes stood behind it, in the same read.
        """
        self._note(request)
        clean = not before and not behind
        if clean and self.seen.get(request.frame, _OFTEN) < _OFTEN:
            self.seen[request.frame] += 1
        released: list[Exchange] = []
        if behind and not (self.loss is not None and self.loss.accounted):
            released += self._event(OUT_OF_SYNC, accounted=False)
        loss = self.loss
        if loss is None:
            return [] if exchange is None else [exchange]
        certain = self._is_certain(request)
        group = loss.outstanding.get(request.shape)
        if loss.accounted:
            alike = not certain and group is not None and group.frames != {request.frame}
        else:
            alike = not certain
        # The response to a request that was sent again may be that to the first time: no proof.
        repeated = group is not None and request.frame in group.frames
        proof = clean and not alike and (certain or not repeated)
        if alike:
            released += self._withhold(loss, request, exchange)
        elif exchange is not None:
            loss.withheld.append(_Withheld(exchange, True, proof))
        if proof and self._settles(loss):
            released += [withheld.exchange for withheld in loss.withheld]
            self.loss = None
        elif all(withheld.certain for withheld in loss.withheld):
            released += [withheld.exchange for withheld in loss.withheld]
            loss.withheld.clear()
        return released

    def refused(self, request: Request, *, behind: bool) -> list[Exchange]:
        """Learn of an exception response that fits its request."""
        self._note(request)
        loss = self.loss
        if behind and not (loss is not None and loss.accounted):
            return self._event(OUT_OF_SYNC, accounted=False)
        if loss is not None and loss.accounted and (loss.proven_at is None or not self._late_ones_came(loss)):
            # It may be the late one of an earlier request: then this one's response is still to come.
            if any(shape[:2] == request.shape[:2] for shape in loss.outstanding):
                group = loss.outstanding.setdefault(request.shape, _Outstanding())
                group.count += 1
                group.frames.add(request.frame)
        return []

    def gave_up(self, request: Request, strays: list[bytes]) -> list[Exchange]:
        """Learn that the master no longer waits for the response to `request`.

        Args:
            request: what has no response.
            strays: the shapes of whole responses that were read in its place.
        """
        self._note(request)
        released = self._event(AFTER_FAILURE, accounted=True)
        for shape in strays:
            released += self._explain(shape)
        if self.loss is None:
            self._event(AFTER_FAILURE, accounted=True)
        loss = self.loss
        if loss is not None and loss.accounted:
            loss.missing += 1
            group = loss.outstanding.setdefault(request.shape, _Outstanding())
            group.count += 1
            group.frames.add(request.frame)
        return released

    def stray(self, strays: list[bytes]) -> list[Exchange]:
        """Learn of bytes that the pending request, if any, does not explain.

        Args:
            strays: the shapes of the whole responses among them.
        """
        loss = self.loss
        if not self.seen if loss is None else not loss.failed and loss.requests == 0:
            # The capture begins in the middle of a response.
            return []
        if loss is None or not loss.accounted:
            return self._event(OUT_OF_SYNC, accounted=False)
        released = self._event(loss.reason, accounted=True)
        for shape in strays:
            released += self._explain(shape)
        return released

    def unreadable(self) -> list[Exchange]:
        """Learn that something was transferred which could not be read."""
        return self._event(UNREADABLE, accounted=False)

    def finish(self) -> list[Exchange]:
        """Return what the end of the stream leaves certain, and count the rest."""
        loss = self.loss
        if loss is None:
            return []
        last = -1
        if not loss.undecidable:
            for index, withheld in enumerate(loss.withheld):
                if withheld.proof or (not loss.failed and self._proves_at_the_end(withheld.exchange)):
                    last = index
        released = [withheld.exchange for withheld in loss.withheld[: last + 1]]
        loss.withheld = loss.withheld[last + 1 :]
        return released + self._drop_withheld(loss)

    def _note(self, request: Request) -> None:
        if request.frame not in self.seen and len(self.seen) < MAX_REQUESTS:
            self.seen[request.frame] = 0
            self._alike.setdefault(request.shape, set()).add(request.frame)

    def _is_certain(self, request: Request) -> bool:
        """Tell whether no other request of this bus could get a response like one to `request`."""
        if len(self.seen) >= MAX_REQUESTS or len(self._alike[request.shape]) > 1:
            return False
        if self.seen[request.frame] >= _CYCLED:
            return True
        return request.count >= _LONG_POLL and request.decoded and self._narrowest(request) == inf

    def _narrowest(self, request: Request) -> float:
        return self._narrowest_other(request.unit, request.function, request.address, request.count)

    def _proves_at_the_end(self, exchange: Exchange) -> bool:
        """Tell whether an exchange since the start proves sync though its cycle is not complete."""
        count = len(exchange.register_bytes) // 2
        request = Request(read_request(exchange.unit, exchange.function, exchange.address, count))
        alone = len(self.seen) < MAX_REQUESTS and len(self._alike[request.shape]) == 1
        return alone and (self._is_certain(request) or self._narrowest(request) > count)

    def _cannot_prove(self, loss: _Loss) -> bool:
        """Tell whether cycles have passed without a request whose response could prove anything."""
        if _OFTEN not in self.seen.values():
            return False
        if loss.accounted:
            return len(self._alike) == 1
        return not any(
            len(frames) == 1 and self.seen[next(iter(frames))] > 0 for frames in self._alike.values()
        )

    def _withhold(self, loss: _Loss, request: Request, exchange: Exchange | None) -> list[Exchange]:
        """Keep or drop an exchange whose response may be that of another request."""
        released: list[Exchange] = []
        if self._cannot_prove(loss):
            released = self._drop_withheld(loss, UNDECIDABLE)
            # Nothing of what comes can depend on when this began.
            loss.undecidable, loss.failed = True, True
            loss.requests, loss.since_ns, loss.now_ns = 1, None, None
        else:
            loss.undecidable = False
        kept = not loss.failed or (loss.proven_at is not None and self._late_ones_came(loss))
        if kept and not loss.undecidable:
            if exchange is not None:
                loss.withheld.append(_Withheld(exchange, False, False))
            if len(loss.withheld) > MAX_WITHHELD:
                loss.failed = True
                loss.proven_at = None
                released = self._drop_withheld(loss)
            return released
        if exchange is not None:
            self._count(UNDECIDABLE if loss.undecidable else loss.reason)
        if loss.accounted:
            # If this was the late response of another request, its own is still to come.
            loss.outstanding[request.shape].frames.add(request.frame)
        return released

    def _settles(self, loss: _Loss) -> bool:
        """Learn of a proof, and tell whether enough has passed without an event."""
        if loss.proven_at is None:
            loss.proven_at = loss.requests
        cycled = not loss.failed or loss.requests - loss.proven_at >= len(self.seen)
        return cycled and self._passed(loss, SETTLED_AFTER_NS, SETTLED_AFTER_CYCLES)

    def _late_ones_came(self, loss: _Loss) -> bool:
        return self._passed(loss, LATE_WITHIN_NS, LATE_WITHIN_CYCLES)

    def _passed(self, loss: _Loss, time_ns: int, cycles: int) -> bool:
        """Tell whether the latest request came so long after the latest event."""
        if loss.since_ns is not None and loss.now_ns is not None and loss.now_ns >= loss.since_ns:
            return loss.now_ns - loss.since_ns >= time_ns
        return loss.requests > cycles * len(self.seen)

    def _event(self, reason: str, *, accounted: bool) -> list[Exchange]:
        """Begin again from an event; `accounted` is True where `outstanding` tells all that may come of it."""
        loss = self.loss
        if loss is None:
            self.loss = _Loss(reason, accounted)
            return []
        released = self._drop_withheld(loss)
        if loss.accounted and not accounted:
            loss.accounted = False
            loss.outstanding.clear()
            loss.missing = 0
        loss.reason = reason
        loss.failed = True
        loss.requests, loss.since_ns, loss.now_ns, loss.proven_at = 0, None, None, None
        return released

    def _explain(self, shape: bytes) -> list[Exchange]:
        """Strike off a missing response that was seen as a stray one."""
        loss = self.loss
        if loss is None or not loss.accounted:
            return self._event(OUT_OF_SYNC, accounted=False)
        outstanding = loss.outstanding
        if shape[1] & EXCEPTION_FLAG:
            of_function = bytes((shape[0], shape[1] & ~EXCEPTION_FLAG))
            explained = [alike for alike in outstanding if alike[:2] == of_function]
        else:
            explained = [shape] if shape in outstanding else []
        if not explained:
            return self._event(OUT_OF_SYNC, accounted=False)
        loss.missing -= 1
        if len(explained) == 1:
            group = outstanding[explained[0]]
            group.count -= 1
            if group.count == 0:
                del outstanding[explained[0]]
        if loss.missing == 0 or not outstanding:
            self.loss = None
        return []

    def _drop_withheld(self, loss: _Loss, reason: str = "") -> list[Exchange]:
        """Count what is withheld and not certain, and return what is."""
        released = [withheld.exchange for withheld in loss.withheld if withheld.certain]
        for _ in range(len(loss.withheld) - len(released)):
            self._count(reason or loss.reason)
        loss.withheld.clear()
        return released

    def _count(self, reason: str) -> None:
        self._counts[reason] += 1
        self._counts[TOTAL] += 1
