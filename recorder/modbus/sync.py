"""Which responses on a tapped bus certainly belong to their requests.

A response does not name its address, so a late one can look like the response to the next request. It is
not certain because it fits, but because nothing unexplained happened since the bus was last known to be in
sync. `BusSync` learns of each request, response and stray byte of one bus and decides which exchanges are
given, withheld until more is known, or dropped and counted. It never sees a byte itself.

Two requests are *alike* where the response to one could be taken for that to the other: they have one shape.

- **In sync**: each request got exactly its response. Exchanges are given at once.
- **Outstanding**: the response to a request is missing. A response to another request that is alike may be
  that one, and then its own is outstanding in its place: such exchanges are *in question* and dropped.
- **Anything may be outstanding**: after bytes that no request explains, or a line that cannot be read. Every
  exchange is in question whose request is not the only one of its shape.

Nothing more comes of a request when its response was seen where none was asked for, or after a *proof*: a
response of another shape that is not in question or did not come at once, read `LATE_WITHIN_NS` after the
request, with nothing before or behind it. What had come before would have been read first.

Where requests that are alike follow each other without a pause, each one in question is outstanding anew,
without end. But an error that goes on passes from response to response, and shows at the next request of
another shape, unless a response is late again. So nothing of a shape is outstanding after some *checks*
either: proofs by another shape, `LATE_WITHIN_NS` apart. The more events a bus has, the more are needed. Where
each response is in question, twice as many clean ones of alternating shapes do.

At the start of a bus nothing has failed yet: there exchanges in question are withheld, and given once nothing
is outstanding any more.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final, NamedTuple

from recorder.modbus.frames import EXCEPTION_FLAG
from recorder.modbus.messages import Exchange, Request

# How long after its request a response may still come; and the same in cycles of all requests where lines
# have no stamps: back-to-back cycles take 0.2 s.
LATE_WITHIN_NS: Final = 520_000_000
LATE_WITHIN_CYCLES: Final = 3
# How many checks are needed, and how many more by the share of events among the requests since the loss.
_CHECKS_AT_START: Final = 2
_CHECKS: Final = 3
_CHECKS_BY_EVENTS: Final = 75

# A response takes longer than that; what comes sooner was there before its request.
_AT_ONCE_NS: Final = 5_000_000

MAX_WITHHELD: Final = 512
MAX_REQUESTS: Final = 128
# Clean responses to a request are counted up to `_OFTEN`; by the second one, a cycle has passed.
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


class Moment(NamedTuple):
    """When a request was written: the stamp of its line, or None, and its number since the loss of sync."""

    stamped_at_ns: int | None
    number: int


_BEGIN: Final = Moment(None, 0)
# That of the next request to be written.
_NEXT: Final = Moment(None, -1)


@dataclass(slots=True)
class _Outstanding:
    """Requests that are alike; at most `count` may still get a response, and `latest` was written last.

    Responses to requests that were written so long after `latest` that its own can only wait to be read, and
    that did not come at once, are withheld instead of dropped; `withheld_at` is the last of these. The last
    of `checks`, or the failure, was at `checked_at`.
    """

    count: int
    frames: set[bytes]
    latest: Moment
    withheld_at: Moment | None
    checks: int
    checked_at: Moment


class _Withheld(NamedTuple):
    """An exchange that waits: for a proof, or where it is `certain` for those before it."""

    exchange: Exchange
    request: bytes
    shape: bytes
    certain: bool


@dataclass(slots=True)
class _Loss:
    """What is known since a bus was last in sync.

    `anything_at` is None while `outstanding` holds every response that may still come; else there may be any
    that was asked for up to then. There were so many `events`, and `turns` since the latest of them: clean
    responses of another shape than `turned_shape`, the last of them at `turned_at`. `starting` is True while
    nothing has happened since the start of the bus; only then all exchanges in question are `withheld`.
    """

    reason: str
    anything_at: Moment | None
    starting: bool = False
    undecidable: bool = False
    events: int = 1
    turns: int = 0
    turned_shape: bytes = b""
    turned_at: Moment = _NEXT
    now: Moment = _BEGIN
    outstanding: dict[bytes, _Outstanding] = field(default_factory=dict)
    withheld: list[_Withheld] = field(default_factory=list)

    @property
    def checks_needed(self) -> float:
        """How many checks show that no error goes on."""
        if self.starting:
            return _CHECKS_AT_START
        return _CHECKS + _CHECKS_BY_EVENTS * self.events / max(1, self.now.number)


class LossState(NamedTuple):
    """A loss of sync as a value."""

    known: tuple[str, Moment | None, bool, bool, int, int, bytes, Moment, Moment]
    outstanding: tuple[tuple[bytes, int, tuple[bytes, ...], Moment, Moment | None, int, Moment], ...]
    withheld: tuple[_Withheld, ...]


class SyncState(NamedTuple):
    """Where a `BusSync` is: the requests that it has seen, and its loss of sync, None while in sync."""

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
        # Certain exchanges that the present call returns.
        self._given: list[Exchange] = []
        if start is Start.UNKNOWN:
            self._loss = _Loss(AT_START, _NEXT, starting=True, events=0)
        elif start is Start.OUT_OF_SYNC:
            self._loss = _Loss(OUT_OF_SYNC, _NEXT)

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
        """Where the bus is, with nothing of its history while it is in sync."""
        seen, loss = tuple(sorted(self._seen.items())), self._loss
        if loss is None:
            return SyncState(seen, None)
        known = (
            loss.reason,
            loss.anything_at,
            loss.starting,
            loss.undecidable,
            loss.events,
            loss.turns,
            loss.turned_shape,
            loss.turned_at,
            loss.now,
        )
        outstanding = tuple(
            (
                shape,
                group.count,
                tuple(sorted(group.frames)),
                group.latest,
                group.withheld_at,
                group.checks,
                group.checked_at,
            )
            for shape, group in sorted(loss.outstanding.items())
        )
        return SyncState(seen, LossState(known, outstanding, tuple(loss.withheld)))

    def resume(self, state: SyncState) -> None:
        """Go on from where another one was."""
        self._seen, self._alike = {}, {}
        for frame, answered in state.seen:
            self._note(Request(frame))
            self._seen[frame] = answered
        self._loss = None
        if state.loss is not None:
            known, outstanding, withheld = state.loss
            groups = {
                shape: _Outstanding(count, set(frames), latest, withheld_at, checks, checked_at)
                for shape, count, frames, latest, withheld_at, checks, checked_at in outstanding
            }
            self._loss = _Loss(*known, groups, list(withheld))

    def certain_at_once(self, request: Request) -> bool:
        """Return whether a clean response to `request` is certain, and nothing is to be learned from it."""
        return self._loss is None and self._seen.get(request.frame) == _OFTEN

    def requested(self, stamped_at_ns: int | None) -> None:
        """Learn that a request was written; needed only while the bus is not in sync."""
        loss = self._loss
        if loss is not None:
            loss.now = Moment(stamped_at_ns, loss.now.number + 1)
            if loss.anything_at == _NEXT:
                loss.anything_at = loss.now
            if loss.turned_at == _NEXT:
                loss.turned_at = loss.now

    def answered(
        self,
        request: Request,
        exchange: Exchange | None,
        *,
        before: bool,
        behind: bool,
        first_stamped_at_ns: int | None,
    ) -> list[Exchange]:
        """Learn of a response that fits its request, and return the exchanges that are now certain.

        Args:
            request: what the master waited for.
            exchange: the two joined, None for functions that are not decoded.
            before: whether other bytes stood before the response; `stray` has learned of them.
            behind: whether other bytes stood behind it, in the same read.
            first_stamped_at_ns: the stamp of the first read since the request, if it has one.
        """
        self._note(request)
        clean = not before and not behind
        if clean and self._seen.get(request.frame, _OFTEN) < _OFTEN:
            self._seen[request.frame] += 1
        if behind and (self._loss is None or not self._loss.outstanding):
            self._event(OUT_OF_SYNC, anything=True)
        at_once = True
        if clean and self._loss is not None:
            asked_at = self._loss.now
            at_once = first_stamped_at_ns is None or _came_at_once(asked_at, first_stamped_at_ns)
            self._check(self._loss, request, Moment(first_stamped_at_ns, asked_at.number), at_once=at_once)
        loss = self._loss
        if loss is None:
            if exchange is not None:
                self._given.append(exchange)
            return self._give()
        certain = self._is_certain(request)
        group = loss.outstanding.get(request.shape)
        if not certain and (
            loss.anything_at is not None or (group is not None and group.frames != {request.frame})
        ):
            self._withhold(loss, request, exchange, at_once=at_once)
            return self._give()
        if group is not None and len(self._seen) > 1:
            # It may be the response to the first time that this was asked.
            self._add(loss, request, 0)
        if exchange is not None:
            loss.withheld.append(_Withheld(exchange, request.frame, request.shape, certain=True))
        self._release(loss)
        return self._give()

    def refused(self, request: Request, *, behind: bool) -> list[Exchange]:
        """Learn of an exception response that fits its request."""
        self._note(request)
        loss = self._loss
        if loss is not None and (
            self._seen.get(request.frame)
            if loss.starting or loss.anything_at is not None
            else any(shape[:2] == request.shape[:2] for shape in loss.outstanding)
        ):
            # It may be the late one of an earlier request: then this one's response is still to come.
            self._event(loss.reason, anything=loss.anything_at is not None)
            self._add(loss, request, 1)
        if behind and (loss is None or not loss.outstanding):
            self._event(OUT_OF_SYNC, anything=True)
        return self._give()

    def gave_up(self, request: Request, strays: list[bytes], written_at_ns: int | None) -> list[Exchange]:
        """Learn that the master no longer waits for the response to `request`.

        Args:
            request: what has no response.
            strays: the shapes of whole responses that were read in its place.
            written_at_ns: the stamp of the request, if it has one.
        """
        self._note(request)
        for shape in strays:
            self._explain(shape)
        loss = self._event(AFTER_FAILURE, anything=False)
        loss.now = loss.turned_at = Moment(written_at_ns, loss.now.number)
        self._add(loss, request, 1)
        return self._give()

    def stray(self, strays: list[bytes]) -> list[Exchange]:
        """Learn of bytes that the pending request, if any, does not explain.

        Args:
            strays: the shapes of the whole responses among them.
        """
        loss = self._loss
        if not self._seen if loss is None else loss.starting and loss.anything_at == _NEXT:
            # The capture begins in the middle of a response.
            return []
        if not strays:
            self._event(OUT_OF_SYNC, anything=loss is None or not loss.outstanding)
        for shape in strays:
            self._explain(shape)
        return self._give()

    def unreadable(self) -> list[Exchange]:
        """Learn that something was transferred which could not be read."""
        self._event(UNREADABLE, anything=True)
        return self._give()

    def finish(self) -> list[Exchange]:
        """Return what the end of the stream leaves certain, and count the rest."""
        loss = self._loss
        if loss is None:
            return []
        ends = [index for index, held in enumerate(loss.withheld, 1) if self._proves_at_the_end(held)]
        last = max(ends, default=0)
        self._given += [withheld.exchange for withheld in loss.withheld[:last]]
        del loss.withheld[:last]
        self._drop_withheld(loss)
        return self._give()

    def _give(self) -> list[Exchange]:
        given, self._given = self._given, []
        return given

    def _note(self, request: Request) -> None:
        if request.frame not in self._seen and len(self._seen) < MAX_REQUESTS:
            self._seen[request.frame] = 0
            self._alike.setdefault(request.shape, set()).add(request.frame)

    def _is_alone(self, shape: bytes) -> bool:
        """Return whether one request only of all that were seen has this shape."""
        return len(self._seen) < MAX_REQUESTS and len(self._alike[shape]) == 1

    def _is_certain(self, request: Request) -> bool:
        """Return whether no other request of this bus could get a response like one to `request`."""
        if not self._is_alone(request.shape):
            return False
        if self._seen[request.frame] >= _CYCLED:
            return True
        return request.decoded and request.count >= _LONG_POLL and self._narrowest(request) == inf

    def _narrowest(self, request: Request) -> float:
        return self._narrowest_other(request.unit, request.function, request.address, request.count)

    def _proves_at_the_end(self, withheld: _Withheld) -> bool:
        """Return whether an exchange since the start proves sync though no cycle may be complete."""
        request = Request(withheld.request)
        return self._is_alone(request.shape) and (
            withheld.certain or self._narrowest(request) > request.count
        )

    def _withhold(self, loss: _Loss, request: Request, exchange: Exchange | None, *, at_once: bool) -> None:
        """Keep or drop an exchange in question; `at_once` is whether its response may have waited."""
        # Polls that are all alike have no response that could prove anything.
        loss.undecidable = len(self._alike) == 1 and _OFTEN in self._seen.values()
        group = loss.outstanding.get(request.shape)
        waits = loss.starting or (
            group is not None
            and loss.anything_at is None
            and not at_once
            and self._is_late(group.latest, loss.now)
        )
        if loss.undecidable or len(loss.withheld) >= MAX_WITHHELD:
            self._event(loss.reason, anything=loss.anything_at is not None)
            waits = False
        if group is not None and waits and not loss.starting:
            group.frames.add(request.frame)
            group.withheld_at = loss.now
        elif not self._is_alone(request.shape):
            # If this was the response to another request, its own is outstanding.
            self._add(loss, request, 0 if loss.anything_at is None else 1)
        if exchange is not None and waits:
            loss.withheld.append(_Withheld(exchange, request.frame, request.shape, certain=False))
        elif exchange is not None:
            self._count(loss)

    def _add(self, loss: _Loss, request: Request, count: int) -> None:
        """Take a request, just written, for one whose response may still come."""
        now = loss.now
        group = loss.outstanding.setdefault(request.shape, _Outstanding(0, set(), now, None, 0, now))
        group.count += count
        group.frames.add(request.frame)
        group.latest, group.withheld_at = now, None

    def _check(self, loss: _Loss, request: Request, read_at: Moment, *, at_once: bool) -> None:
        """Learn of a clean response: nothing of another shape waited to be read before it."""
        needed = loss.checks_needed
        if request.shape != loss.turned_shape and self._is_late(loss.turned_at, read_at):
            loss.turns, loss.turned_shape, loss.turned_at = loss.turns + 1, request.shape, loss.now
        certain = self._is_certain(request)
        if loss.turns >= 2 * needed or (certain and len(self._seen) == 1):
            loss.anything_at = None
            loss.outstanding.clear()
        if at_once and not certain and (loss.anything_at is not None or request.shape in loss.outstanding):
            # It may have waited itself, and longer than what is behind it.
            return
        if certain and loss.anything_at is not None and self._is_late(loss.anything_at, read_at):
            loss.anything_at = None
        others = [(shape, group) for shape, group in loss.outstanding.items() if shape != request.shape]
        for shape, group in others:
            if self._is_late(group.checked_at, read_at):
                group.checks += 1
                group.checked_at = loss.now
            if group.checks >= needed or self._is_late(group.withheld_at or group.latest, read_at):
                self._believe(loss, shape)
        self._release(loss)

    def _believe(self, loss: _Loss, shape: bytes) -> None:
        """Learn that no response of a shape is outstanding."""
        del loss.outstanding[shape]
        if loss.anything_at is None:
            loss.withheld = [
                one._replace(certain=True) if one.shape == shape else one for one in loss.withheld
            ]

    def _release(self, loss: _Loss) -> None:
        """Give what waits for nothing more, and end the loss where nothing is outstanding."""
        over = loss.anything_at is None and not loss.outstanding
        if over:
            self._loss = None
        number = 0
        for withheld in loss.withheld:
            if not (withheld.certain or over):
                break
            self._given.append(withheld.exchange)
            number += 1
        del loss.withheld[:number]

    def _is_late(self, then: Moment, now: Moment) -> bool:
        """Return whether no response to what was written `then` may come after `now`."""
        if then == _NEXT:
            return False
        if then.stamped_at_ns is not None and now.stamped_at_ns is not None:
            passed_ns = now.stamped_at_ns - then.stamped_at_ns
            if passed_ns >= 0:
                return passed_ns >= LATE_WITHIN_NS
        return now.number - then.number >= LATE_WITHIN_CYCLES * len(self._seen)

    def _event(self, reason: str, *, anything: bool) -> _Loss:
        """Note an event; `anything` is False where `outstanding` has what may come of it."""
        loss = self._loss
        if loss is None:
            loss = self._loss = _Loss(reason, None)
        else:
            self._drop_withheld(loss)
            for group in loss.outstanding.values():
                group.latest, group.withheld_at = group.withheld_at or group.latest, None
                group.checks, group.checked_at = 0, loss.now
            loss.starting = False
            loss.events += 1
            loss.reason = reason
            loss.turns, loss.turned_at = 0, _NEXT
        if anything:
            loss.anything_at = _NEXT
        return loss

    def _explain(self, shape: bytes) -> None:
        """Take a stray response for one that is outstanding."""
        loss = self._loss
        outstanding = {} if loss is None or loss.anything_at is not None else loss.outstanding
        if shape[1] & EXCEPTION_FLAG:
            of_function = bytes((shape[0], shape[1] & ~EXCEPTION_FLAG))
            explained = [alike for alike in outstanding if alike[:2] == of_function]
        else:
            explained = [shape] if shape in outstanding else []
        if not explained:
            self._event(OUT_OF_SYNC, anything=True)
            return
        loss = self._event(AFTER_FAILURE, anything=False)
        if len(explained) == 1:
            group = outstanding[explained[0]]
            group.count -= 1
            if group.count <= 0:
                del outstanding[explained[0]]
                self._release(loss)

    def _drop_withheld(self, loss: _Loss) -> None:
        """Give what is withheld and certain, and count the rest."""
        for withheld in loss.withheld:
            if withheld.certain:
                self._given.append(withheld.exchange)
            else:
                self._count(loss)
        loss.withheld.clear()

    def _count(self, loss: _Loss) -> None:
        self._counts[UNDECIDABLE if loss.undecidable else loss.reason] += 1
        self._counts[TOTAL] += 1


def _came_at_once(request: Moment, first_stamped_at_ns: int) -> bool:
    """Return whether a response may have been there before its request was written."""
    return request.stamped_at_ns is None or first_stamped_at_ns - request.stamped_at_ns < _AT_ONCE_NS
