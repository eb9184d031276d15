"""The dashboards as files: built from code, readable on a phone, understood by Grafana without plug-ins."""

import json
import re
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import DataqueryConfig, Runtime
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import build
from grafana.influxql import InfluxQL
from tests.grafana.pages import DASHBOARDS, EACH_DASHBOARD, EACH_PANEL, PAGES, Page, panel

BUILT_IN = {"stat", "timeseries", "gauge", "bargauge", "barchart", "heatmap", "canvas"}
UNITS = {
    "watt", "suffix:kWh", "volt", "hertz", "percent", "celsius", "s", "suffix:/s", "short", "bytes", "none",
    "dateTimeFromNow",
}  # fmt: skip
WHERE_NOTHING_IS_ZERO = {"Data coverage", "Data coverage over time", "Energy in the chosen range"}
"""Panels that count missing data as none: a share of the range, and sums of pieces."""
WHATEVER_IS_CHOSEN = {"Energy today"}
"""Panels that do not follow the time picker."""
NEWER_THAN_THE_LIBRARY = {"direction"}
"""What Canvas of Grafana 12 knows, and the library's types of 11.6 do not."""


def without(value: Any, names: set[str]) -> Any:
    """The same JSON without some keys, at any depth."""
    if isinstance(value, dict):
        return {key: without(part, names) for key, part in value.items() if key not in names}
    if isinstance(value, list):
        return [without(part, names) for part in value]
    return value


def lost(known: Any, again: Any, path: str = "") -> Iterator[str]:
    """Where JSON differs from what it was; a key more is a default of the library."""
    if isinstance(known, dict) and isinstance(again, dict):
        for key, value in known.items():
            yield from lost(value, again.get(key), f"{path}.{key}")
    elif isinstance(known, list) and isinstance(again, list) and len(known) == len(again):
        for number, (one, other) in enumerate(zip(known, again, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif known != again:
        yield path


def read_query(data: dict[str, str]) -> InfluxQL:
    """The query of a target."""
    return InfluxQL(data["query"], data["refId"], data["resultFormat"], data["alias"])


def test_files_are_what_the_code_writes() -> None:
    """The committed dashboards are those that `grafana/build.py` writes, and there is no other one."""
    assert build.main(["--check"]) == 0
    assert {f"{name}.json" for name in DASHBOARDS} == set(build.DASHBOARDS)


def test_check_notices_a_changed_file(tmp_path: Path) -> None:
    """`--check` fails on a file that was edited by hand or is missing, and writing repairs it."""
    assert build.main([], tmp_path) == 0
    assert build.main(["--check"], tmp_path) == 0
    path = tmp_path / "dashboards/grid.json"
    path.write_text(path.read_text().replace("Voltage", "Tension"))
    assert build.main(["--check"], tmp_path) == 1
    assert build.main([], tmp_path) == 0
    path.unlink()
    assert build.main(["--check"], tmp_path) == 1
    assert build.main([], tmp_path) == 0
    assert build.main(["--check"], tmp_path) == 0


def test_wrong_argument_is_wrong_usage() -> None:
    """An argument that does not exist exits with 2, as everywhere in the project."""
    assert build.main(["--chekc"]) == 2


@EACH_DASHBOARD
def test_file_is_valid_by_the_types_of_the_library(name: str) -> None:
    """Read into the library's types and written again, a dashboard has lost nothing and changed nothing."""
    register_default_plugins()
    # The library has no query class for InfluxQL.
    Runtime().register_dataquery_variant(DataqueryConfig("influxdb", read_query))
    known = without(DASHBOARDS[name], NEWER_THAN_THE_LIBRARY)
    # The library's annotations have no place for the query of a data source.
    known["annotations"]["list"] = [
        {key: value for key, value in each.items() if key not in {"target", "mappings"}}
        for each in known["annotations"]["list"]
    ]
    again = json.loads(json.dumps(Dashboard.from_json(known), cls=JSONEncoder))
    assert list(lost(known, again)) == []


@EACH_DASHBOARD
def test_dashboard_follows_grafana_and_the_others(name: str) -> None:
    """Each dashboard has Grafana's time zone, its own identity, a site to choose, and links to the others."""
    dashboard = DASHBOARDS[name]
    assert (dashboard["timezone"], dashboard["uid"]) == ("", name)
    assert dashboard["templating"]["list"][0]["name"] == "site"
    assert dashboard["links"][0]["tags"] == dashboard["tags"] == ["energy"]
    assert dashboard["links"][0]["includeVars"]


@EACH_PANEL
def test_panel_explains_itself(page: Page) -> None:
    """Each panel has a title, a description, a unit, thresholds, a query and the provisioned data source."""
    source = {"type": "influxdb", "uid": "ess-influxdb"}
    shown, defaults = page.panel, page.panel["fieldConfig"]["defaults"]
    assert shown["title"]
    assert shown["description"].endswith(".")
    assert defaults["unit"] in UNITS
    assert defaults["thresholds"]["mode"] == "absolute"
    assert defaults["thresholds"]["steps"][0]["value"] is None
    assert shown["targets"]
    assert all(target["datasource"] == source and target["rawQuery"] for target in shown["targets"])
    assert shown["datasource"] == source


@EACH_PANEL
def test_panel_needs_no_plugin(page: Page) -> None:
    """Each panel is one that Grafana brings along."""
    assert page.panel["type"] in BUILT_IN


@EACH_PANEL
def test_colours_follow_the_theme(page: Page) -> None:
    """Colours are names of Grafana's palette, which has a shade of each for the light and the dark theme."""
    assert not re.search(r'"#[0-9a-fA-F]{3,8}"|"rgba?\(', json.dumps(without(page.panel, {"exemplars"})))


@EACH_PANEL
def test_missing_data_is_never_filled(page: Page) -> None:
    """No query makes a zero, a line or the last value of missing data, and no curve bridges it."""
    for target in page.panel["targets"]:
        counted = page.panel["title"] in WHERE_NOTHING_IS_ZERO
        assert counted or not re.search(r"fill\((?!null\)|none\))", target["query"])
    if page.panel["type"] == "timeseries":
        assert page.panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False
        bars = page.panel["fieldConfig"]["defaults"]["custom"].get("drawStyle") == "bars"
        filled = "fill(none)" if bars else "fill(null)"
        assert all(target["query"].endswith(filled) for target in page.panel["targets"])


@EACH_PANEL
def test_query_is_bound_by_range_and_site(page: Page) -> None:
    """Each query asks for the chosen range and for the chosen site, whatever its name is."""
    for target in page.panel["targets"]:
        bound = "$timeFilter" in target["query"] or "time < ${__to}ms" in target["query"]
        assert bound != (page.panel["title"] in WHATEVER_IS_CHOSEN)
        assert '"site" =~ /^${site:regex}$/' in target["query"]


@EACH_PANEL
def test_tiers_leave_no_interval_out_and_take_none_twice(page: Page) -> None:
    """Of the queries for a column that depend on the interval and the age, one is for each interval and age.

    Only the current quarter hour is read besides the quarter hours before it.
    """
    by_column: dict[str, list[list[tuple[str, str, int]]]] = {}
    for target in page.panel["targets"]:
        found = re.findall(
            r"(?:\$__(interval_ms)|time) (>=|<) (?:now\(\) - )?(\d+)(?:d | AND| GROUP|$)", target["query"]
        )
        bounds = [(kind, sign, int(number)) for kind, sign, number in found]
        if bounds and 'FROM "energy_10s"' not in target["query"]:
            for column in re.findall(r'AS ("[^"]+")', target["query"].partition(" FROM ")[0]):
                by_column.setdefault(column, []).append(bounds)
    intervals_ms = (1000, 5000, 10_000, 20_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000, 10**8)
    for interval_ms, days in product(intervals_ms, (1, 31, 91)):
        for column, tiers in by_column.items():
            holding = [tier for tier in tiers if all(_holds(bound, interval_ms, days) for bound in tier)]
            assert len(holding) == 1, column


def _holds(bound: tuple[str, str, int], interval_ms: int, days: int) -> bool:
    kind, sign, number = bound
    if kind:
        return interval_ms >= number if sign == ">=" else interval_ms < number
    return days <= number if sign == ">=" else days > number


@EACH_DASHBOARD
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    """No panel leaves the 24 columns or covers another one, and none is too narrow for its title."""
    places = [shown["gridPos"] for shown in DASHBOARDS[name]["panels"]]
    cells = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in places
    ]
    assert all(x < 24 for cell in cells for x, _ in cell)
    assert not any(one & other for one, other in combinations(cells, 2))
    assert all(at["w"] >= 4 for at in places)


@EACH_DASHBOARD
def test_panel_numbers_are_distinct(name: str) -> None:
    """No two panels share a number, by which alerts and links name them."""
    numbers = [shown["id"] for shown in DASHBOARDS[name]["panels"]]
    assert all(numbers)
    assert len(set(numbers)) == len(numbers)


def test_charge_has_a_fixed_axis() -> None:
    """The state of charge is always plotted from 0 to 100 %."""
    charge = [
        page.panel for page in PAGES if "charge" in page.panel["title"] and page.panel["type"] == "timeseries"
    ]
    assert len(charge) == 2
    for shown in charge:
        defaults = shown["fieldConfig"]["defaults"]
        assert (defaults["min"], defaults["max"], defaults["unit"]) == (0, 100, "percent")


def test_powers_have_their_colours() -> None:
    """PV is yellow, battery green, home blue and grid purple."""
    colours = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel("energy-flows", "Power")["fieldConfig"]["overrides"]
    }
    assert colours == {"PV": "yellow", "Battery": "green", "Home": "blue", "Grid": "purple"}


@pytest.mark.parametrize("title", ["Self-sufficiency", "Self-consumption"])
@pytest.mark.parametrize("dashboard", ["energy-flows", "energy-history"])
def test_shares_are_clamped_and_defined(dashboard: str, title: str) -> None:
    """A share below 0 or above 100 % is shown as 0 or 100 %, and its help gives the formula."""
    shown = panel(dashboard, title)
    low, high = (mapping["options"] for mapping in shown["fieldConfig"]["defaults"]["mappings"])
    assert (low["from"], low["to"], low["result"]["text"]) == (None, 0, "0 %")
    assert (high["from"], high["to"], high["result"]["text"]) == (100, None, "100 %")
    assert "1 - " in shown["description"]


def test_voltage_limits_are_those_of_en_50160() -> None:
    """A phase is red below 207 V and above 253 V, and lines show where that begins."""
    shown = panel("grid", "Voltage of the phases")["fieldConfig"]["defaults"]
    assert [(step["value"], step["color"]) for step in shown["thresholds"]["steps"]] == [
        (None, "red"),
        (207, "transparent"),
        (253, "red"),
    ]
    assert shown["custom"]["thresholdsStyle"]["mode"] == "dashed+area"


def test_flow_picture_follows_the_power() -> None:
    """Each of the seven flows is a line between two boxes whose width and direction come from its field."""
    shown = panel("energy-flows", "Flow picture")
    elements = shown["options"]["root"]["elements"]
    boxes = {each["name"]: each for each in elements if each.get("connections")}
    assert set(boxes) <= {"PV", "Home", "Grid", "Battery"}
    lines = [(name, line) for name, box in boxes.items() for line in box["connections"]]
    fields = set(re.findall(r'AS "(\w+)"', shown["targets"][0]["query"]))
    assert {line["size"]["field"] for _, line in lines} == fields
    assert len(fields) == len(lines) == 7
    for source, line in lines:
        start, _, target = line["size"]["field"].partition("_to_")
        assert (source.lower(), line["targetName"].lower()) == (start, target)
        assert line["color"] == {"field": line["size"]["field"], "fixed": "transparent"}
        assert line["direction"] == {"mode": "field", "field": line["size"]["field"], "fixed": "none"}
        assert line["size"]["min"] < line["size"]["max"]
        assert line["size"]["max"] <= 4  # an arrow is ten times as long
    # The width is relative to the least and greatest value of the panel, which must not follow the data.
    assert {"min", "max"} <= shown["fieldConfig"]["defaults"].keys()


def test_flow_picture_fits_any_width() -> None:
    """Each element is placed in percent of the panel."""
    for element in panel("energy-flows", "Flow picture")["options"]["root"]["elements"]:
        assert element["constraint"] == {"horizontal": "scale", "vertical": "scale"}
        at = element["placement"]
        assert at["left"] + at["right"] < 100 > at["top"] + at["bottom"]


def test_next_to_no_power_is_no_power() -> None:
    """Less than a watt either way is shown as 0 W, and not in milliwatts."""
    highest = panel("grid", "Highest power bought")
    assert highest["fieldConfig"]["defaults"]["mappings"][0]["options"]["from"] is None
    watts = [page.panel["fieldConfig"]["defaults"] for page in PAGES if page.panel != highest]
    watts = [defaults for defaults in watts if defaults["unit"] == "watt"]
    assert len(watts) > 9
    for defaults in watts:
        (mapping,) = (each["options"] for each in defaults["mappings"])
        assert (mapping["from"], mapping["to"], mapping["result"]["text"]) == (-1, 1, "0 W")


@pytest.mark.parametrize(
    ("dashboard", "name", "first"),
    [("battery-and-pv", "capacity", "6.4"), ("energy-history", "currency", "EUR")],
)
def test_what_is_typed_in_has_a_first_value(dashboard: str, name: str, first: str) -> None:
    """A text above a dashboard holds its default from the start, so that no query is asked without it."""
    (typed,) = (each for each in DASHBOARDS[dashboard]["templating"]["list"] if each["type"] == "textbox")
    assert (typed["name"], typed["query"], typed["current"]["value"]) == (name, first, first)


@EACH_DASHBOARD
def test_few_switches_stand_above_a_dashboard(name: str) -> None:
    """Of the annotations only alerts and restarts have a switch; gaps are always shown."""
    listed = DASHBOARDS[name]["annotations"]["list"]
    assert [each["name"] for each in listed if not each["hide"]] == ["Alerts", "Restarts"]
    assert len(listed) == 6
    assert all(each["enable"] for each in listed)


@EACH_DASHBOARD
def test_tooltip_of_an_annotation_is_a_sentence(name: str) -> None:
    """A mark says what happened; without a text of its own its title would be its time in ms."""
    for each in DASHBOARDS[name]["annotations"]["list"][1:]:
        said = [mapping["value"] for mapping in each["mappings"].values() if mapping["source"] == "text"]
        assert len(said) == 1
        assert each["mappings"]["title"]["source"] in {"text", "skip"}
        assert said[0][0].isupper()


def test_labels_of_bars_are_whole_names() -> None:
    """Labels are not shortened to dots, and those of months and years are texts without a unit."""
    charts = [page.panel for page in PAGES if page.panel["type"] == "barchart"]
    assert len(charts) > 9
    for shown in charts:
        assert shown["options"]["xTickLabelMaxLength"] >= len("2026-06")
        if "formatTime" in {step["id"] for step in shown.get("transformations", [])}:
            units = {
                override["matcher"]["options"]: setting["value"]
                for override in shown["fieldConfig"]["overrides"]
                for setting in override["properties"]
                if setting["id"] == "unit"
            }
            assert units == {"Time": "string"}


def test_heat_maps_have_a_unit_and_rows_of_hours() -> None:
    """The values of a heat map carry kWh, and its hours keep their names."""
    for title in ("When the home uses energy", "When energy is bought"):
        shown = panel("energy-history", title)
        assert shown["options"]["cellValues"]["unit"] == "suffix:kWh"
        steps = {step["id"]: step["options"] for step in shown["transformations"]}
        assert steps["groupingToMatrix"]["valueField"] == steps["calculateField"]["alias"]


def test_numbers_of_now_are_dashes_without_fresh_data() -> None:
    """Without a sample in the last minute neither a number nor a box says that a field was not found."""
    live = [page.panel for page in PAGES if page.panel.get("timeFrom") == "1m"]
    stats = [shown for shown in live if shown["type"] == "stat"]
    assert len(stats) > 6
    assert all(shown["fieldConfig"]["defaults"]["noValue"] for shown in stats)
    boxes = panel("energy-flows", "Flow picture")["options"]["root"]["elements"]
    values = [box for box in boxes if box["config"]["text"]["mode"] == "field"]
    assert {box["type"] for box in boxes} == {"rectangle"}
    assert [box["config"]["text"]["fixed"] for box in values] == ["-"] * 4
