"""What Prometheus scrapes: the newest samples in base units, and the recorder's own figures.

Takes profiles, the newest points and the health report, gives the text format. Never keeps a state of
its own, and leaves out what is stale: a gap is a gap, and no straight line.

A field's metric is `ess_MEASUREMENT_FIELD_UNIT`: power in watts, energy counters in joules, % as a ratio.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from recorder.counts import MEANINGS
from recorder.points.flow import FLOW_FIELDS
from recorder.profiles.model import Profile
from recorder.web.live import Live, freshness

# What a unit of ours is in Prometheus' base units: its name there, and the factor.
_BASE_UNITS: Final = {
    "W": ("watts", 1.0),
    "V": ("volts", 1.0),
    "A": ("amperes", 1.0),
    "Hz": ("hertz", 1.0),
    "degC": ("celsius", 1.0),
    "%": ("ratio", 0.01),
    "kWh": ("joules", 3_600_000.0),
    "s": ("seconds", 1.0),
}
_SERIES_LABELS: Final = ("site", "device")


class _Field(NamedTuple):
    """One field of a measurement, as Prometheus has it."""

    name: str
    help: str
    factor: float
    is_counter: bool


class RecorderCollector(Collector):
    """Gives every metric at each scrape.

    Args:
        profiles: the devices, for units and kinds of their fields.
        live: the newest points.
        report: gives the answer of `/api/v1/health`.
        now: gives Unix seconds.
    """

    def __init__(
        self,
        profiles: Sequence[Profile],
        live: Live,
        report: Callable[[], Mapping[str, Any]],
        now: Callable[[], float],
    ) -> None:
        self._fields = _fields_of(profiles)
        self._live = live
        self._report = report
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Give the metrics of this moment."""
        yield from self._samples()
        yield from _own(self._report())

    def _samples(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for point in self._live.points():
            if freshness(self._now() - point["time"])["stale"]:
                continue
            labels = [point["site"], point["device"]]
            for name, value in point["fields"].items():
                field = self._fields.get((point["measurement"], name))
                if field is None:
                    continue
                family = families.get(field.name)
                if family is None:
                    kind = CounterMetricFamily if field.is_counter else GaugeMetricFamily
                    family = families[field.name] = kind(field.name, field.help, labels=_SERIES_LABELS)
                family.add_metric(labels, value * field.factor)
        yield from families.values()


def registry_of(collector: RecorderCollector) -> CollectorRegistry:
    """Give a registry that holds this collector and nothing else."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return registry


def text_of_metrics(registry: CollectorRegistry) -> bytes:
    """Give the text format."""
    return generate_latest(registry)


def _fields_of(profiles: Sequence[Profile]) -> dict[tuple[str, str], _Field]:
    fields = {
        ("flow", name): _Field(
            f"ess_flow_{name}_watts", "Part of the energy flow, power", 1.0, is_counter=False
        )
        for name in FLOW_FIELDS
    }
    for profile in profiles:
        for one in profile.fields:
            unit, factor = _BASE_UNITS.get(one.unit, ("", 1.0))
            name = "_".join(part for part in ("ess", profile.measurement, one.name, unit) if part)
            text = one.description or f"{one.name} of {profile.measurement}"
            fields[profile.measurement, one.name] = _Field(name, text, factor, one.kind == "counter")
    return fields


def _own(report: Mapping[str, Any]) -> Iterator[Metric]:
    """Give what the recorder tells of itself."""
    yield GaugeMetricFamily("ess_recorder_healthy", "Whether nothing is wrong", report["healthy"])
    info = GaugeMetricFamily("ess_recorder_build_info", "The recorder's version", labels=["version"])
    info.add_metric([report["version"]], 1)
    yield info
    yield GaugeMetricFamily("ess_recorder_start_time_seconds", "Start, Unix time", report["started"])
    ages = GaugeMetricFamily(
        "ess_recorder_sample_age_seconds", "Age of each device's newest sample", labels=_SERIES_LABELS
    )
    for device in report["devices"]:
        ages.add_metric([device["site"], device["device"]], device["age_seconds"])
    yield ages
    yield CounterMetricFamily(
        "ess_recorder_clock_steps", "Times that the recorder's own clock was set", report["clock"]["steps"]
    )
    yield from _sources(report["sources"])
    queue, influxdb, store, clients = (report[name] for name in ("queue", "influxdb", "store", "clients"))
    for name, text, value in (
        ("queue_points", "Points that wait for InfluxDB", queue["points"]),
        ("queue_bytes", "Size of the points that wait", queue["bytes"]),
        ("queue_oldest_age_seconds", "How long the oldest point has waited", queue["oldest_age_seconds"]),
        ("late_seconds", "Time whose averages are still to be computed again", influxdb["late_seconds"]),
        ("influxdb_writing", "Whether InfluxDB takes points", influxdb["state"] == "writing"),
        ("store_bytes", "Size of the recorder's own history", store["bytes"]),
        ("event_streams", "Clients on the event stream", clients["events"]),
    ):
        yield GaugeMetricFamily(f"ess_recorder_{name}", text, value)
    for name, text, value in (
        ("points_written", "Points that InfluxDB took", influxdb["written"]),
        ("points_rejected", "Points that InfluxDB refused", influxdb["rejected"]),
        ("dead_letters", "Refused points kept beside the queue", influxdb["dead_letters"]),
        ("write_retries", "Writes to InfluxDB that were repeated", influxdb["retries"]),
        ("backfills", "Times that averages were computed again", influxdb["backfills"]),
        ("points_dropped", "Points that left the queue unwritten, by age or size", queue["dropped"]),
        ("points_damaged", "Points that the queue's disk lost", queue["damaged"]),
        ("event_streams_dropped", "Clients that read too slowly", clients["dropped"]),
    ):
        yield CounterMetricFamily(f"ess_recorder_{name}", text, value)


def _sources(sources: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    labels = ("source", "site")
    connections = GaugeMetricFamily("ess_recorder_connections", "Streams that are open", labels=labels)
    offsets = GaugeMetricFamily(
        "ess_recorder_clock_offset_seconds", "What is added to the controller's stamps", labels=labels
    )
    events = CounterMetricFamily(
        "ess_recorder_source_events", "What was seen in a source's text, by kind", labels=[*labels, "event"]
    )
    for source in sources:
        place = [source["name"], source["site"]]
        connections.add_metric(place, source["connections"])
        offsets.add_metric(place, source["clock_offset_seconds"])
        for name in sorted({*MEANINGS, *source["counts"]}):
            events.add_metric([*place, name], source["counts"].get(name, 0))
    yield from (connections, offsets, events)
