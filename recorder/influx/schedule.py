"""The audit of the database, as a scheduled job.

Takes a scheduler and a `SetUp`, gives a job that repairs what others changed. Never runs twice at
once, and never makes up for missed runs.
"""

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from recorder.influx.errors import InfluxError
from recorder.influx.setup import SetUp

_log = structlog.get_logger(__name__)


def schedule_audit(scheduler: AsyncIOScheduler, setup: SetUp, audit_every_seconds: float) -> None:
    """Audit each `audit_every_seconds`, in a worker thread of the scheduler's event loop."""
    scheduler.add_job(
        _audit,
        "interval",
        args=(setup,),
        seconds=audit_every_seconds,
        id="audit",
        coalesce=True,
        max_instances=1,
        misfire_grace_time=None,
        replace_existing=True,
    )


def _audit(setup: SetUp) -> None:
    """One audit; an outage is the writer's to report."""
    try:
        setup.audit()
    except InfluxError as error:
        _log.debug("the database was not audited", reason=str(error))
