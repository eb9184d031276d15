"""Jobs planned by a clock that may be set."""

from datetime import UTC, datetime
from pathlib import Path

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from recorder.influx.schedule import schedule_audit
from tests.influx.plant import set_up
from tests.support.influxd import Influxd


async def test_runs_missed_since_1970_are_not_listed(tmp_path: Path) -> None:
    """After a run in 1970 the next one lies ahead of today: a clock that was set costs one step."""
    scheduler = AsyncIOScheduler(timezone=UTC)
    schedule_audit(scheduler, set_up(Influxd(tmp_path)), audit_every_seconds=300)
    today = datetime.now(UTC)
    assert (
        scheduler.get_job("audit").trigger.get_next_fire_time(datetime(1970, 1, 1, tzinfo=UTC), today) > today
    )
