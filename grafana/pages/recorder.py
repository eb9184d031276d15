"""The dashboard "Recorder": what the bus, the queue, the writer and the continuous queries are doing.

Takes the names of the `recorder` measurement, gives the dashboard as a builder. Never writes a file.
"""

from grafana_foundation_sdk.builders import common, stat
from grafana_foundation_sdk.builders.dashboard import Dashboard

from grafana import panels as shared
from grafana.influxql import HEALTH_TIERS, OF_SITE, Target, Tier, select, select_from, targets
from grafana.panels import Panel, place

# Twice the time between two words of the recorder, so that one a little late is no gap.
_POINT = "20s"
_STALE = shared.Limits("green", (30, shared.WARNING), (120, shared.BAD))
_LATE = shared.Limits(shared.CLEAR, (30, shared.WARNING), (120, shared.BAD))
_EACH_SECOND = "suffix:/s"
_FEW = 5
_NONE_IS_GOOD = shared.Limits("green", (1, shared.BAD))
_FEW_ARE_GOOD = shared.Limits("green", (1, shared.WARNING), (60, shared.BAD))
_WRITER = f"\"source\" = 'writer' AND {OF_SITE}"
_SOURCES = f"\"source\" != 'writer' AND \"source\" != '' AND {OF_SITE}"


def dashboard() -> Dashboard:
    """The dashboard with all of its panels."""
    heading = shared.Heading(
        "recorder",
        "Recorder",
        "What the recorder says of itself.",
        ("now-24h", "now"),
        "10s",
        (shared.SITE,),
    )
    return shared.dashboard(heading, [*_sources(), *_writer(), *_queries()])


def _highest(name: str, field: str, of: str, tag: str = "") -> list[Target]:
    """The highest figure of each piece of time, and of each value of `tag`."""
    group = f', "{tag}"' if tag else ""
    queries = [
        select(
            {name: f'max("{field}")'},
            "",
            tier.source,
            f"{tier.condition} AND",
            of,
            f"GROUP BY time({tier.bucket}){group} fill(null)",
        )
        for tier in HEALTH_TIERS
    ]
    return targets(queries, alias=f"$tag_{tag}" if tag else "$col")


def _counted(name: str, field: str, of: str, tag: str = "") -> list[Target]:
    """What a counter gained; a restart, which sets them to 0, gains nothing.

    The outer query has a bucket for each piece of time, so that a gap is a gap.
    """
    group = f', "{tag}"' if tag else ""
    queries = [_gained(name, field, of, group, tier) for tier in HEALTH_TIERS]
    return targets(queries, alias=f"$tag_{tag}" if tag else "$col")


def _rate(name: str, field: str, of: str, alias: str) -> list[Target]:
    """How fast a counter of each source rises; from its points, as the newest bucket lacks some."""
    rising = {name: f'non_negative_derivative("{field}", 1s)'}
    queries = [
        select_from(
            select(rising, "", tier.source, f"{tier.condition} AND", of, 'GROUP BY "source"'),
            f'mean("{name}") AS "{name}"',
            "$timeFilter",
            f'GROUP BY time({tier.bucket}), "source" fill(null)',
        )
        for tier in HEALTH_TIERS
    ]
    return targets(queries, alias=alias)


def _gained(name: str, field: str, of: str, group: str, tier: Tier) -> str:
    gains = {name: f'non_negative_difference(last("{field}"))'}
    bucket = f"GROUP BY time({tier.bucket}){group}"
    inner = select(gains, "", tier.source, f"{tier.condition} AND", of, bucket)
    return select_from(inner, f'sum("{name}") AS "{name}"', "$timeFilter", bucket, "fill(null)")


def _sources() -> list[Panel]:
    ages = Target(
        select({"age": '{of}("sample_age")'}, "last", '"recorder"', OF_SITE, 'GROUP BY "device"'),
        alias="$tag_device",
    )
    errors = (
        (
            "CRC errors",
            "crc_errors",
            "Answers with a wrong CRC: noise on the bus, or bytes that strace lost.",
        ),
        ("Unanswered polls", "unanswered", "Requests that no device answered."),
        ("Lost samples", "lost_samples", "Samples that the device counted and the stream did not bring."),
        ("Resynchronisations", "resyncs", "Times that stray bytes stood before a frame."),
    )
    each = "A point is the gain of its piece of time, for each source. A gap is missing data."
    return [
        place(
            shared.live([ages], shared.by_limits()).decimals(0).no_value("No recorder"),
            (24, 5),
            "Age of the newest sample",
            "s",
            "For each device, by the recorder's own word of the last minute; orange from 30 s, red from 2"
            " minutes on.",
            _STALE,
        ),
        place(
            shared.with_limit_lines(shared.curves(_highest("Age", "sample_age", OF_SITE, "device"), _POINT)),
            (12, 9),
            "Sample age",
            "s",
            "The highest age of each piece of time, for each device. Lines at 30 s and 2 minutes."
            f" {shared.NEAR_LIMITS} {shared.GAP}",
            _LATE,
        ),
        place(
            shared.curves(_rate("Frames", "frames", _SOURCES, "$tag_source"), _POINT).axis_soft_min(0),
            (12, 9),
            "Rate of frames",
            _EACH_SECOND,
            f"Whole answers each second, for each source. {shared.GAP}",
        ),
        *(
            place(
                shared.curves(_counted(title, field, _SOURCES, "source"), "1m")
                .axis_soft_min(0)
                .axis_soft_max(_FEW),
                (12, 8),
                title,
                "short",
                f"{meaning} {each}",
                _FEW_ARE_GOOD,
            )
            for title, field, meaning in errors
        ),
    ]


def _writer() -> list[Panel]:
    newest = {
        "Dead letters": '{of}("dead_letters")',
        "Dropped": '{of}("dropped")',
        "Damaged": '{of}("damaged")',
        "Rejected": '{of}("rejected")',
    }
    lost = select(newest, "last", '"recorder"', _WRITER)
    return [
        place(
            shared.live([Target(lost)], shared.by_limits()),
            (24, 6),
            "Points that did not arrive",
            "short",
            "Since the recorder started: refused by InfluxDB (dead letters), dropped by a full queue,"
            " damaged on its"
            " disk, rejected by the queue. All should be 0; docs/queue.md says what to do.",
            _NONE_IS_GOOD,
        ),
        place(
            shared.curves(_highest("Points", "queue_points", _WRITER), _POINT),
            (8, 8),
            "Queue",
            "short",
            "The most points that waited for InfluxDB. It grows while InfluxDB is away, and drains after."
            f" {shared.GAP}",
        ),
        place(
            shared.curves(_highest("Bytes", "queue_bytes", _WRITER), _POINT),
            (8, 8),
            "Queue on disk",
            "bytes",
            f"The most that the queue took. {shared.GAP}",
        ),
        place(
            shared.with_limit_lines(shared.curves(_highest("Age", "queue_age", _WRITER), _POINT)),
            (8, 8),
            "Age of the queue",
            "s",
            f"How long the oldest point has waited; lines at 30 s and 2 minutes."
            f" {shared.NEAR_LIMITS} {shared.GAP}",
            _LATE,
        ),
        place(
            shared.curves(_rate("Written", "written", _WRITER, "$col"), _POINT).axis_soft_min(0),
            (12, 8),
            "Points written",
            _EACH_SECOND,
            f"Points that InfluxDB took, each second. {shared.GAP}",
        ),
        place(
            shared.curves(_counted("Retries", "retries", _WRITER), "1m").axis_soft_min(0).axis_soft_max(_FEW),
            (12, 8),
            "Retries",
            "short",
            f"Writes that had to be tried again. A point is the gain of its piece of time. {shared.GAP}",
            _FEW_ARE_GOOD,
        ),
    ]


def _queries() -> list[Panel]:
    return [
        place(
            _newest('"flow"', "home"),
            (6, 6),
            "Newest sample",
            "dateTimeFromNow",
            "When the newest energy balance was measured.",
        ),
        place(
            _newest('"avg10"."pcs_avg10"', "active_power"),
            (6, 6),
            "Newest average",
            "dateTimeFromNow",
            "The newest average of ten samples; the continuous query runs each second.",
        ),
        place(
            _newest('"rollups"."flow_1m"', "home"),
            (6, 6),
            "Newest minute",
            "dateTimeFromNow",
            "The newest minute of the rollups; the continuous query runs each minute.",
        ),
        place(
            _newest('"rollups"."energy_15m"', "home"),
            (6, 6),
            "Newest energy",
            "dateTimeFromNow",
            "The newest quarter of an hour of energies; the continuous query runs each five minutes.",
        ),
        place(
            shared.curves(_highest("Late", "late_seconds", _WRITER), _POINT),
            (12, 8),
            "Late range",
            "s",
            "The length of what the continuous queries missed and the recorder is about to compute again."
            f" {shared.GAP}",
            _FEW_ARE_GOOD,
        ),
        place(
            shared.curves(_counted("Repairs", "backfills", _WRITER), "1m")
            .axis_soft_min(0)
            .axis_soft_max(_FEW),
            (12, 8),
            "Repairs",
            "short",
            "Ranges that were computed again after an outage. A point is the gain of its piece of time."
            f" {shared.GAP}",
        ),
    ]


def _newest(source: str, field: str) -> stat.Panel:
    """How long ago the newest point was, which is its time and not its value."""
    query = select({"Newest": f'{{of}}("{field}")'}, "last", source, OF_SITE)
    panel = shared.number([Target(query, result_format="table")], shared.one_colour(shared.NEUTRAL))
    panel.no_value("None in the range")
    return panel.reduce_options(
        common.ReduceDataOptions().calcs(["lastNotNull"]).fields("Time").values(False)
    )
