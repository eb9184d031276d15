"""Jobs planned by a clock that may be set."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest

from recorder.influx.schedule import new_scheduler, schedule_audit
from tests.influx.plant import set_up
from tests.support.influxd import TIMEOUT_SECONDS, Influxd


async def test_runs_missed_since_1970_are_not_listed(tmp_path: Path) -> None:
    """After a run in 1970 the next one lies ahead of today: a clock that was set costs one step."""
    scheduler = new_scheduler()
    schedule_audit(scheduler, set_up(Influxd(tmp_path)), audit_every_seconds=300)
    today = datetime.now(UTC)
    assert (
        scheduler.get_job("audit").trigger.get_next_fire_time(datetime(1970, 1, 1, tzinfo=UTC), today) > today
    )


async def test_job_that_runs_at_the_end_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """A job whose thread works on when the scheduler is shut down ends by itself, and nothing is logged."""
    begun, may_end, ended = Event(), Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def job() -> None:
        begun.set()
        may_end.wait(TIMEOUT_SECONDS)
        loop.call_soon_threadsafe(ended.set)

    scheduler = new_scheduler()
    scheduler.start()
    scheduler.add_job(job)
    await asyncio.to_thread(begun.wait, TIMEOUT_SECONDS)
    scheduler.shutdown(wait=False)
    may_end.set()
    await asyncio.wait_for(ended.wait(), TIMEOUT_SECONDS)
    await loop.shutdown_default_executor()
    await asyncio.sleep(0)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
