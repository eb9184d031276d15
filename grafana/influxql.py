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
OF_SITE = '"site" =~ /^${site:regex}$/ AND $timeFilter'
OF_DEVICE = f'"device" =~ /^${{device:regex}}$/ AND {OF_SITE}'
OF_METER = f'"device" =~ /^${{meter:regex}}$/ AND {OF_SITE}'

T = TypeVar("T")

_SECOND_MS, _MINUTE_MS, _HOUR_MS = 1000, 60_000, 3_600_000


class Tier(NamedTuple):
    """Where to read while the interval of a plot is at least `from_ms` and below `below_ms`, both in ms.

    `source` is a measurement with its retention policy, `bucket` the length of a point in InfluxQL.
    """

    source: str
    from_ms: int
    below_ms: int | None
    bucket: str = "$__interval"

    @property
    def condition(self) -> str:
        """What holds when the tier is the one to read."""
        parts = [f"$__interval_ms >= {self.from_ms}"] if self.from_ms else []
        parts += [f"$__interval_ms < {self.below_ms}"] if self.below_ms else []
        return " AND ".join(parts)


def gauge_tiers(measurement: str) -> tuple[Tier, ...]:
    """The tiers of a measured value: samples, averages of ten samples, minutes, hours."""
    minutes, hours = f'"rollups"."{measurement}_1m"', f'"rollups"."{measurement}_1h"'
    return (
        Tier(f'"{measurement}"', 0, 10 * _SECOND_MS),
        Tier(f'"avg10"."{measurement}_avg10"', 10 * _SECOND_MS, 20 * _SECOND_MS),
        # A bucket shorter than the data would be empty now and then: a gap that is none.
        Tier(minutes, 20 * _SECOND_MS, _MINUTE_MS, "1m"),
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


FLOW_SAMPLES = Tier('"flow"', 0, 20 * _SECOND_MS)
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
ENERGY_TIERS = (
    Tier('"rollups"."energy_15m"', 0, 30 * _MINUTE_MS),
    Tier(ENERGY_HOURS, 30 * _MINUTE_MS, 12 * _HOUR_MS),
    Tier(ENERGY_DAYS, 12 * _HOUR_MS, None),
)

# The recorder's own figures: each ten seconds, then hours.
HEALTH_TIERS = (
    Tier('"recorder"', 0, 5 * _MINUTE_MS),
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


def over_time(columns: Mapping[str, str], aggregate: str, tiers: Sequence[Tier], of: str) -> list[str]:
    """The queries, one a tier, for a plot over time in which missing data is a gap."""
    return [
        select(
            columns,
            aggregate,
            tier.source,
            f"{tier.condition} AND",
            of,
            f"GROUP BY time({tier.bucket}) fill(null)",
        )
        for tier in tiers
    ]


def in_range(columns: Mapping[str, str], aggregate: str, tiers: Sequence[Tier], of: str) -> list[str]:
    """The queries, one a tier, for one number of the chosen range."""
    return [select(columns, aggregate, tier.source, f"{tier.condition} AND", of) for tier in tiers]


def targets(
    queries: Sequence[str], first: str = "A", alias: str = "$col", table: bool = False
) -> list[Target]:
    """Targets named by letters from `first` on."""
    result_format = "table" if table else "time_series"
    return [
        Target(query, chr(ord(first) + number), result_format, alias) for number, query in enumerate(queries)
    ]


def local_rows(columns: Mapping[str, str], source: str) -> list[Target]:
    """One row for each local day or hour that `source` has, with the moment at which it begins, as a table.

    Buckets of a day would begin at midnight UTC; those of 15 minutes keep the local midnight of each point.
    """
    each = "GROUP BY time(15m) fill(none)"
    return [Target(select(columns, "sum", source, OF_SITE, each), result_format="table")]
