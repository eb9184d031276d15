"""The way out of the queue: batches, sent one after the other until each line has its fate.

Takes batches from a `PointQueue`, gives them to an `InfluxServer` in a worker thread, so that
reading never waits for the database. Never gives a line up because of an outage, never blocks the
event loop, and never repeats a line with another time stamp, so that a repeat overwrites.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from random import Random

import structlog

from recorder.influx.answers import Action, Verdict, judge
from recorder.influx.backoff import Backoff
from recorder.influx.errors import InfluxRefused, InfluxUnreachable
from recorder.influx.server import InfluxServer
from recorder.influx.suspects import suspects
from recorder.spool.queue import Batch, PointQueue

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """When a batch is sent, and how long to wait after a failure.

    A batch goes when `batch_points` or `batch_bytes` are waiting, and `flush_after_seconds` after
    the last one in any case. Outages are retried after 1 to 60 s; what a person has to change is
    tried again each `pause_seconds`.
    """

    batch_points: int = 5000
    batch_bytes: int = 4_000_000
    flush_after_seconds: float = 1.0
    retry_first_seconds: float = 1.0
    retry_longest_seconds: float = 60.0
    pause_seconds: float = 60.0


class WriterState(Enum):
    """What the writer is doing, in a word for the user."""

    STARTING = "starting"
    WRITING = "writing"
    RETRYING = "retrying"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(slots=True)
class WriterCounters:
    """Since the start: lines written and rejected, attempts repeated."""

    written: int = 0
    rejected: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the writer calls, always in a worker thread.

    `prepare` runs after each time that the server was found anew, and when its database is missing: the
    place to create what is missing. `on_written` gets the lines that are in the database, `on_rejected`
    those that it refused, with their reasons: before the queue forgets the lines, so that a kill between
    makes no hole, and so perhaps twice.
    """

    prepare: Callable[[], object] | None = None
    on_written: Callable[[Sequence[bytes]], object] | None = None
    on_rejected: Callable[[Sequence[bytes], Sequence[str]], object] | None = None


_NO_HOOKS = Hooks()


class BatchingWriter:
    """Sends what a queue holds, for ever, until `stop`.

    `state`, `last_error` and `remedy` are for the status page; `last_error` and `remedy` are empty while
    all is well.
    """

    def __init__(
        self,
        queue: PointQueue,
        server: InfluxServer,
        settings: WriterSettings,
        rng: Random,
        hooks: Hooks = _NO_HOOKS,
    ) -> None:
        self._queue = queue
        self._server = server
        self._settings = settings
        self._hooks = hooks
        self._backoff = Backoff(rng, settings.retry_first_seconds, settings.retry_longest_seconds)
        self._nudge = asyncio.Event()
        self._stopping = asyncio.Event()
        self._connected = False
        self._task: asyncio.Task[None] | None = None
        self.counters = WriterCounters()
        self.state = WriterState.STARTING
        self.last_error = ""
        self.remedy = ""

    def start(self) -> None:
        """Start sending; needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name="influx-writer")

    def wake(self) -> None:
        """Tell the writer that lines were appended: a full batch is sent at once. Cheap."""
        if self._batch_is_full():
            self._nudge.set()

    def flush(self) -> None:
        """Send what is waiting at once, however little it is."""
        self._nudge.set()

    async def stop(self, deadline_seconds: float) -> None:
        """Send what is waiting, for at most `deadline_seconds`; the rest stays in the queue.

        A request that is under way at the deadline ends by itself within the server's timeout, and
        its lines stay in the queue as well: sending them again changes nothing.
        """
        self._stopping.set()
        self._nudge.set()
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=deadline_seconds)
            for task in late:
                task.cancel()
                await asyncio.wait([task])
        self.state = WriterState.STOPPED

    async def _run(self) -> None:
        done = False
        while not done:
            try:
                done = await self._step()
            except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the recording
                _log.error("unexpected error while writing, points are kept", exc_info=error)
                await self._wait_after(Verdict(Action.RETRY, f"unexpected {type(error).__name__}"))

    async def _step(self) -> bool:
        """Send one batch, or wait for one; True when all is sent and the writer is to stop."""
        # In a thread, because it may read a disk.
        batch = await asyncio.to_thread(
            self._queue.take, self._settings.batch_points, self._settings.batch_bytes
        )
        if batch is not None:
            await self._settle(batch)
        elif self._stopping.is_set():
            return True
        elif not self._connected and await self._connect_or_wait():
            # An empty queue is the time to find out what is wrong, before there is data to wait.
            self._report_success()
        if not self._stopping.is_set() and not self._batch_is_full():
            await self._wait_for_a_batch()
        return False

    def _batch_is_full(self) -> bool:
        depth = self._queue.depth()
        return depth.points >= self._settings.batch_points or depth.nbytes >= self._settings.batch_bytes

    async def _wait_for_a_batch(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.flush_after_seconds):
                await self._nudge.wait()
        self._nudge.clear()

    async def _settle(self, batch: Batch) -> None:
        """Send a batch until each of its lines is written or rejected; put it back when cancelled."""
        try:
            reasons = await self._send_parts(batch)
            await asyncio.to_thread(self._tell, batch, reasons)
        except BaseException:
            self._queue.keep(batch)
            raise
        if reasons:
            self._queue.reject(batch, reasons)
        else:
            self._queue.accept(batch)
        self.counters.written += len(batch.lines) - len(reasons)
        self.counters.rejected += len(reasons)

    def _tell(self, batch: Batch, reasons: Mapping[int, str]) -> None:
        if reasons and self._hooks.on_rejected:
            self._hooks.on_rejected([batch.lines[index] for index in reasons], list(reasons.values()))
        if self._hooks.on_written:
            self._hooks.on_written([line for index, line in enumerate(batch.lines) if index not in reasons])

    async def _send_parts(self, batch: Batch) -> dict[int, str]:
        """Send a batch, split as often as the server asks for; the rejected lines with their reasons."""
        reasons: dict[int, str] = {}
        parts: list[Sequence[int]] = [range(len(batch.lines))]
        while parts:
            part = parts.pop()
            lines = [batch.lines[index] for index in part]
            verdict = await self._send(b"\n".join(lines) + b"\n")
            if verdict.action is Action.ACCEPT:
                continue
            if len(part) == 1 or verdict.dropped == len(part):
                reasons.update(dict.fromkeys(part, verdict.reason))
                _log.warning("InfluxDB rejects lines", lines=len(part), reason=verdict.reason)
                continue
            apart = suspects(lines, verdict)
            if not 0 < len(apart) < len(part):
                apart = set(range(len(part) // 2))
            parts.append([index for at, index in enumerate(part) if at not in apart])
            parts.append([index for at, index in enumerate(part) if at in apart])
        return reasons

    async def _send(self, lines: bytes) -> Verdict:
        """Send the same bytes until the server takes them or finds fault with them."""
        while True:
            if not self._connected:
                await self._connect_or_wait()
                continue
            try:
                answer = await asyncio.to_thread(self._server.write, lines)
            except InfluxUnreachable as error:
                await self._wait_after(Verdict(Action.RETRY, str(error)))
                continue
            verdict = judge(answer.status, answer.body, answer.headers)
            if verdict.action in {Action.RETRY, Action.PAUSE}:
                await self._wait_after(verdict)
                continue
            self._report_success()
            return verdict

    async def _connect_or_wait(self) -> bool:
        """Find out what the server is and let `prepare` see to it; False after a failure and a wait."""
        try:
            kind = await asyncio.to_thread(self._server.detect)
            if self._hooks.prepare is not None:
                await asyncio.to_thread(self._hooks.prepare)
        except InfluxUnreachable as error:
            await self._wait_after(Verdict(Action.RETRY, str(error)))
            return False
        except InfluxRefused as error:
            await self._wait_after(Verdict(Action.PAUSE, error.reason, error.remedy))
            return False
        self._connected = True
        _log.debug("InfluxDB answers", version=kind.version or "not named", v2_write=kind.has_v2_write)
        return True

    async def _wait_after(self, verdict: Verdict) -> None:
        """Say once for each outage what is wrong, then wait for the next attempt."""
        self._connected = False
        self.counters.retries += 1
        state = WriterState.RETRYING if verdict.action is Action.RETRY else WriterState.PAUSED
        if state is not self.state:
            _log.warning(
                "InfluxDB takes no data, points are kept", reason=verdict.reason, remedy=verdict.remedy
            )
        self.state, self.last_error, self.remedy = state, verdict.reason, verdict.remedy
        seconds = max(self._backoff.wait_seconds(), verdict.after_seconds or 0.0)
        # What `prepare` can create is tried again soon, what needs a person each minute.
        if verdict.action is Action.PAUSE and not (verdict.database_missing and self._hooks.prepare):
            seconds = self._settings.pause_seconds
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, self._settings.retry_first_seconds))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _report_success(self) -> None:
        if self.last_error:
            _log.info("InfluxDB takes data again", retries=self.counters.retries)
        self.state, self.last_error, self.remedy = WriterState.WRITING, "", ""
        self._backoff.reset()
