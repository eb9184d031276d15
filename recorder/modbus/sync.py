"""Which responses on a tapped bus certainly belong to their requests.

A response does not name its address, so a late one can look like the response to the next request. It is
not certain because it fits, but because nothing unexplained happened since the bus was last known to be in
sync. `BusSync` learns of each request, response and stray byte of one bus and decides which exchanges are
given, withheld until more is known, or dropped and counted. It never sees a byte itself.

- **In sync**: each request got exactly its response. Exchanges are given at once.
- **Responses are missing**, and all else is accounted for: only exchanges that look like a request whose
  response may still come are in question. The bus is in sync again as soon as as many responses as are
  missing were seen where none was asked for.
- **Anything may be outstanding**: after bytes that no request explains, or a line that cannot be read.
  Every exchange is in question whose response could be that of another request of this bus.

A missing response may also be lost for good. What was written `LATE_WITHIN_NS` ago has no response to come,
and a *proof* shows that none waits to be read either: a response that is not in question, read with nothing
before or behind it. Exchanges in question are dropped until a proof comes. Behind it, responses that keep
their order cannot be shifted; for those that overtake others, exchanges are withheld until a later proof
shows that their own responses did not come once more. At the start of a bus nothing has failed yet, and a
shift would be the same all the time: there exchanges are withheld from the first one on.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final, NamedTuple

from recorder.modbus.frames import EXCEPTION_FLAG
from recorder.modbus.messages import Exchange, Request

# How long after its request a response may still come, with margin; and the same in cycles of all requests
# where lines have no stamps: back-to-back cycles take 0.2 s.
LATE_WITHIN_NS: Final = 520_000_000
LATE_WITHIN_CYCLES: Final = 2
# Without an event for so long, whatever is still possible is too improbable to be waited for.
SETTLED_AFTER_NS: Final = 1_000_000_000
SETTLED_AFTER_CYCLES: Final = 5

MAX_WITHHELD: Final = 512
MAX_REQUESTS: Final = 128
# Clean responses to a request are counted up to `_OFTEN`; by the second one, a cycle has passed.
_CYCLED: Final = 2
_OFTEN: Final = 3
_CHAIN_CYCLES: Final = 3
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


class Moment(NamedTuple):
    """When a request was written: the stamp of its line, or None, and its number since the loss of sync."""

    stamped_at_ns: int | None
    number: int


_NEVER: Final = Moment(None, 0)


@dataclass(slots=True)
class _Outstanding:
    """Requests of one shape of which at most `count` may still get a response; `latest` was written last."""

    count: int
    frames: set[bytes]
    latest: Moment


class _Withheld(NamedTuple):
    """An exchange that waits: for a proof, or where it is `certain` for those before it."""

    exchange: Exchange
    request: bytes
    shape: bytes
    at: Moment
    certain: bool


@dataclass(slots=True)
class _Loss:
    """What is known since a bus was last in sync.

    `accounted` is True while `outstanding` holds every response that may still come, at most `missing` in
    all; else there may be any that was asked for before `failed_at`. `failed` is False at the start only.
    `failed_at` is the latest request that failed, `event_at` the first behind the latest event; None is the
    next one that is written. `proven` is whether a proof has come since that event. `in_question` is those of
    `withheld` that are not certain, by shape.
    """

    reason: str
    accounted: bool
    failed: bool = True
    undecidable: bool = False
    proven: bool = False
    missing: int = 0
    now: Moment = _NEVER
    failed_at: Moment | None = None
    event_at: Moment | None = None
    outstanding: dict[bytes, _Outstanding] = field(default_factory=dict)
    withheld: list[_Withheld] = field(default_factory=list)
    in_question: dict[bytes, _Outstanding] = field(default_factory=dict)

    def withhold(self, exchange: Exchange, request: Request) -> None:
        """Keep an exchange that is in question."""
        self.withheld.append(_Withheld(exchange, request.frame, request.shape, self.now, False))
        self.put_in_question(self.withheld[-1])

    def put_in_question(self, withheld: _Withheld) -> None:
        """Remember by its shape that an exchange is in question."""
        group = self.in_question.setdefault(withheld.shape, _Outstanding(0, set(), withheld.at))
        group.count += 1
        group.frames.add(withheld.request)
        group.latest = withheld.at


class LossState(NamedTuple):
    """A loss of sync as a value."""

    known: tuple[str, bool, bool, bool, bool, int, Moment, Moment | None, Moment | None]
    outstanding: tuple[tuple[bytes, int, tuple[bytes, ...], Moment], ...]
    withheld: tuple[_Withheld, ...]


class SyncState(NamedTuple):
    """Where a `BusSync` stands: the requests that it has seen, and its loss of sync, None while in sync."""

    seen: tuple[tuple[bytes, int], ...]
    loss: LossState | None


class BusSync:
    """Decides which exchanges of one bus are certain.

    Args:
        counts: where withheld exchanges are counted.
        narrowest_other: what profiles say about other polls of a device.
        start: what is known of the bus.
    """

    def __init__(self, counts: Counter[str], narrowest_other: NarrowestOther, start: Start) -> None:
        self._counts = counts
        self._narrowest_other = narrowest_other
        # How often each request was cleanly answered, up to `_OFTEN`.
        self._seen: dict[bytes, int] = {}
        self._alike: dict[bytes, set[bytes]] = {}
        self._loss: _Loss | None = None
        if start is Start.UNKNOWN:
            self._loss = _Loss(AT_START, accounted=False, failed=False)
        elif start is Start.OUT_OF_SYNC:
            self._loss = _Loss(OUT_OF_SYNC, accounted=False)

    @property
    def in_sync(self) -> bool:
        """Whether each request got exactly its response."""
        return self._loss is None

    @property
    def undecidable(self) -> bool:
        """Whether the requests of the bus are such that no response can ever prove it in sync."""
        return self._loss is not None and self._loss.undecidable

    @property
    def state(self) -> SyncState:
        """Where the bus stands, with nothing of its history while it is in sync."""
        loss = self._loss
        if loss is None:
            return SyncState(tuple(sorted(self._seen.items())), None)
        known = (
            loss.reason,
            loss.accounted,
            loss.failed,
            loss.undecidable,
            loss.proven,
            loss.missing,
            loss.now,
        )
        outstanding = tuple(
            (shape, group.count, tuple(sorted(group.frames)), group.latest)
            for shape, group in sorted(loss.outstanding.items())
        )
        return SyncState(
            tuple(sorted(self._seen.items())),
            LossState((*known, loss.failed_at, loss.event_at), outstanding, tuple(loss.withheld)),
        )

    def resume(self, state: SyncState) -> None:
        """Go on from where another one stood."""
        self._seen, self._alike = {}, {}
        for frame, answered in state.seen:
            self._note(Request(frame))
            self._seen[frame] = answered
        self._loss = None
        if state.loss is not None:
            known, outstanding, withheld = state.loss
            groups = {
                shape: _Outstanding(count, set(frames), latest)
                for shape, count, frames, latest in outstanding
            }
            self._loss = _Loss(*known, groups, list(withheld))
            for held in withheld:
                if not held.certain:
                    self._loss.put_in_question(held)

    def certain_at_once(self, request: Request) -> bool:
        """Tell whether a clean response to `request` is certain, and nothing is to be learnt from it."""
        return self._loss is None and self._seen.get(request.frame) == _OFTEN

    def requested(self, stamped_at_ns: int | None) -> None:
        """Learn that a request was written; needed only while the bus is not in sync."""
        loss = self._loss
        if loss is None:
            return
        loss.now = Moment(stamped_at_ns, loss.now.number + 1)
        loss.event_at = loss.event_at or loss.now
        loss.failed_at = loss.failed_at or loss.now

    def answered(
        self,
        request: Request,
        exchange: Exchange | None,
        *,
        before: bool,
        behind: bool,
        read_at_ns: int | None,
    ) -> list[Exchange]:
        """Learn of a response that fits its request, and return the exchanges that are now certain.

        Args:
            request: what the master waited for.
            exchange: the two joined, None for functions that are not decoded.
            before: whether other bytes stood before the response; `stray` has learnt of them.
            behind: whether other bytes stood behind it, in the same read.
            read_at_ns: the stamp of the read, if it has one.
        """
        self._note(request)
        clean = not before and not behind
        if clean and self._seen.get(request.frame, _OFTEN) < _OFTEN:
            self._seen[request.frame] += 1
        released: list[Exchange] = []
        if behind and not (self._loss is not None and self._loss.accounted):
            released += self._event(OUT_OF_SYNC, accounted=False)
        loss = self._loss
        if loss is None:
            return [] if exchange is None else [exchange]
        certain = self._is_certain(request)
        in_question = not certain and self._is_in_question(loss, request)
        # The response to a request that was sent again may be that to the first time: no proof.
        group = loss.outstanding.get(request.shape)
        repeated = group is not None and request.frame in group.frames
        proves = clean and not in_question and (certain or not repeated)
        if repeated:
            self._add(loss, request, 0)
        if in_question:
            released += self._withhold(loss, request, exchange)
        elif exchange is not None:
            loss.withheld.append(_Withheld(exchange, request.frame, request.shape, loss.now, True))
        if proves:
            self._prove(loss, Moment(read_at_ns, loss.now.number))
        return released + self._release(loss)

    def refused(self, request: Request, *, behind: bool) -> list[Exchange]:
        """Learn of an exception response that fits its request."""
        self._note(request)
        loss = self._loss
        if behind and not (loss is not None and loss.accounted):
            return self._event(OUT_OF_SYNC, accounted=False)
        if loss is not None and loss.accounted:
            # It may be the late one of an earlier request: then this one's response is still to come.
            shapes = (*loss.outstanding, *loss.in_question)
            if any(shape[:2] == request.shape[:2] for shape in shapes):
                self._add(loss, request, 1)
        if loss is not None and self._seen.get(request.frame):
            # Of a register that is else read, an exception may be the response to what is withheld.
            return self._event(loss.reason, accounted=loss.accounted)
        return []

    def gave_up(self, request: Request, strays: list[bytes], written_at_ns: int | None) -> list[Exchange]:
        """Learn that the master no longer waits for the response to `request`.

        Args:
            request: what has no response.
            strays: the shapes of whole responses that were read in its place.
            written_at_ns: the stamp of the request, if it has one.
        """
        self._note(request)
        released = self._event(AFTER_FAILURE, accounted=True)
        for shape in strays:
            released += self._explain(shape)
        if self._loss is None:
            self._loss = _Loss(AFTER_FAILURE, accounted=True)
        loss = self._loss
        loss.now = loss.failed_at = Moment(written_at_ns, loss.now.number)
        loss.missing += 1
        self._add(loss, request, 1)
        return released

    def stray(self, strays: list[bytes]) -> list[Exchange]:
        """Learn of bytes that the pending request, if any, does not explain.

        Args:
            strays: the shapes of the whole responses among them.
        """
        loss = self._loss
        if not self._seen if loss is None else not loss.failed and loss.event_at is None:
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
        loss = self._loss
        if loss is None:
            return []
        last = 0
        if not loss.failed:
            ends = [index for index, held in enumerate(loss.withheld, 1) if self._proves_at_the_end(held)]
            last = max(ends, default=0)
        released = [withheld.exchange for withheld in loss.withheld[:last]]
        loss.withheld = loss.withheld[last:]
        return released + self._drop_withheld(loss, loss.reason)

    def _note(self, request: Request) -> None:
        if request.frame not in self._seen and len(self._seen) < MAX_REQUESTS:
            self._seen[request.frame] = 0
            self._alike.setdefault(request.shape, set()).add(request.frame)

    def _is_alone(self, shape: bytes) -> bool:
        """Tell whether one request only of all that were seen has this shape."""
        return len(self._seen) < MAX_REQUESTS and len(self._alike[shape]) == 1

    def _is_certain(self, request: Request) -> bool:
        """Tell whether no other request of this bus could get a response like one to `request`."""
        if not self._is_alone(request.shape):
            return False
        if self._seen[request.frame] >= _CYCLED:
            return True
        return request.decoded and request.count >= _LONG_POLL and self._narrowest(request) == inf

    def _is_in_question(self, loss: _Loss, request: Request) -> bool:
        """Tell whether a response to `request` could be one to another request that may be outstanding."""
        if not loss.accounted:
            return True
        group, alike = loss.outstanding.get(request.shape), loss.in_question.get(request.shape)
        return any(others is not None and others.frames != {request.frame} for others in (group, alike))

    def _narrowest(self, request: Request) -> float:
        return self._narrowest_other(request.unit, request.function, request.address, request.count)

    def _proves_at_the_end(self, withheld: _Withheld) -> bool:
        """Tell whether an exchange since the start proves sync though no cycle may be complete."""
        request = Request(withheld.request)
        return self._is_alone(request.shape) and (
            withheld.certain or self._narrowest(request) > request.count
        )

    def _cannot_prove(self, loss: _Loss) -> bool:
        """Tell whether cycles have passed without a request whose response could prove anything."""
        if _OFTEN not in self._seen.values():
            return False
        if loss.accounted:
            return len(self._alike) == 1
        alone = (next(iter(frames)) for frames in self._alike.values() if len(frames) == 1)
        return not any(self._seen[frame] for frame in alone)

    def _withhold(self, loss: _Loss, request: Request, exchange: Exchange | None) -> list[Exchange]:
        """Keep or drop an exchange that is in question."""
        released: list[Exchange] = []
        loss.undecidable = not loss.proven and self._cannot_prove(loss)
        if loss.undecidable:
            # Nothing of what comes can depend on when this began.
            released = self._drop_withheld(loss, UNDECIDABLE)
            self._loss = _Loss(UNDECIDABLE, accounted=False, undecidable=True, now=Moment(None, 1))
        elif not loss.failed or (loss.proven and self._late_ones_came(loss, request)):
            if len(loss.withheld) >= MAX_WITHHELD:
                loss.failed = True
                released = self._drop_withheld(loss, loss.reason)
            if exchange is not None:
                loss.withhold(exchange, request)
            return released
        else:
            # If this was the late response of another request, its own is still to come in its place.
            self._add(loss, request, 0 if loss.accounted else 1)
            loss.missing += not loss.accounted
        if exchange is not None:
            self._count(UNDECIDABLE if loss.undecidable else loss.reason)
        return released

    def _add(self, loss: _Loss, request: Request, count: int) -> None:
        """Take a request, just written, for one whose response may still come."""
        group = loss.outstanding.setdefault(request.shape, _Outstanding(0, set(), loss.now))
        group.count += count
        group.frames.add(request.frame)
        group.latest = loss.now

    def _prove(self, loss: _Loss, now: Moment) -> None:
        """Learn of a proof, read at `now`: what is older has no response to come."""
        loss.proven = True
        if (
            loss.event_at is not None
            and now.number - loss.event_at.number >= SETTLED_AFTER_CYCLES * len(self._seen)
            and self._passed(loss.event_at, now, SETTLED_AFTER_NS, SETTLED_AFTER_CYCLES)
        ):
            loss.accounted = True
            loss.outstanding.clear()
            self._believe(loss, set(loss.in_question))
            return
        if not loss.accounted:
            loss.accounted = loss.failed_at is not None and self._is_late(loss.failed_at, now)
        over = [shape for shape, group in loss.outstanding.items() if self._is_late(group.latest, now)]
        for shape in over:
            del loss.outstanding[shape]
            loss.missing = min(loss.missing, sum(group.count for group in loss.outstanding.values()))
        # The response to one may have been taken for that to the next: none is proven before the last.
        proven = {shape for shape, group in loss.in_question.items() if self._is_late(group.latest, now)}
        if proven:
            self._believe(loss, proven)

    def _believe(self, loss: _Loss, shapes: set[bytes]) -> None:
        """Take what is withheld of some shapes for certain."""
        loss.withheld = [
            withheld._replace(certain=True) if withheld.shape in shapes else withheld
            for withheld in loss.withheld
        ]
        for shape in shapes:
            del loss.in_question[shape]

    def _release(self, loss: _Loss) -> list[Exchange]:
        """Return what waits for nothing more, and end the loss where nothing is in question."""
        released: list[Exchange] = []
        for withheld in loss.withheld:
            if not withheld.certain:
                break
            released.append(withheld.exchange)
        del loss.withheld[: len(released)]
        if loss.accounted and not loss.outstanding and not loss.in_question and self._loss is loss:
            self._loss = None
        return released

    def _late_ones_came(self, loss: _Loss, request: Request) -> bool:
        """Tell whether nothing may come any more of what `request` could be mistaken for.

        What was asked after the failure, and may have got the late response, counts for so many cycles only:
        where they follow each other without a pause, it would never end.
        """
        failed_at, group = loss.failed_at, loss.outstanding.get(request.shape)
        if failed_at is None or not self._is_late(failed_at, loss.now):
            return False
        return (
            group is None
            or self._is_late(group.latest, loss.now)
            or loss.now.number - failed_at.number >= _CHAIN_CYCLES * len(self._seen)
        )

    def _is_late(self, then: Moment, now: Moment) -> bool:
        """Tell whether no response to what was written `then` may come after `now`."""
        return self._passed(then, now, LATE_WITHIN_NS, LATE_WITHIN_CYCLES)

    def _passed(self, then: Moment, now: Moment, time_ns: int, cycles: int) -> bool:
        if then.stamped_at_ns is not None and now.stamped_at_ns is not None:
            passed_ns = now.stamped_at_ns - then.stamped_at_ns
            if passed_ns >= 0:
                return passed_ns >= time_ns
        return now.number - then.number >= cycles * len(self._seen)

    def _event(self, reason: str, *, accounted: bool) -> list[Exchange]:
        """Begin again from an event; `accounted` is True where `outstanding` holds what may come of it."""
        loss = self._loss
        if loss is None:
            self._loss = _Loss(reason, accounted)
            return []
        released = self._drop_withheld(loss, loss.reason)
        if not accounted:
            loss.accounted = False
            loss.outstanding.clear()
            loss.missing = 0
            loss.failed_at = None
        loss.reason = reason
        loss.failed = True
        loss.proven = False
        loss.event_at = None
        return released

    def _explain(self, shape: bytes) -> list[Exchange]:
        """Strike off a missing response that was seen as a stray one."""
        loss = self._loss
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
            if group.count <= 0:
                del outstanding[explained[0]]
        if loss.missing <= 0 or not outstanding:
            self._loss = None
        return []

    def _drop_withheld(self, loss: _Loss, reason: str) -> list[Exchange]:
        """Count what is withheld and not certain, and return what is."""
        released = [withheld.exchange for withheld in loss.withheld if withheld.certain]
        for _ in range(len(loss.withheld) - len(released)):
            self._count(reason)
        loss.withheld.clear()
        loss.in_question.clear()
        return released

    def _count(self, reason: str) -> None:
        self._counts[reason] += 1
        self._counts[TOTAL] += 1
