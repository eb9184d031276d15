"""What is wrong, and how every part of the recorder is: for people, for Docker, for the page.

Takes the parts of the service and the age of each device's newest sample, gives sentences and figures.
Never changes anything, never waits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from recorder.influx.no_server import NoServer
from recorder.influx.sink import InfluxSink
from recorder.settings import Settings
from recorder.spool.durable import DurableQueue
from recorder.store.store import Store
from recorder.version import VERSION
from recorder.web.live import freshness
from recorder.web.service import Health

STALE_AFTER_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class SourceState:
    """A listener: its name, its site, what it counted and has open."""

    name: str
    site: str
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Facts:
    """The service at one moment; times are Unix seconds, ages by site and device in seconds."""

    settings: Settings
    started_s: float
    now_s: float
    ages: Mapping[tuple[str, str], float]
    sources: Sequence[SourceState]
    queue: DurableQueue
    influx: InfluxSink | NoServer
    store: Store


def problems_of(facts: Facts) -> tuple[str, ...]:
    """Tell what is wrong, and what to do about it."""
    influx = facts.influx
    problems = [
        f"{device} of {site}: no sample for {age:.0f} s; does the controller's script run and send here?"
        for (site, device), age in facts.ages.items()
        if age > STALE_AFTER_SECONDS
    ]
    undecidable = (source for source in facts.sources if source.figures.get("undecidable_buses"))
    problems += [_undecidable(source) for source in undecidable]
    problems += [text for text in (influx.problem, facts.queue.problem, facts.store.problem) if text]
    problems += influx.side_problems
    figures = influx.figures()
    # Without InfluxDB the oldest points are meant to go at the queue's bounds.
    if figures["dropped"] and influx.configured:
        problems.append(f"{figures['dropped']:.0f} points were dropped: the queue was full")
    if figures["damaged"]:
        problems.append(f"{figures['damaged']:.0f} points were lost by the queue's disk: check it")
    return tuple(problems)


def health_of(facts: Facts) -> Health:
    """Give the answer of `/healthz`."""
    influx = facts.influx
    return Health(
        problems_of(facts),
        {
            "sample_age_seconds": {f"{site}/{device}": age for (site, device), age in facts.ages.items()},
            "sources": {source.name: source.figures for source in facts.sources},
            "influxdb": {
                "state": influx.state,
                "set_up_problems": influx.set_up_problems,
                **influx.figures(),
                "late_range": influx.late_range,
                "owed": _owed(facts.store),
                "gaps": [asdict(gap) for gap in facts.queue.depth().gaps],
            },
        },
    )


def report_of(facts: Facts) -> dict[str, Any]:
    """Give the answer of `/api/v1/health`, but for those who look on."""
    influx, depth, store = facts.influx, facts.queue.depth(), facts.store
    figures = influx.figures()
    problems = problems_of(facts)
    names = ("written", "retries", "rejected", "dead_letters", "late_seconds", "backfills")
    return {
        "time": round(facts.now_s, 3),
        "healthy": not problems,
        "version": VERSION,
        "started": round(facts.started_s, 3),
        "site": facts.settings.site,
        "timezone": facts.settings.timezone,
        "problems": problems,
        "devices": [
            {"site": site, "device": device, **freshness(age)} for (site, device), age in facts.ages.items()
        ],
        "sources": [_source(source) for source in facts.sources],
        "queue": {
            "points": depth.points,
            "bytes": depth.nbytes,
            "oldest_age_seconds": round(depth.oldest_age_seconds, 3),
            "dropped": depth.dropped,
            "damaged": depth.damaged,
            "problem": facts.queue.problem,
            "gaps": [
                {"from": gap.first_at, "to": gap.last_at, "points": gap.points, "reason": gap.reason}
                for gap in depth.gaps
            ],
        },
        "influxdb": {
            "configured": influx.configured,
            "state": influx.state,
            "problem": influx.problem,
            "set_up_problems": influx.set_up_problems,
            **{name: figures[name] for name in names},
            "owed": _owed(store),
        },
        "store": {
            "problem": store.problem,
            "bytes": store.used_bytes,
            "since": store.since_s,
            "dropped_minutes": store.dropped_minutes,
        },
    }


def _owed(store: Store) -> dict[str, int] | None:
    """Give the time that was recorded without InfluxDB and is not in it yet."""
    owed = store.owed
    return None if owed is None else {"from": owed.first_s, "to": owed.last_s}


def _undecidable(source: SourceState) -> str:
    """Return what to do about a bus on which no response can be told from a late one."""
    withheld = source.figures.get("withheld_undecidable", 0)
    return (
        f"{source.name}: the responses to all polls of a bus look alike, so none is certainly that to its "
        f"request; {withheld:.0f} were withheld. Let its master poll a register of another length too, or set "
        "assume_in_step: true for this listener (docs/late-responses.md)"
    )


def _source(source: SourceState) -> dict[str, Any]:
    counts = dict(source.figures)
    connections, offset = counts.pop("connections", 0), counts.pop("clock_offset", 0.0)
    counts.pop("undecidable_buses", None)
    return {
        "name": source.name,
        "site": source.site,
        "connections": connections,
        "clock_offset_seconds": round(offset, 3),
        "counts": counts,
    }
