"""What Grafana does with a query before it sends it, and with a rule when it has the answer.

Takes queries of the dashboard and a range, gives InfluxQL. Source: pkg/tsdb/influxdb/models/query.go for
macros, public/app/plugins/datasource/influxdb for variables (a value inside a regular expression is escaped).
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import yaml

_ESCAPED_BY_GRAFANA = re.compile(r"[\\^$*+?.()|\[\]{}/]")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_ROUND_SECONDS = (
    1,
    2,
    5,
    10,
    15,
    20,
    30,
    60,
    120,
    300,
    600,
    900,
    1200,
    1800,
    3600,
    7200,
    10_800,
    21_600,
    43_200,
)


class TimeRange(NamedTuple):
    """What the time picker says."""

    start: datetime
    end: datetime


def range_of(panel: Mapping[str, Any], end: datetime, chosen: timedelta) -> TimeRange:
    """The range of a panel: the chosen one, or its own where it has one."""
    return TimeRange(end - (_duration(panel["timeFrom"]) if "timeFrom" in panel else chosen), end)


def resolved(
    query: str, time_range: TimeRange, variables: Mapping[str, str], shortest_interval: str = "1s"
) -> str:
    """The statement that InfluxDB gets for a plot 1000 pixels wide."""
    start, end = (round(moment.timestamp() * 1000) for moment in time_range)
    span = (time_range.end - time_range.start).total_seconds() / 1000
    interval = max(
        next((seconds for seconds in _ROUND_SECONDS if seconds >= span), 86_400),
        round(_duration(shortest_interval).total_seconds()),
    )
    for name, value in variables.items():
        escaped = _ESCAPED_BY_GRAFANA.sub(lambda match: f"\\{match[0]}", value)
        query = query.replace(f"${name}", escaped)
    query = query.replace("$timeFilter", f"time >= {start}ms and time <= {end}ms")
    query = query.replace("$__interval_ms", str(interval * 1000))
    return query.replace("$__interval", f"{interval}s")


def firing(rule: Mapping[str, Any], answer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the rule's query for which its threshold holds; each series has one row."""
    (threshold,) = (item["model"] for item in rule["data"] if item["refId"] == rule["condition"])
    (condition,) = threshold["conditions"]
    evaluator = condition["evaluator"]
    assert evaluator["type"] == "gt"
    (limit,) = evaluator["params"]
    return [row for row in answer if row["age"] > limit]


def load_yaml(text: str) -> Any:
    """A provisioning file."""
    return yaml.safe_load(text)


def _duration(text: str) -> timedelta:
    return timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])
