"""What is done from time to time: audit of the database, repair of averages, savings, a look at dead letters.

Takes a scheduler and what is to be done, gives a job in a worker thread. Never runs one twice at once, and
never makes up for missed runs.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Thread

import structlog
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from recorder.influx.dead_letters import DeadLetters
from recorder.influx.errors import InfluxError
from recorder.influx.savings import DailySavings
from recorder.influx.setup import SetUp

_LOOK_EVERY_SECONDS = 10.0
_SAVINGS_EVERY_SECONDS = 3600.0
_FIRST_SAVINGS_AFTER_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class _Pause(BaseTrigger):  # type: ignore[misc]  # the library has no types
    """A run each `seconds` from now on, whatever was missed.

    The library's own interval lists each missed run: after a clock was set from 1970 to today, that holds
    the event loop for minutes.
    """

    __slots__ = ("_length",)

    def __init__(self, seconds: float) -> None:
        self._length = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:  # noqa: ARG002  # the library's signature
        return now + self._length


class _Executor(AsyncIOExecutor):  # type: ignore[misc]  # the library has no types
    """Lets what runs when the scheduler is shut down come to its end."""

    def shutdown(self, wait: bool = True) -> None:  # noqa: ARG002  # the library's signature
        """Forget what runs: the library's own cancels it, though its thread goes on, and logs an error."""
        self._pending_futures.clear()


def new_scheduler() -> AsyncIOScheduler:
    """Give a scheduler of the running event loop, to be started, without a job."""
    return AsyncIOScheduler(timezone="UTC", executors={"default": _Executor()})


def schedule_audit(scheduler: AsyncIOScheduler, setup: SetUp, audit_every_seconds: float) -> None:
    """Audit each `audit_every_seconds`, in a worker thread of the scheduler's event loop."""
    _add(scheduler, "audit", partial(_audit, setup), audit_every_seconds)


def begin_anew(scheduler: AsyncIOScheduler) -> None:
    """Plan each job from now on: for when the wall clock, by which they are planned, has been set."""
    for job in scheduler.get_jobs():
        job.reschedule(job.trigger)


def _audit(setup: SetUp) -> None:
    """One audit; an outage is the writer's to report."""
    try:
        setup.audit()
    except InfluxError as error:
        _log.debug("the database was not audited", reason=str(error))


def schedule_repair(
    scheduler: AsyncIOScheduler, repair: Callable[[], None], drained: Callable[[], bool], every_seconds: float
) -> None:
    """Look each `every_seconds` whether the queue has drained, and then let `repair` catch up.

    `drained` is asked on the event loop. The thread is one that nobody waits for at the end: a server that
    hangs does not keep the service from stopping, and what is not done stays remembered.
    """
    worker = Thread()

    async def look() -> None:
        nonlocal worker
        if drained() and not worker.is_alive():
            worker = Thread(target=repair, name="repair", daemon=True)
            worker.start()

    _add(scheduler, "repair", look, every_seconds)


def schedule_look(scheduler: AsyncIOScheduler, dead_letters: DeadLetters) -> None:
    """Look for dead letters at once and each 10 s, in a worker thread of the scheduler's event loop."""
    _add(scheduler, "dead letters", dead_letters.look, _LOOK_EVERY_SECONDS)
    scheduler.modify_job("dead letters", next_run_time=datetime.now(UTC))


def schedule_savings(scheduler: AsyncIOScheduler, daily: DailySavings) -> None:
    """Compute savings soon and then each hour, in a worker thread of the scheduler's event loop."""
    _add(scheduler, "savings", partial(_compute_savings, daily), _SAVINGS_EVERY_SECONDS)
    first = datetime.now(UTC) + timedelta(seconds=_FIRST_SAVINGS_AFTER_SECONDS)
    scheduler.modify_job("savings", next_run_time=first)


def _compute_savings(daily: DailySavings) -> None:
    """Yesterday and today, for energies that came late; an outage is the writer's to report."""
    today = daily.today(datetime.now(UTC))
    try:
        daily.compute(today - timedelta(days=1), today)
    except InfluxError as error:
        _log.debug("savings were not computed", reason=str(error))


def _add(scheduler: AsyncIOScheduler, name: str, job: Callable[[], object], every_seconds: float) -> None:
    """Plan a job, late rather than not at all, and once however many times it was missed."""
    scheduler.add_job(
        job,
        _Pause(every_seconds),
        id=name,
        coalesce=True,
        max_instances=1,
        misfire_grace_time=None,
        replace_existing=True,
    )
