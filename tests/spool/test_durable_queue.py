"""The durable queue on a real disk: what was committed is there again, and what is lost is counted."""

import os
import shutil
import struct
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from threading import Thread
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from recorder.spool.durable import DurableQueue, Limits
from recorder.spool.queue import Batch
from recorder.spool.segments import QueueLocked
from tests.spool.test_point_queue import Clock
from tests.support.influxd import wait_until

WALL = 1_800_000_000.0


def opened(directory: Path, limits: Limits | None = None, clock: Clock | None = None) -> DurableQueue:
    """An open queue without a committing thread: the test commits."""
    clock = clock or Clock()
    queue = DurableQueue(
        directory, limits or Limits(), clock=clock, wall_clock=lambda: WALL + clock.now - 1000
    )
    queue.open()
    return queue


def numbered(first: int, count: int, width: int = 40) -> list[bytes]:
    """Lines that differ, so that each can be found again."""
    return [b"pcs,n=%0*d v=1.0 %d" % (width, number, number) for number in range(first, first + count)]


def drain(queue: DurableQueue, max_points: int = 5000) -> list[bytes]:
    """Everything that the queue gives, accepted."""
    lines: list[bytes] = []
    while batch := queue.take(max_points, 1 << 22):
        lines += batch.lines
        queue.accept(batch)
    return lines


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.segment"))


def fill(directory: Path, commits: int = 4, lines: int = 2000) -> list[bytes]:
    """A closed queue with so many commits of so many lines; gives the lines."""
    queue = opened(directory)
    for number in range(commits):
        queue.append(numbered(number * lines, lines))
        assert queue.commit()
    queue.close()
    return numbered(0, commits * lines)


class DiskMachine(RuleBasedStateMachine):
    """Any order of calls, commits and restarts, beside a model that knows each line's fate."""

    def __init__(self) -> None:
        super().__init__()
        self.home = TemporaryDirectory(ignore_cleanup_errors=True)
        self.clock = Clock()
        self.queue = self.reopened()
        self.waiting: set[bytes] = set()
        self.committed: set[bytes] = set()
        self.out: dict[int, Batch] = {}
        self.number = 0

    def reopened(self) -> DurableQueue:
        return opened(Path(self.home.name) / "queue", Limits(max_bytes=1 << 20), self.clock)

    @rule(count=st.integers(1, 6), seconds=st.integers(0, 5))
    def append(self, count: int, seconds: int) -> None:
        self.clock.now += seconds
        lines = numbered(self.number, count)
        self.number += count
        self.waiting |= set(lines)
        self.queue.append(lines)

    @rule(points=st.integers(1, 9), nbytes=st.integers(1, 600))
    def take(self, points: int, nbytes: int) -> None:
        """A batch holds only lines that wait, and there is one as long as any line waits."""
        batch = self.queue.take(points, nbytes)
        if batch is None:
            assert not self.waiting
            return
        assert set(batch.lines) <= self.waiting
        assert len(set(batch.lines)) == len(batch.lines)
        assert len(batch.lines) == 1 or (len(batch.lines) <= points and batch.nbytes <= nbytes)
        self.waiting -= set(batch.lines)
        self.out[batch.sequence] = batch

    @precondition(lambda self: self.out)
    @rule(data=st.data(), kept=st.booleans())
    def end(self, data: st.DataObject, kept: bool) -> None:
        batch = self.out.pop(data.draw(st.sampled_from(sorted(self.out))))
        if kept:
            self.queue.keep(batch)
            self.waiting |= set(batch.lines)
        else:
            self.queue.accept(batch)
            self.committed -= set(batch.lines)

    @rule()
    def commit(self) -> None:
        assert self.queue.commit()
        self.committed = self.waiting | {line for batch in self.out.values() for line in batch.lines}

    @rule()
    def restart(self) -> None:
        """A restart in order brings back every line that was not accepted, those in a batch too."""
        self.queue.close()
        self.queue = self.reopened()
        self.waiting |= {line for batch in self.out.values() for line in batch.lines}
        self.out.clear()
        self.committed = set(self.waiting)

    @invariant()
    def every_line_is_counted(self) -> None:
        depth = self.queue.depth()
        assert depth.points == len(self.waiting) + sum(len(batch.lines) for batch in self.out.values())
        assert (depth.dropped, depth.damaged) == (0, 0)

    def teardown(self) -> None:
        self.restart()
        assert Counter(drain(self.queue)) == Counter(self.waiting)
        assert self.queue.depth().points == self.queue.depth().nbytes == 0
        assert self.queue.commit()
        assert not segments(Path(self.home.name) / "queue")
        self.queue.close()
        self.home.cleanup()


def test_nothing_is_lost_or_doubled_by_commits_and_restarts() -> None:
    """In any order of calls, commits and restarts each line is given until it is accepted, and once."""
    run_state_machine_as_test(DiskMachine, settings=settings(max_examples=60, stateful_step_count=30))


def test_what_was_committed_and_not_accepted_is_there_after_a_restart(tmp_path: Path) -> None:
    """Of three committed lines the accepted one is gone, and the two others are given again."""
    queue = opened(tmp_path / "queue")
    queue.append([b"a", b"b", b"c"])
    queue.commit()
    batch = queue.take(1, 100)
    assert batch
    queue.accept(batch)
    queue.close()
    assert drain(opened(tmp_path / "queue")) == [b"b", b"c"]


def test_a_batch_that_is_out_is_committed_too(tmp_path: Path) -> None:
    """Lines in flight at a commit are there again after a kill."""
    queue = opened(tmp_path / "queue")
    queue.append([b"a", b"b"])
    assert queue.take(1, 100)
    queue.commit()
    queue._directory.close()  # type: ignore[union-attr]  # what a kill does to the lock
    assert drain(opened(tmp_path / "queue")) == [b"a", b"b"]


def test_nothing_is_written_while_the_database_answers(tmp_path: Path) -> None:
    """Lines that are accepted before their commit leave no segment."""
    queue = opened(tmp_path / "queue")
    for number in range(100):
        queue.append(numbered(number, 1))
        drain(queue)
        queue.commit()
    assert not segments(tmp_path / "queue")


def test_committer_stores_what_is_older_than_the_interval(tmp_path: Path) -> None:
    """The thread stores waiting lines by itself, and deletes the segment once they are accepted."""
    queue = DurableQueue(tmp_path / "queue", Limits(commit_interval_seconds=0.2))
    queue.open()
    queue.start()
    queue.append([b"a"])
    wait_until(lambda: bool(segments(tmp_path / "queue")))
    assert drain(queue) == [b"a"]
    wait_until(lambda: not segments(tmp_path / "queue"))
    queue.close()


def test_half_full_memory_is_stored_before_the_interval(tmp_path: Path) -> None:
    """A burst goes to the disk at once instead of being dropped at the memory's bound."""
    queue = DurableQueue(tmp_path / "queue", Limits(max_memory_bytes=1 << 16, commit_interval_seconds=3600))
    queue.open()
    queue.start()
    queue.append(numbered(0, 700))
    wait_until(lambda: bool(segments(tmp_path / "queue")))
    queue.close()
    assert queue.depth().dropped == 0


def test_newest_lines_go_first_while_the_backlog_drains_beside_them(tmp_path: Path) -> None:
    """A batch begins with what is recent and is filled up with the oldest of the disk."""
    queue = opened(tmp_path / "queue")
    queue.append([b"old1", b"old2", b"old3"])
    queue.commit()
    queue.append([b"new1", b"new2", b"new3"])
    batches = []
    while batch := queue.take(4, 100):
        batches.append(batch.lines)
    assert batches == [(b"new1", b"new2", b"old1", b"old2"), (b"new3", b"old3")]


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """Directories are 0700 and files 0600, whatever the umask."""
    queue = opened(tmp_path / "data" / "queue")
    queue.append([b"a"])
    queue.commit()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "data").rglob("*")}
    assert modes.pop("queue") == (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}


def test_second_queue_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    """It says what to do, and the first one goes on."""
    queue = opened(tmp_path / "queue")
    with pytest.raises(QueueLocked, match="give this one its own data_dir"):
        opened(tmp_path / "queue")
    queue.append([b"a"])
    assert queue.commit()


def test_oldest_segments_go_at_the_bound_and_the_gap_is_told(tmp_path: Path) -> None:
    """The disk stays within max_bytes; what went is counted, with the times between which it came."""
    clock = Clock()
    queue = opened(tmp_path / "queue", Limits(max_bytes=1 << 18), clock)
    for number in range(200):
        clock.now += 10
        queue.append(numbered(number * 30, 30))
        assert queue.commit()
        assert sum(path.stat().st_size for path in segments(tmp_path / "queue")) <= 1 << 18
    depth = queue.depth()
    left = drain(queue)
    assert left == numbered(6000 - len(left), len(left))
    assert depth.dropped == 6000 - len(left) > 0
    (gap,) = depth.gaps
    assert (gap.points, gap.reason) == (depth.dropped, "queue.max_bytes was reached")
    assert gap.first_at == WALL + 10
    assert gap.last_at == pytest.approx(WALL + depth.dropped / 3, abs=0.1)


def test_a_batch_that_is_out_survives_its_segment(tmp_path: Path) -> None:
    """Lines on their way are not dropped with the segment that they came from: kept, they are stored anew."""
    clock = Clock()
    queue = opened(tmp_path / "queue", Limits(max_age_seconds=100), clock)
    queue.append([b"a", b"b", b"c"])
    queue.commit()
    batch = queue.take(2, 100)
    assert batch
    clock.now += 101
    queue.commit()
    assert (queue.depth().dropped, queue.depth().points) == (1, 2)
    assert not segments(tmp_path / "queue")
    queue.keep(batch)
    queue.close()
    assert drain(opened(tmp_path / "queue")) == [b"a", b"b"]


def test_segments_beyond_max_age_go(tmp_path: Path) -> None:
    """What has waited longer than max_age is dropped and counted, what is younger stays."""
    clock = Clock()
    queue = opened(tmp_path / "queue", Limits(max_age_seconds=100), clock)
    queue.append([b"old"])
    queue.commit()
    clock.now += 101
    queue.append([b"new"])
    queue.commit()
    assert queue.depth().dropped == 1
    assert drain(queue) == [b"new"]


def test_a_clock_that_jumps_drops_nothing(tmp_path: Path) -> None:
    """Lines stored while the clock said 1970 are not too old once it is right."""
    wall, clock = [0.0], Clock()
    for now in (100.0, WALL):
        wall[0] = now
        queue = DurableQueue(tmp_path / "queue", Limits(), clock=clock, wall_clock=lambda: wall[0])
        queue.open()
        for path in segments(tmp_path / "queue"):
            os.utime(path, (100, 100))
        queue.append([b"at %d" % now])
        wall[0] += 365 * 86400
        assert queue.commit()
        queue.close()
    assert drain(opened(tmp_path / "queue")) == [b"at 100", b"at %d" % WALL]


def assert_exactly_told(directory: Path, lines: list[bytes]) -> int:
    """The queue starts and gives only lines that were put in; what is missing is counted. Gives how many."""
    queue = opened(directory)
    given = drain(queue)
    depth = queue.depth()
    assert not Counter(given) - Counter(lines)
    assert depth.damaged == len(lines) - len(given)
    assert sum(gap.points for gap in depth.gaps) == depth.damaged
    assert depth.points == 0
    queue.append([b"goes on"])
    assert queue.commit()
    assert drain(queue) == [b"goes on"]
    queue.close()
    return depth.damaged


def test_truncated_at_every_4_kib_keeps_the_prefix(tmp_path: Path) -> None:
    """A segment cut at any place gives what is before the cut, and the rest is reported to the point."""
    lines = fill(tmp_path / "whole", commits=4, lines=1000)
    (segment,) = segments(tmp_path / "whole")
    size = segment.stat().st_size
    for cut in range(0, size, 4096):
        shutil.copytree(tmp_path / "whole", tmp_path / str(cut))
        os.truncate(tmp_path / str(cut) / segment.name, cut)
        lost = assert_exactly_told(tmp_path / str(cut), lines)
        assert lost <= len(lines) - (cut - 4096) // 72 + 1000
        assert lost > 0


def test_every_flipped_byte_is_detected(tmp_path: Path) -> None:
    """Of 1,000 single flips none gives a wrong line, each costs one record at most, and is counted."""
    lines = fill(tmp_path / "whole", commits=8, lines=50)
    (segment,) = segments(tmp_path / "whole")
    content = segment.read_bytes()
    rng = Random(3)
    place = (tmp_path / "whole" / "cursor-influxdb").read_bytes()
    harmless = 0
    for _ in range(1000):
        for path in tmp_path.glob("whole/*.segment"):
            path.unlink()
        damaged = bytearray(content)
        damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        segment.write_bytes(damaged)
        (tmp_path / "whole" / "cursor-influxdb").write_bytes(place)
        queue = opened(tmp_path / "whole")
        given = drain(queue)
        lost = queue.depth().damaged
        assert not Counter(given) - Counter(lines)
        assert lost == len(lines) - len(given) <= 50
        harmless += lost == 0
        queue.close()
    assert harmless < 10  # only the file's own header holds nothing


@pytest.mark.parametrize("flips", [3, 30, 1000])
def test_many_flipped_bytes_are_detected(tmp_path: Path, flips: int) -> None:
    """However much of all files is damaged, it starts, gives no wrong line, and counts what is lost."""
    lines = fill(tmp_path / "queue", commits=20, lines=200)
    rng = Random(flips)
    (segment,) = segments(tmp_path / "queue")
    damaged = bytearray(segment.read_bytes())
    for _ in range(flips):
        damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
    segment.write_bytes(damaged)
    assert assert_exactly_told(tmp_path / "queue", lines) > 0


@settings(max_examples=100)
@given(st.binary(max_size=600), st.integers(0, 2))
def test_any_bytes_in_place_of_a_file_are_survived(content: bytes, which: int) -> None:
    """Whatever a segment, the cursor or the lock holds, the queue starts and goes on."""
    with TemporaryDirectory() as home:
        directory = Path(home) / "queue"
        fill(directory, commits=1, lines=3)
        victim = [segments(directory)[0], directory / "cursor-influxdb", directory / "lock"][which]
        victim.write_bytes(content)
        queue = opened(directory)
        assert set(drain(queue)) <= set(numbered(0, 3))
        queue.append([b"goes on"])
        assert queue.commit()
        assert drain(queue) == [b"goes on"]
        queue.close()


@pytest.mark.parametrize("name", ["segment", "cursor-influxdb", "lock", "."])
def test_a_directory_or_file_of_another_kind_is_moved_aside(tmp_path: Path, name: str) -> None:
    """A directory in place of a file, or a file in place of the directory: the queue starts afresh."""
    directory = tmp_path / "queue"
    if name == ".":
        directory.write_text("a file")
    else:
        name = f"{5:016x}.segment" if name == "segment" else name
        (directory / name).mkdir(parents=True)
    queue = opened(directory)
    assert queue.problem == ""
    queue.append([b"a"])
    assert queue.commit()
    assert drain(queue) == [b"a"]
    assert list(tmp_path.rglob("*.damaged-1"))


@pytest.mark.parametrize("what", ["empty", "newer", "foreign", "renamed"])
def test_segment_that_is_not_ours_is_moved_aside(tmp_path: Path, what: str) -> None:
    """An empty file, one of a newer version, of another program or under another name stays for a look."""
    lines = fill(tmp_path / "queue", commits=1, lines=10)
    (segment,) = segments(tmp_path / "queue")
    head = struct.pack("<8sHQd", b"ESSQUEUE", 2, 0, WALL)
    newer = head + struct.pack("<I", crc32(head))
    if what == "renamed":
        segment.rename(segment.with_name(f"{3:016x}.segment"))
    else:
        segment.write_bytes({"empty": b"", "newer": newer, "foreign": b"SQLite format 3\0" * 99}[what])
    assert assert_exactly_told(tmp_path / "queue", lines) == len(lines)
    assert len(list((tmp_path / "queue").glob("*.segment.damaged-1"))) == 1


def test_without_its_cursor_everything_is_sent_again(tmp_path: Path) -> None:
    """A lost cursor loses no line: what was accepted and not yet deleted is given once more."""
    queue = opened(tmp_path / "queue")
    queue.append([b"a", b"b"])
    queue.commit()
    batch = queue.take(1, 100)
    assert batch
    queue.accept(batch)
    queue.close()
    (tmp_path / "queue" / "cursor-influxdb").unlink()
    queue = opened(tmp_path / "queue")
    assert drain(queue) == [b"a", b"b"]
    assert queue.depth().damaged == 0


def test_threads_lose_and_double_nothing(tmp_path: Path) -> None:
    """Appending, taking, keeping and committing at once: each line is accepted exactly once."""
    queue = DurableQueue(tmp_path / "queue", Limits())
    queue.open()
    lines = numbered(0, 6000)
    commits = 0

    def may_go_on(least_commits: int) -> bool:
        return queue.depth().points < 500 and commits >= least_commits

    def fill_up() -> None:
        for first in range(0, len(lines), 5):
            # Commits come in between, however seldom the committing thread has its turn.
            wait_until(partial(may_go_on, commits + (first % 500 == 0)))
            queue.append(lines[first : first + 5])

    def keep_committing() -> None:
        nonlocal commits
        while producer.is_alive() or queue.depth().points:
            assert queue.commit()
            commits += 1

    producer = Thread(target=fill_up)
    committer = Thread(target=keep_committing)
    producer.start()
    committer.start()
    rng = Random(1)
    accepted: Counter[bytes] = Counter()
    out: list[Batch] = []
    while producer.is_alive() or out or queue.depth().points:
        batch = queue.take(rng.randrange(1, 40), 1 << 20)
        if batch is not None:
            out.append(batch)
        if out and (batch is None or len(out) > 3):
            ended = out.pop(rng.randrange(len(out)))
            if rng.random() < 0.3:
                queue.keep(ended)
            else:
                queue.accept(ended)
                accepted.update(ended.lines)
    producer.join()
    committer.join()
    queue.close()
    assert accepted == Counter(lines)
    depth = queue.depth()
    assert (depth.points, depth.dropped, depth.damaged) == (0, 0, 0)
    assert not segments(tmp_path / "queue")
