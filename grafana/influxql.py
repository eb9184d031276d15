"""InfluxQL as Grafana's InfluxDB data source takes it, and where the data of a range is.

Takes names of the data model, gives queries for panels, variables and annotations. Never talks to a server.

A panel reads as little as its range needs: each of its queries has a `Tier`, a condition on the interval that
Grafana chose for the plot. InfluxDB finds the condition of the other queries false before it reads a block.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef

DATA_SOURCE = DataSourceRef(type_val="influxdb", uid="ess-influxdb")

# With `:regex` a value is always escaped; without it Grafana leaves one that begins with a digit as it is.
OF_SITE_ALWAYS = '"site" =~ /^${site:regex}$/'
OF_SITE = f"{OF_SITE_ALWAYS} AND $timeFilter"
OF_DEVICE = f'"device" =~ /^${{device:regex}}$/ AND {OF_SITE}'
OF_METER = f'"device" =~ /^${{meter:regex}}$/ AND {OF_SITE}'
# Of points that stand for the interval after their time. Grafana's filter includes the end of the range: at
# 00:00 that would be the day after it.
INTERVALS = "$timeFilter AND time < ${__to}ms"
OF_INTERVALS = f"{OF_SITE_ALWAYS} AND {INTERVALS}"
# The local day that began in the last 24 hours, whatever range is chosen. The last hour of a day of 25 hours
# finds none.
TODAY = "time > now() - 24h"
OF_TODAY = f"{OF_SITE_ALWAYS} AND {TODAY}"

T = TypeVar("T")

_SECOND_MS, _MINUTE_MS, _HOUR_MS = 1000, 60_000, 3_600_000

# The retention of the shipped settings: older than that, a range is read from rollups however short it is.
RAW_DAYS, AVG10_DAYS = 90, 30


class Tier(NamedTuple):
    """Where to read while the interval of a plot is at least `from_ms` and below `below_ms`, both in ms.

    `source` is a measurement with its retention policy, `bucket` the length of a point in InfluxQL. With
    `within_days` the tier is for data that is at most so old, with `beyond_days` for older data.
    """

    source: str
    from_ms: int
    below_ms: int | None
    bucket: str = "$__interval"
    within_days: int | None = None
    beyond_days: int | None = None

    @property
    def condition(self) -> str:
        """What holds when the tier is the one to read."""
        parts = [f"$__interval_ms >= {self.from_ms}"] if self.from_ms else []
        parts += [f"$__interval_ms < {self.below_ms}"] if self.below_ms else []
        parts += [f"time >= now() - {self.within_days}d"] if self.within_days else []
        parts += [f"time < now() - {self.beyond_days}d"] if self.beyond_days else []
        return " AND ".join(parts)


def _kept(source: str, days: int, rollup: str, bounds_ms: tuple[int, int]) -> tuple[Tier, Tier]:
    """Return tiers of a source that is kept for `days`, and of the rollup that is left after that."""
    return (
        Tier(source, *bounds_ms, within_days=days),
        Tier(rollup, *bounds_ms, f"1{rollup[-2]}", beyond_days=days),
    )


def gauge_tiers(measurement: str) -> tuple[Tier, ...]:
    """Return the tiers of a measured value: samples, averages of ten samples, minutes, hours."""
    minutes = f'"rollups"."{measurement}_1m"'
    return (
        *_kept(f'"{measurement}"', RAW_DAYS, minutes, (0, 10 * _SECOND_MS)),
        *_kept(f'"avg10"."{measurement}_avg10"', AVG10_DAYS, minutes, (10 * _SECOND_MS, 20 * _SECOND_MS)),
        *rollup_tiers(measurement, 20 * _SECOND_MS),
    )


def average_tiers(measurement: str) -> tuple[Tier, ...]:
    """Return the tiers of averages of ten samples, and of rollups where those are too many or gone."""
    minutes = f'"rollups"."{measurement}_1m"'
    return (
        *_kept(f'"avg10"."{measurement}_avg10"', AVG10_DAYS, minutes, (0, _MINUTE_MS)),
        *rollup_tiers(measurement, _MINUTE_MS),
    )


def rollup_tiers(measurement: str, from_ms: int) -> tuple[Tier, ...]:
    """Return the tiers of minutes and hours, for intervals from `from_ms` on."""
    minutes, hours = f'"rollups"."{measurement}_1m"', f'"rollups"."{measurement}_1h"'
    # A bucket shorter than the data would be empty now and then: a gap that is none.
    short = (Tier(minutes, from_ms, _MINUTE_MS, "1m"),) if from_ms < _MINUTE_MS else ()
    return (
        *short,
        Tier(minutes, _MINUTE_MS, 15 * _MINUTE_MS),
        Tier(hours, 15 * _MINUTE_MS, _HOUR_MS, "1h"),
        Tier(hours, _HOUR_MS, None),
    )


def extreme_tiers(measurement: str) -> tuple[Tier, ...]:
    """The tiers of a least or greatest value: the rollups, which keep both."""
    return (
        Tier(f'"rollups"."{measurement}_1m"', 0, 15 * _MINUTE_MS),
        Tier(f'"rollups"."{measurement}_1h"', 15 * _MINUTE_MS, None),
    )


FLOW_SAMPLES = _kept('"flow"', RAW_DAYS, '"rollups"."flow_1m"', (0, 20 * _SECOND_MS))
FLOW_MINUTES = (
    Tier('"rollups"."flow_1m"', 20 * _SECOND_MS, _MINUTE_MS, "1m"),
    Tier('"rollups"."flow_1m"', _MINUTE_MS, 15 * _MINUTE_MS),
)
FLOW_QUARTERS = Tier('"rollups"."energy_15m"', 15 * _MINUTE_MS, 30 * _MINUTE_MS, "15m")
FLOW_HOURS = (
    Tier('"rollups"."flow_1h"', 30 * _MINUTE_MS, _HOUR_MS, "1h"),
    Tier('"rollups"."flow_1h"', _HOUR_MS, None),
)

ENERGY_HOURS, ENERGY_DAYS = '"rollups"."energy_1h"', '"rollups"."energy_1d"'

# Sums of energies: an edge of the range is met to a quarter of an hour, an hour or a day.
ENERGY_QUARTERS = Tier('"rollups"."energy_15m"', 0, 30 * _MINUTE_MS)
ENERGY_TIERS = (
    ENERGY_QUARTERS,
    Tier(ENERGY_HOURS, 30 * _MINUTE_MS, 12 * _HOUR_MS),
    Tier(ENERGY_DAYS, 12 * _HOUR_MS, None),
)

# The recorder's own figures: each ten seconds, then hours.
HEALTH_TIERS = (
    *_kept('"recorder"', RAW_DAYS, '"rollups"."recorder_1h"', (0, 5 * _MINUTE_MS)),
    Tier('"rollups"."recorder_1h"', 5 * _MINUTE_MS, _HOUR_MS, "1h"),
    Tier('"rollups"."recorder_1h"', _HOUR_MS, None),
)


class InfluxQL(Dataquery):
    """One InfluxQL query of a panel, as Grafana's InfluxDB data source reads it.

    `result_format` is "time_series", with one series a column named by `alias`, or "table".
    Source of the names: pkg/tsdb/influxdb/models/model_parser.go of Grafana.
    """

    def __init__(self, query: str, ref_id: str, result_format: str, alias: str) -> None:
        self.query = query
        self.ref_id = ref_id
        self.result_format = result_format
        self.alias = alias

    def to_json(self) -> dict[str, object]:
        """The query as a target of a panel."""
        return {
            "alias": self.alias,
            "datasource": DATA_SOURCE,
            "query": self.query,
            "rawQuery": True,
            "refId": self.ref_id,
            "resultFormat": self.result_format,
        }


class Ready(Builder[T]):
    """A finished value, where the library asks for its builder."""

    def __init__(self, value: T) -> None:
        self._value = value

    def build(self) -> T:
        """The value itself."""
        return self._value


class Target(Builder[Dataquery]):
    """Hands an `InfluxQL` to a panel of the builder library."""

    def __init__(
        self, query: str, ref_id: str = "A", result_format: str = "time_series", alias: str = "$col"
    ) -> None:
        self._query = InfluxQL(query, ref_id, result_format, alias)

    def build(self) -> Dataquery:
        """The query itself."""
        return self._query


def select(columns: Mapping[str, str], aggregate: str, source: str, *clauses: str) -> str:
    """The query for expressions by their names; `{of}` in them becomes the aggregate."""
    named = ", ".join(f'{value.format(of=aggregate)} AS "{name}"' for name, value in columns.items())
    return " ".join(("SELECT", named, "FROM", source, "WHERE", *clauses))


def select_from(rows: str, columns: str, *clauses: str) -> str:
    """The query for columns of the rows that another query gives."""
    return " ".join(("SELECT", columns, f"FROM ({rows})", "WHERE", *clauses))


def over_time(
    columns: Mapping[str, str], aggregate: str, tiers: Sequence[Tier], of: str, tags: str = ""
) -> list[str]:
    """Return the queries, one a tier, for a plot over time in which missing data is a gap.

    With `tags`, as `, "device"`, there is a series for each of their values.
    """
    return [
        select(
            columns,
            aggregate,
            tier.source,
            f"{tier.condition} AND",
            of,
            f"GROUP BY time({tier.bucket}){tags} fill(null)",
        )
        for tier in tiers
    ]


def up_to_now(columns: Mapping[str, str]) -> list[str]:
    """Return the queries for the energies of a range up to this moment, in parts that have to be added.

    The current quarter hour is not in `energy_15m` before its first five minutes are over. So quarter hours
    that began in the last 25 minutes are summed from the points of ten seconds that they consist of: all
    pieces of a quarter of an hour in these minutes but the first one, which is cut.
    """
    quarters, *longer = in_range(columns, "sum", ENERGY_TIERS, OF_INTERVALS)
    recent = "time > now() - 25m AND time < ${__to}ms"
    of_site = f"{ENERGY_QUARTERS.condition} AND {OF_SITE_ALWAYS} AND {recent}"
    pieces = select(columns, "sum", '"energy_10s"', of_site, "GROUP BY time(15m) fill(0) LIMIT 3 OFFSET 1")
    newest = select_from(pieces, ", ".join(f'sum("{name}") AS "{name}"' for name in columns), recent)
    return [f"{quarters} AND time <= now() - 25m", newest, *longer]


def in_range(columns: Mapping[str, str], aggregate: str, tiers: Sequence[Tier], of: str) -> list[str]:
    """The queries, one a tier, for one number of the chosen range."""
    return [select(columns, aggregate, tier.source, f"{tier.condition} AND", of) for tier in tiers]


def table(queries: Sequence[str]) -> list[Target]:
    """Return targets whose rows are those of a table."""
    return targets(queries, result_format="table")


def targets(
    queries: Sequence[str], first: str = "A", alias: str = "$col", result_format: str = "time_series"
) -> list[Target]:
    """Return targets named by letters from `first` on."""
    return [
        Target(query, chr(ord(first) + number), result_format, alias) for number, query in enumerate(queries)
    ]


def local_rows(columns: Mapping[str, str], source: str, tags: str = "") -> list[str]:
    """Return the query for a row for each local day or hour of `source`, with the moment at which it begins.

    Buckets of a day would begin at midnight UTC; those of 15 minutes keep the local midnight of each point.
    """
    return [select(columns, "sum", source, OF_INTERVALS, f"GROUP BY time(15m){tags} fill(none)")]
