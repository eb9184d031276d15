"""One suite for every queue: what `PointQueue` promises, checked against a model."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from recorder.spool.durable import DurableQueue, Limits
from recorder.spool.memory import MemoryQueue
from recorder.spool.queue import Batch, PointQueue

BOUND_BYTES = 60


class Clock:
    """Monotonic seconds that move only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Factory = Callable[[int, Clock], PointQueue]


def durable(max_memory_bytes: int, clock: Clock) -> DurableQueue:
    """A durable queue of which nothing was committed."""
    return DurableQueue(Path("unused"), Limits(max_memory_bytes=max_memory_bytes), clock=clock)


QUEUES: dict[str, Factory] = {"memory": MemoryQueue, "durable": durable}


@pytest.fixture(params=QUEUES)
def factory(request: pytest.FixtureRequest) -> Factory:
    """Makes a queue of each class."""
    return QUEUES[request.param]


def size(lines: list[bytes] | tuple[bytes, ...]) -> int:
    """Bytes of lines with a newline each."""
    return sum(len(line) + 1 for line in lines)


class Item:
    """A line of the model, with its group and the time at which it was appended."""

    def __init__(self, number: int, group: int, line: bytes, at: float) -> None:
        self.number, self.group, self.line, self.at = number, group, line, at


class QueueMachine(RuleBasedStateMachine):
    """Any order of calls, beside a list that does the same."""

    factory: Factory

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = type(self).factory(BOUND_BYTES, self.clock)
        self.waiting: list[Item] = []
        self.out: dict[int, tuple[Batch, list[Item]]] = {}
        self.groups = self.numbers = self.dropped = self.rejected = 0

    @rule(lengths=st.lists(st.integers(1, 30), max_size=4), seconds=st.integers(0, 5))
    def append(self, lengths: list[int], seconds: int) -> None:
        """A group goes to the end; only the oldest waiting groups go, and no more than necessary."""
        self.clock.now += seconds
        self.groups += 1
        lines = []
        for length in lengths:
            line = b"%d" % self.numbers + b"x" * length
            self.waiting.append(Item(self.numbers, self.groups, line, self.clock.now))
            self.numbers += 1
            lines.append(line)
        self.queue.append(lines)
        gone = self.queue.depth().dropped - self.dropped
        lost, self.waiting = self.waiting[:gone], self.waiting[gone:]
        assert len(lost) == gone
        self.dropped += gone
        held = self.held_bytes()
        if lost:
            newest = [item.line for item in lost if item.group == lost[-1].group]
            assert held + size(newest) > BOUND_BYTES
        assert held <= BOUND_BYTES or not self.waiting

    @rule(points=st.integers(1, 6), nbytes=st.integers(1, 60))
    def take(self, points: int, nbytes: int) -> None:
        """A batch is the longest run of the oldest lines within both limits, at least one line."""
        batch = self.queue.take(points, nbytes)
        if batch is None:
            assert not self.waiting
            return
        items = self.waiting[: len(batch.lines)]
        assert [item.line for item in items] == list(batch.lines)
        assert batch.nbytes == size(batch.lines)
        assert len(items) == 1 or (len(items) <= points and batch.nbytes <= nbytes)
        following = self.waiting[len(items) : len(items) + 1]
        assert not following or len(items) == points or batch.nbytes + size([following[0].line]) > nbytes
        assert batch.sequence not in self.out
        del self.waiting[: len(items)]
        self.out[batch.sequence] = (batch, items)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        """An accepted batch is gone."""
        batch, _ = self.out.pop(data.draw(st.sampled_from(sorted(self.out))))
        self.queue.accept(batch)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        """A batch with rejected lines is gone, and those lines are counted."""
        batch, _ = self.out.pop(data.draw(st.sampled_from(sorted(self.out))))
        refused = data.draw(st.sets(st.integers(0, len(batch.lines) - 1)))
        self.queue.reject(batch, dict.fromkeys(refused, "too bad"))
        self.rejected += len(refused)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def keep(self, data: st.DataObject) -> None:
        """A kept batch is back where it was."""
        batch, items = self.out.pop(data.draw(st.sampled_from(sorted(self.out))))
        self.queue.keep(batch)
        self.waiting = sorted(self.waiting + items, key=lambda item: item.number)

    def held_bytes(self) -> int:
        """Bytes of all lines that the queue has to hold."""
        return size([item.line for item in self.held()])

    def held(self) -> list[Item]:
        """All lines that the queue has to hold."""
        return self.waiting + [item for _, items in self.out.values() for item in items]

    @invariant()
    def depth_is_exact(self) -> None:
        """The depth tells points, bytes, age and losses as the model has them."""
        depth = self.queue.depth()
        held = self.held()
        age = max((self.clock.now - item.at for item in held), default=0.0)
        assert (depth.points, depth.nbytes) == (len(held), self.held_bytes())
        assert depth.oldest_age_seconds == age
        assert (depth.dropped, depth.rejected) == (self.dropped, self.rejected)


def test_queue_follows_the_model(factory: Factory) -> None:
    """In any order of calls, order, bound and counts are those of a plain list."""
    machine = type("Machine", (QueueMachine,), {"factory": staticmethod(factory)})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=25))


def test_batches_kept_in_any_order_come_back_in_the_first_order(factory: Factory) -> None:
    """Two pieces of one group that are kept in the wrong order are taken in the right one again."""
    queue = factory(1000, Clock())
    queue.append([b"a", b"b", b"c"])
    first, second = queue.take(1, 100), queue.take(1, 100)
    assert first
    assert second
    queue.keep(first)
    queue.keep(second)
    batch = queue.take(3, 100)
    assert batch
    assert batch.lines == (b"a", b"b", b"c")


def test_a_taken_batch_survives_an_overflow(factory: Factory) -> None:
    """At the bound only lines that wait are dropped, never those on their way."""
    queue = factory(10, Clock())
    queue.append([b"old", b"next"])
    batch = queue.take(1, 100)
    assert batch
    queue.append([b"newest"])
    queue.keep(batch)
    survivors = queue.take(10, 100)
    assert survivors
    assert survivors.lines == (b"old",)
    assert queue.depth().dropped == 2


def test_a_batch_ends_only_once(factory: Factory) -> None:
    """A batch that was accepted can neither be kept nor accepted again."""
    queue = factory(100, Clock())
    queue.append([b"a"])
    batch = queue.take(1, 100)
    assert batch
    queue.accept(batch)
    with pytest.raises(KeyError):
        queue.keep(batch)
    with pytest.raises(KeyError):
        queue.accept(batch)
    assert queue.depth().points == 0
