"""Points as line protocol: every value comes back, nothing can be injected."""

from math import isfinite
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.points.line_protocol import cleaned, cleaned_measurement, to_line
from recorder.points.point import Point
from tests.support.influxd import Influxd

NASTY = st.text(
    st.one_of(st.sampled_from(",= \\\"'#\n\r\t\x00äß€𝄞"), st.characters(codec="utf-8")),
    min_size=1,
    max_size=12,
)
Parsed = tuple[str, dict[str, str], dict[str, float], int]


def split_unescaped(text: str, separator: str) -> list[str]:
    """Cut at each separator that no backslash precedes."""
    parts = [""]
    position = 0
    while position < len(text):
        if text[position] == "\\" and position + 1 < len(text):
            parts[-1] += text[position : position + 2]
            position += 2
        elif text[position] == separator:
            parts.append("")
            position += 1
        else:
            parts[-1] += text[position]
            position += 1
    return parts


def unescape(text: str) -> str:
    """Drop the backslash in front of each separator."""
    for separator in ", =":
        text = text.replace("\\" + separator, separator)
    return text


def parse(line: bytes) -> Parsed:
    """A small reader of line protocol with float fields only, written from its documentation."""
    series, fields, time = split_unescaped(line.decode(), " ")
    measurement, *tags = split_unescaped(series, ",")

    def pair(text: str) -> tuple[str, str]:
        key, value = split_unescaped(text, "=")
        return unescape(key), unescape(value)

    values = (pair(text) for text in split_unescaped(fields, ","))
    return (
        unescape(measurement),
        dict(map(pair, tags)),
        {key: float(value) for key, value in values},
        int(time),
    )


@given(
    measurement=NASTY,
    tags=st.dictionaries(NASTY, NASTY, max_size=4),
    fields=st.dictionaries(NASTY, st.floats(), max_size=4),
    time_ns=st.integers(-(2**63), 2**63 - 1),
)
def test_every_point_comes_back_from_its_line(
    measurement: str, tags: dict[str, str], fields: dict[str, float], time_ns: int
) -> None:
    """A reader that shares no code gets back the cleaned names and the same floats."""
    point = Point(measurement, tuple(tags.items()), {**fields, "finite": 1.0}, time_ns)
    line = to_line(point)
    assert b"\n" not in line
    assert parse(line) == (
        cleaned_measurement(measurement),
        {cleaned(key): cleaned(value) for key, value in tags.items()},
        {cleaned(key): value for key, value in point.fields.items() if isfinite(value)},
        time_ns,
    )


def test_a_number_is_always_a_float() -> None:
    """A whole number is written with a point, so that no field ever becomes an integer."""
    assert to_line(Point("m", (), {"f": 3}, 1)) == b"m f=3.0 1"


@pytest.mark.parametrize(
    "point",
    [
        Point("m", (), {"f": 1.0}, None),
        Point("m", (), {}, 1),
        Point("m", (), {"f": float("nan")}, 1),
        Point("", (), {"f": 1.0}, 1),
        Point("m", (("", "v"),), {"f": 1.0}, 1),
        Point("m", (), {"": 1.0}, 1),
    ],
)
def test_a_point_that_can_not_be_a_line_is_an_error(point: Point) -> None:
    """No time, no finite field or no name: an error, not a bad line."""
    with pytest.raises(ValueError, match=r"no time|no finite field|need"):
        to_line(point)


def test_a_real_server_stores_nasty_names_as_they_are(tmp_path: Path) -> None:
    """Umlauts, quotes, separators, newlines and trailing backslashes inject nothing into InfluxDB."""
    values = [
        "Straße 1, Köln",
        'a"b',
        "it's",
        "back\\",
        "a\\,b=c",
        "x=y",
        " lead",
        "trail ",
        "new\nline,evil=1 f=666 1",
        "\r\n",
        "𝄞",
        "\ud800",
        "#",
        "\\\\",
    ]
    points = [
        Point("m", (("id", str(number)), ("site", value)), {"f": 1.5, f"g {value}": -0.25}, number + 1)
        for number, value in enumerate(values)
    ]
    points += [Point(f"{value}m", (), {"f": 2.5}, 1) for value in values]
    with Influxd(tmp_path) as influxd:
        influxd.query("CREATE DATABASE ess")
        influxd.write(b"\n".join(map(to_line, points)), "ess")
        rows = influxd.query("SELECT * FROM m", "ess")
        measurements = {row["name"] for row in influxd.query("SHOW MEASUREMENTS", "ess")}
    assert len(rows) == len(values)
    for row, value in zip(rows, values, strict=True):
        assert row["site"] == cleaned(value)
        assert row["f"] == 1.5
        assert row[f"g {cleaned(value)}"] == -0.25
    assert measurements == {"m", *(cleaned_measurement(f"{value}m") for value in values)}
