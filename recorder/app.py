"""The stages joined into the service: the one file that knows them all.

Takes settings and profiles, gives the `Recorder`.

    listener ─► pipeline ─► points ─► lines ─► queue ─► writer ─► InfluxDB
                              └─► observers

Nothing on the left waits for anything on the right: between them is the queue.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Final

import structlog

from recorder.expected_devices import ExpectedDevices
from recorder.health import ClockStep, Facts, SourceState, health_of, report_of
from recorder.influx.influxql import parse_duration
from recorder.influx.sink import open_sink
from recorder.pipeline import Pipeline, Shared
from recorder.points.clock import Sender
from recorder.points.duplicates import DeviceOwners
from recorder.points.health import (
    clock_point,
    sample_age_point,
    source_point,
    start_point,
    writer_point,
)
from recorder.points.point import Point
from recorder.points.site import Site
from recorder.profiles.catalogue import Catalogue
from recorder.profiles.model import Profile
from recorder.roles import devices_of, role_problems
from recorder.settings import ListenerSettings, Settings
from recorder.sources.sites import SiteMap
from recorder.sources.strace_tcp import ListenerOptions, StraceTcpListener
from recorder.spool.durable import DurableQueue, Limits
from recorder.store.clock_offsets import ClockOffsets
from recorder.store.store import Store, StoreLimits
from recorder.tariffs.model import Tariffs
from recorder.web.service import Health, WebService

Publish = Callable[[Sequence[Point]], None]

HEALTH_EVERY_SECONDS: Final = 10.0
STOP_WITHIN_SECONDS: Final = 8.0
_EXPIRE_EVERY_SECONDS: Final = 1.0
# A clock that is slewed moves by less between two looks at it.
_CLOCK_STEP_NS: Final = 10**9 // 2
_MOST_SENDERS: Final = 16_384
# An inverter at dusk delivers a sample now and then; the longest night between the polar circles is shorter.
_ASLEEP_AFTER_SECONDS: Final = 60.0
_LONGEST_NIGHT_SECONDS: Final = 72_000.0

log = structlog.get_logger(__name__)


class _Stream:
    """One connection: its pipeline, and where its points go."""

    def __init__(
        self,
        source: "_Source",
        site: str,
        pipeline: Pipeline,
        publish: Publish,
        look_at_clock: Callable[[int], None],
    ) -> None:
        self._source = source
        self._publish = publish
        self._look_at_clock = look_at_clock
        self.site = site
        self.pipeline = pipeline

    @property
    def useful(self) -> bool:
        return self.pipeline.counts["frames"] > 0

    def feed(self, chunk: bytes, received_at_ns: int) -> None:
        self._look_at_clock(received_at_ns)
        self._publish(self.pipeline.feed(chunk, received_at_ns))

    def expire(self, now_ns: int) -> None:
        self._publish(self.pipeline.expire(now_ns))

    def finish(self) -> None:
        self._publish(self.pipeline.finish())
        self._source.streams.discard(self)
        self._source.counts.update(self.pipeline.counts)


@dataclass(slots=True)
class _Source:
    """A listener with the streams that it has open and the counts of those that are gone.

    `site` is that of its own figures; each stream has its own.
    """

    site: str
    listener: StraceTcpListener
    streams: set[_Stream] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def expected_sites(self) -> set[str]:
        """The sites that should send here: of a port that is shared, those that do."""
        if self.listener.options.reuse_port:
            return {stream.site for stream in self.streams}
        return set(self.listener.options.sites.names)

    def figures(self) -> dict[str, float]:
        """Give what this source counted since the start, and what it has open now."""
        totals = Counter(self.counts)
        for stream in self.streams:
            totals.update(stream.pipeline.counts)
        offsets = [stream.pipeline.clock_offset_seconds for stream in self.streams]
        return {
            **totals,
            **{f"connections_{outcome}": count for outcome, count in self.listener.counts.items()},
            "connections": self.listener.connections,
            "undecidable_buses": sum(stream.pipeline.undecidable_buses for stream in self.streams),
            "clock_offset": max(offsets, key=abs, default=0.0),
        }


class Recorder:
    """The service: listeners, pipelines, queue, writer, set-up and health, from start to stop.

    Args:
        settings: what the owner set.
        profiles: the devices that streams may carry.
        observe: called with every batch of points as it is made, on the event loop; must not wait.
        tariffs: what energy costs, where savings are to be computed.
    """

    def __init__(
        self,
        settings: Settings,
        profiles: Sequence[Profile],
        observe: Publish | None = None,
        tariffs: Tariffs | None = None,
    ) -> None:
        self._settings = settings
        self._catalogue = Catalogue(profiles)
        self._observe = observe
        self._measurements = frozenset(profile.measurement for profile in profiles)
        self._started_ns = time.time_ns()
        self._sites: dict[str, Site] = {}
        self._unnamed_sites: list[str] = []
        self._ahead_ns = self._started_ns - _monotonic_ns()
        self._clock_steps = 0
        self._clock_step: ClockStep | None = None
        self._owners: dict[str, DeviceOwners] = {}
        self._senders: dict[tuple[str, str, str], Sender] = {}
        self._offsets = ClockOffsets(settings.data_dir)
        self._newest_ns: dict[tuple[str, str], int] = {}
        self._expected = ExpectedDevices(settings, profiles)
        self._role_problems = tuple(role_problems(settings, profiles))
        self._sources = [self._source(listener) for listener in settings.listeners]
        self._housekeeping: asyncio.Task[None] | None = None
        self.queue = _queue_of(settings)
        self._store = _store_of(settings, profiles)
        self.influx = open_sink(settings, profiles, self.queue, self._store, tariffs)
        self._web = WebService(settings, profiles, self._store, self.health, lambda: report_of(self._facts()))

    @property
    def ports(self) -> dict[str, int]:
        """Give the TCP port of each listener by name, and of `http`; known once started."""
        listeners = [source.listener for source in self._sources]
        ports = {listener.options.name: listener.port for listener in listeners}
        return {**ports, "http": self._web.port}

    async def start(self) -> None:
        """Listen, and begin to write.

        Raises:
            QueueLocked: another recorder uses the queue.
            OSError: an address cannot be bound; nothing is left open.
        """
        await asyncio.to_thread(self.queue.open)
        # Before the first sample, so that what counters gained since the last run is known.
        await asyncio.to_thread(self._store.start)
        stored = await asyncio.to_thread(self._store.series)
        self._expected.learn(stored)
        self._unnamed_sites = sorted({key.site for key in stored} - self._settings.site_names)
        await asyncio.to_thread(self._offsets.load)
        try:
            await self._web.start()
            for source in self._sources:
                await source.listener.start()
        except OSError:
            await self._close_doors()
            await asyncio.to_thread(self._store.close)
            await asyncio.to_thread(self.queue.close)
            raise
        self.queue.start()
        self.influx.start()
        self._publish([start_point(self._settings.site, time.time_ns())])
        self._housekeeping = asyncio.create_task(self._keep_house(), name="housekeeping")

    async def stop(self) -> None:
        """Stop reading, then write what waits, within `STOP_WITHIN_SECONDS`."""
        await self._close_doors()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._housekeeping
        for site in self._sites.values():
            self._publish(site.finish())
        await asyncio.to_thread(self._offsets.save)
        await self.influx.stop(STOP_WITHIN_SECONDS)
        await asyncio.to_thread(self._store.close)
        await asyncio.to_thread(self.queue.close)
        waiting = self.queue.depth().points
        if waiting and self.influx.configured:
            log.warning("stopped; points that InfluxDB did not take stay in the queue", points=waiting)

    def health(self) -> Health:
        """Tell what is wrong, and what to do about it."""
        return health_of(self._facts())

    def _facts(self) -> Facts:
        now_ns = time.time_ns()
        return Facts(
            settings=self._settings,
            started_s=self._started_ns / 1e9,
            now_s=now_ns / 1e9,
            clock_steps=self._clock_steps,
            clock_step=self._clock_step,
            ages=self._sample_ages(now_ns),
            sources=[
                SourceState(source.listener.options.name, source.site, source.figures())
                for source in self._sources
            ],
            role_problems=self._role_problems,
            queue=self.queue,
            influx=self.influx,
            store=self._store,
            unnamed_sites=self._unnamed_sites,
        )

    def _source(self, settings: ListenerSettings) -> _Source:
        own_site = settings.site or self._settings.site
        fallback = None if settings.sites and settings.site is None else own_site
        options = ListenerOptions(
            settings.name,
            settings.bind,
            settings.port,
            settings.allow,
            settings.max_connections,
            settings.idle_close_seconds,
            settings.first_frame_within_seconds,
            settings.max_bytes_per_second,
            SiteMap(settings.sites, fallback),
            settings.reuse_port,
        )

        def open_stream(site: str, address: str) -> _Stream:
            pipeline = Pipeline(
                self._catalogue,
                self._site(site),
                max_line_bytes=settings.max_line_bytes,
                clock_tolerance_seconds=self._settings.clock.tolerance_seconds,
                shared=Shared(
                    self._sender(site, address, settings.name),
                    self._owners.setdefault(site, DeviceOwners()),
                    self._offsets,
                ),
                assume_in_step=settings.assume_in_step,
            )
            stream = _Stream(source, site, pipeline, self._publish, self._look_at_clock)
            source.streams.add(stream)
            return stream

        source = _Source(own_site, StraceTcpListener(options, open_stream))
        return source

    def _site(self, name: str) -> Site:
        """Return a site, whose counters continue where an earlier run ended."""
        site = self._sites.get(name)
        if site is None:
            profiles = devices_of(self._settings, self._catalogue.profiles, name)
            site = self._sites[name] = Site(name, profiles, self._settings.flow.meter_max_age_seconds)
            for profile in profiles:
                readings = self._store.last_readings(name, profile, self._settings.site_names)
                site.start_counters(profile.device, readings)
            self._publish(site.continue_energies(self._store.energies_until_s(name), time.time_ns()))
        return site

    def _sender(self, site: str, address: str, listener: str) -> Sender:
        """Return what is known of the clock of a sender; of too many those are forgotten that came first."""
        key = (site, address, listener)
        sender = self._senders.pop(key, None) or Sender()
        if len(self._senders) >= _MOST_SENDERS:
            del self._senders[next(iter(self._senders))]
        self._senders[key] = sender
        return sender

    def _look_at_clock(self, now_ns: int) -> None:
        """Notice that our own clock was set, before anything is compared with it."""
        was_ahead_ns, self._ahead_ns = self._ahead_ns, now_ns - _monotonic_ns()
        by_ns = self._ahead_ns - was_ahead_ns
        if abs(by_ns) > _CLOCK_STEP_NS:
            self._clock_was_set(by_ns, now_ns)

    def _clock_was_set(self, by_ns: int, now_ns: int) -> None:
        """Go on by the new time: what is remembered by the old one is moved to the new one."""
        log.warning("the clock was set", by_seconds=round(by_ns / 1e9, 1))
        self._clock_steps += 1
        self._clock_step = ClockStep(now_ns / 1e9, by_ns / 1e9)
        self._started_ns += by_ns
        self._newest_ns = {key: time_ns + by_ns for key, time_ns in self._newest_ns.items()}
        for sender in self._senders.values():
            sender.clock_was_set(by_ns)
        for source in self._sources:
            for stream in source.streams:
                stream.pipeline.clock_was_set(by_ns)
        for site in self._sites.values():
            site.clock_was_set(by_ns)
        for owners in self._owners.values():
            owners.clock_was_set(by_ns)
        self._store.clock_was_set(by_ns / 1e9)
        self._web.clock_was_set(by_ns / 1e9)
        self.influx.clock_was_set()
        self._publish([clock_point(self._settings.site, by_ns / 1e9, now_ns)])

    def _publish(self, points: Sequence[Point]) -> None:
        if not points:
            return
        self.influx.append(points)
        self._store.observe(points)
        self._web.publish(points)
        for point in points:
            tags = dict(point.tags)
            if point.measurement in self._measurements and point.time_ns is not None:
                self._newest_ns[tags["site"], tags["device"]] = point.time_ns
        if self._observe is not None:
            self._observe(points)

    def _sample_ages(self, now_ns: int) -> dict[tuple[str, str], float]:
        """Return the seconds since the newest sample of each expected device, or since the start.

        An inverter that may be off is not missed before the longest night is over.
        """
        sites = sorted(set().union(*(source.expected_sites for source in self._sources)))
        ages = {
            (site, device): max(0, now_ns - self._newest_ns.get((site, device), self._started_ns)) / 1e9
            for site, device in self._expected.among(sites, self._newest_ns)
        }
        return {
            (site, device): age
            for (site, device), age in ages.items()
            if not _ASLEEP_AFTER_SECONDS < age < _LONGEST_NIGHT_SECONDS
            or not (site in self._sites and self._sites[site].may_be_asleep(device))
        }

    async def _keep_house(self) -> None:
        next_health = time.monotonic() + HEALTH_EVERY_SECONDS
        while True:
            await asyncio.sleep(_EXPIRE_EVERY_SECONDS)
            now_ns = time.time_ns()
            self._look_at_clock(now_ns)
            await asyncio.to_thread(self._offsets.save)
            for source in self._sources:
                for stream in tuple(source.streams):
                    stream.expire(now_ns)
            if time.monotonic() >= next_health:
                next_health += HEALTH_EVERY_SECONDS
                self._publish(self._health_points(now_ns))

    def _health_points(self, now_ns: int) -> list[Point]:
        ages = self._sample_ages(now_ns).items()
        sources = [(source.site, source.listener.options.name, source.figures()) for source in self._sources]
        return [
            *(sample_age_point(site, device, age, now_ns) for (site, device), age in ages),
            *(source_point(site, name, figures, now_ns) for site, name, figures in sources),
            writer_point(self._settings.site, self.influx.figures(), now_ns),
        ]

    async def _close_doors(self) -> None:
        for source in self._sources:
            await source.listener.close()
        await self._web.close()


def _monotonic_ns() -> int:
    """Return a time that goes on while the machine sleeps: waking up does not set the clock."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _queue_of(settings: Settings) -> DurableQueue:
    queue = settings.queue
    limits = Limits(
        max_bytes=queue.max_bytes,
        max_age_seconds=_seconds(queue.max_age),
        max_memory_bytes=queue.max_memory_bytes,
        commit_interval_seconds=queue.commit_interval_seconds,
    )
    return DurableQueue(settings.data_dir / "queue", limits)


def _store_of(settings: Settings, profiles: Sequence[Profile]) -> Store:
    kept = settings.store
    durations = {"1m": kept.minutes, "15m": kept.quarter_hours, "1h": kept.hours, "1d": kept.days}
    limits = StoreLimits({name: _seconds(text) for name, text in durations.items()}, kept.max_bytes)
    return Store(settings.data_dir, limits, settings.timezone, profiles)


def _seconds(duration: str) -> float:
    return inf if duration == "inf" else parse_duration(duration).total_seconds()
