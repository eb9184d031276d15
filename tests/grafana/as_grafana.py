"""What Grafana does with a query before it sends it, and with rows before it plots them.

Takes queries and panels of the dashboards, a range and chosen variables, gives InfluxQL and what is shown.
Shares no code with the dashboards. Sources, in Grafana's repository:

- macros: pkg/tsdb/influxdb/models/query.go
- variables: public/app/plugins/datasource/influxdb/datasource.ts (`interpolateQueryExpr`), format registry
- the interval: packages/grafana-data/src/datetime/rangeutil.ts (`calculateInterval`, `roundInterval`)
- transformations: packages/grafana-data/src/transformations and public/app/features/transformers
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

Row = dict[str, Any]

PIXELS = 1000
_ESCAPED = re.compile(r"[\\^$*+?.()|\[\]{}/]")
_NUMBER = re.compile(r"\s*[-+]?(\d|\.\d)")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "y": 365 * 86_400_000}
# Below the first, an interval is rounded to the second, ms.
_ROUNDED = (
    (1500, 1000), (3500, 2000), (7500, 5000), (12_500, 10_000), (17_500, 15_000), (25_000, 20_000),
    (45_000, 30_000), (90_000, 60_000), (210_000, 120_000), (450_000, 300_000), (750_000, 600_000),
    (1_050_000, 900_000), (1_500_000, 1_200_000), (2_700_000, 1_800_000), (5_400_000, 3_600_000),
    (9_000_000, 7_200_000), (16_200_000, 10_800_000), (32_400_000, 21_600_000), (86_400_000, 43_200_000),
    (604_800_000, 86_400_000), (1_814_400_000, 604_800_000), (3_628_800_000, 2_592_000_000),
)  # fmt: skip
_SOURCE_INTERVAL_MS = 1000
_CODES = {"YYYY": "%Y", "MM": "%m", "DD": "%d", "HH": "%H"}
_MOMENT = re.compile("|".join(_CODES))


class TimeRange(NamedTuple):
    """What the time picker says."""

    start: datetime
    end: datetime


def range_of(panel: Mapping[str, Any], chosen: TimeRange, zone: ZoneInfo) -> TimeRange:
    """The range of a panel when the picker shows a relative one: its own where it has one, then shifted."""
    start, end = chosen
    if "timeFrom" in panel:
        start = _start(panel["timeFrom"], end.astimezone(zone))
    if "timeShift" in panel:
        assert panel["timeShift"] == "1y"
        start, end = (_year_before(at.astimezone(zone)) for at in (start, end))
    return TimeRange(start, end)


def interval_ms(panel: Mapping[str, Any], time_range: TimeRange, pixels: int = PIXELS) -> int:
    """The length of a point of a panel so many pixels wide, in ms."""
    points = panel.get("maxDataPoints", pixels)
    span_ms = (time_range.end - time_range.start).total_seconds() * 1000 / points
    rounded = next((to for below, to in _ROUNDED if span_ms < below), 31_536_000_000)
    least = _milliseconds(panel["interval"]) if "interval" in panel else _SOURCE_INTERVAL_MS
    return max(rounded, least)


def resolved(
    query: str, time_range: TimeRange, variables: Mapping[str, str], milliseconds: int = 60_000
) -> str:
    """The statement that InfluxDB gets."""
    start, end = (round(moment.timestamp() * 1000) for moment in time_range)
    query = query.replace("${__from}", str(start)).replace("${__to}", str(end))
    for name, value in variables.items():
        query = query.replace(f"${{{name}:regex}}", _escaped(value))
        pattern = re.compile(rf"\$\{{{name}\}}|\${name}\b")
        in_regex = re.search(rf"=~\s*/\^?(\${{{name}}}|\${name})\$?/", query)
        plain = _escaped(value) if in_regex and not _NUMBER.match(value) else value
        query = plain.join(pattern.split(query))
    query = query.replace("$timeFilter", f"time >= {start}ms and time <= {end}ms")
    query = query.replace("$__interval_ms", str(milliseconds))
    return query.replace("$__interval", f"{milliseconds}ms")


def transformed(panel: Mapping[str, Any], rows: Sequence[Row], zone: ZoneInfo) -> list[Row]:
    """The rows of a table after the panel's transformations; `time` in ns becomes `Time`."""
    table = [
        {"Time": row["time"], **{k: v for k, v in row.items() if k not in {"time", "name"}}} for row in rows
    ]
    for step in panel.get("transformations", []):
        table = _TRANSFORMATIONS[step["id"]](table, step["options"], zone)
    return table


def _escaped(value: str) -> str:
    return _ESCAPED.sub(lambda match: f"\\{match[0]}", value)


def _year_before(at: datetime) -> datetime:
    leap_day = (at.month, at.day) == (2, 29)
    return at.replace(year=at.year - 1, day=28 if leap_day else at.day)


def _milliseconds(text: str) -> int:
    return int(text[:-1]) * _UNIT_MS[text[-1]]


def _start(time_from: str, end: datetime) -> datetime:
    midnight = end.replace(hour=0, minute=0, second=0, microsecond=0)
    begins = {"now/d": midnight, "now/M": midnight.replace(day=1), "now/y": midnight.replace(month=1, day=1)}
    return begins.get(time_from) or end.astimezone(UTC) - timedelta(milliseconds=_milliseconds(time_from))


def _format_time(table: list[Row], options: Row, zone: ZoneInfo) -> list[Row]:
    """moment.js: text in brackets stays, the other letters are replaced."""
    assert options["useTimezone"]
    pieces = re.split(r"\[(.*?)\]", options["outputFormat"])

    def shown(time_ns: int) -> str:
        local = datetime.fromtimestamp(time_ns / 1e9, UTC).astimezone(zone)
        text = ""
        for number, piece in enumerate(pieces):
            text += (
                piece if number % 2 else _MOMENT.sub(lambda token: local.strftime(_CODES[token[0]]), piece)
            )
        return text

    return [{**row, options["timeField"]: shown(row[options["timeField"]])} for row in table]


def _group_by(table: list[Row], options: Row, _zone: ZoneInfo) -> list[Row]:
    fields = options["fields"]
    (key,) = (name for name, field in fields.items() if field["operation"] == "groupby")
    sums = [name for name, field in fields.items() if field["aggregations"] == ["sum"]]
    groups: dict[Any, Row] = {}
    for row in table:
        group = groups.setdefault(row[key], {key: row[key], **{f"{name} (sum)": 0.0 for name in sums}})
        for name in sums:
            group[f"{name} (sum)"] += row[name] or 0.0
    return list(groups.values())


def _reduce(table: list[Row], options: Row, _zone: ZoneInfo) -> list[Row]:
    """A row for each column of each row: what `table` holds of several queries with one number each."""
    assert (options["reducers"], options["mode"]) == (["lastNotNull"], "seriesToRows")
    return [
        {"Field": name, "Last *": value} for row in table for name, value in row.items() if name != "Time"
    ]


def _rows_to_fields(table: list[Row], _options: Row, _zone: ZoneInfo) -> list[Row]:
    """The first text of a row is the name, its first number the value."""
    return [{row["Field"]: row["Last * (sum)"] for row in table}]


def _calculate(table: list[Row], options: Row, _zone: ZoneInfo) -> list[Row]:
    assert (options["mode"], options["replaceFields"]) == ("binary", False)
    binary = options["binary"]
    assert (binary["operator"], binary["right"]) == ("*", "1")
    return [{**row, options["alias"]: row[binary["left"]]} for row in table]


def _rename(table: list[Row], options: Row, _zone: ZoneInfo) -> list[Row]:
    pattern, target = re.compile(options["regex"]), options["renamePattern"].replace("$1", r"\1")
    return [{pattern.sub(target, name): value for name, value in row.items()} for row in table]


def _extract(table: list[Row], options: Row, _zone: ZoneInfo) -> list[Row]:
    assert options["format"] == "kvp"
    return [{**row, **dict(part.split("=") for part in row[options["source"]].split())} for row in table]


def _matrix(table: list[Row], options: Row, _zone: ZoneInfo) -> list[Row]:
    row_field, column_field = options["rowField"], options["columnField"]
    columns = dict.fromkeys(row[column_field] for row in table)
    lines: dict[str, Row] = {}
    for row in table:
        line = lines.setdefault(
            row[row_field], {f"{row_field}\\{column_field}": row[row_field], **dict.fromkeys(columns)}
        )
        line[row[column_field]] = row[options["valueField"]]
    return list(lines.values())


def _convert(table: list[Row], options: Row, zone: ZoneInfo) -> list[Row]:
    """Times are those of 24 o'clock, the midnight that follows a day."""
    (conversion,) = options["conversions"]
    assert (conversion["destinationType"], conversion["dateFormat"]) == ("time", "YYYY-MM-DD_HH")
    name = conversion["targetField"]
    days = [datetime.strptime(row[name].removesuffix("_24"), "%Y-%m-%d") for row in table]  # noqa: DTZ007
    return [
        {**row, name: (day + timedelta(days=1)).replace(tzinfo=zone)}
        for row, day in zip(table, days, strict=True)
    ]


def _organize(table: list[Row], options: Row, _zone: ZoneInfo) -> list[Row]:
    order, names = options["indexByName"], options["renameByName"]
    return [
        {names.get(key, key): row[key] for key in sorted(row, key=lambda key: order.get(key, len(order)))}
        for row in table
    ]


_TRANSFORMATIONS = {
    "formatTime": _format_time,
    "groupBy": _group_by,
    "reduce": _reduce,
    "rowsToFields": _rows_to_fields,
    "calculateField": _calculate,
    "renameByRegex": _rename,
    "extractFields": _extract,
    "groupingToMatrix": _matrix,
    "convertFieldType": _convert,
    "organize": _organize,
}
