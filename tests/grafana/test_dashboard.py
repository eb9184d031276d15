"""The dashboard as a file: built from code, readable on a phone, understood by Grafana without plug-ins."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from grafana import build
from tests.grafana.as_grafana import load_yaml

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads(build.TARGET.read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
BUILT_IN = {"stat", "timeseries", "gauge", "bargauge", "barchart"}
EACH_PANEL = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def colour_of(panel: dict[str, Any], series: str) -> str:
    """The fixed colour of a series."""
    (properties,) = (
        override["properties"]
        for override in panel["fieldConfig"]["overrides"]
        if override["matcher"] == {"id": "byName", "options": series}
    )
    colour: str = properties[0]["value"]["fixedColor"]
    return colour


def test_file_is_what_the_code_writes() -> None:
    """The committed dashboard is the one that `grafana/build.py` writes."""
    assert build.main(["--check"]) == 0


def test_check_notices_a_changed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--check` fails on a file that was edited by hand, and writing repairs it."""
    changed = tmp_path / "energy-flows.json"
    changed.write_text(build.TARGET.read_text().replace("Energy flows", "Energy"))
    monkeypatch.setattr(build, "TARGET", changed)
    assert build.main(["--check"]) == 1
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0


def test_wrong_argument_is_wrong_usage() -> None:
    """An argument that does not exist exits with 2, as everywhere in the project."""
    assert build.main(["--chekc"]) == 2


@EACH_PANEL
def test_panel_explains_itself(panel: dict[str, Any]) -> None:
    """Each panel has a title, a description, a unit, a query and the provisioned data source."""
    source = {"type": "influxdb", "uid": "ess-influxdb"}
    assert panel["title"]
    assert panel["description"].endswith((".", "%."))
    assert panel["fieldConfig"]["defaults"]["unit"] in {"watt", "kwatth", "percent"}
    assert panel["targets"]
    assert all(target["datasource"] == source for target in panel["targets"])
    assert panel["datasource"] == source


@EACH_PANEL
def test_panel_needs_no_plugin(panel: dict[str, Any]) -> None:
    """Each panel is one that Grafana brings along."""
    assert panel["type"] in BUILT_IN


def test_panels_fill_the_grid_without_overlap() -> None:
    """No panel leaves the 24 columns or covers another one."""
    cells = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in PANELS)
    ]
    assert all(x < 24 for cell in cells for x, _ in cell)
    assert not any(one & other for one, other in combinations(cells, 2))


@pytest.mark.parametrize(
    "panel", [panel for panel in PANELS if panel["type"] == "timeseries"], ids=lambda panel: panel["title"]
)
def test_missing_data_is_a_gap(panel: dict[str, Any]) -> None:
    """No curve bridges what is missing, in the query or in the plot."""
    assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False
    assert all("GROUP BY time($__interval) fill(null)" in target["query"] for target in panel["targets"])


def test_charge_has_a_fixed_axis() -> None:
    """The state of charge is always plotted from 0 to 100 %."""
    (panel,) = (
        each for each in PANELS if each["title"] == "State of charge" and each["type"] == "timeseries"
    )
    defaults = panel["fieldConfig"]["defaults"]
    assert (defaults["min"], defaults["max"], defaults["unit"]) == (0, 100, "percent")


@pytest.mark.parametrize("title", ["Power in detail", "Power"])
def test_powers_have_their_colours(title: str) -> None:
    """PV is yellow, battery green, home blue and grid purple."""
    (panel,) = (each for each in PANELS if each["title"] == title)
    expected = {"PV": "yellow", "Battery": "green", "Home": "blue", "Grid": "purple"}
    assert {series: colour_of(panel, series) for series in expected} == expected


def test_every_query_follows_the_time_picker() -> None:
    """Each query is bound by the chosen range and by the chosen site, and by nothing else that moves."""
    for panel in PANELS:
        for target in panel["targets"]:
            assert "$timeFilter" in target["query"]
            assert '"site" =~ /^$site$/' in target["query"]
            assert "__from" not in target["query"]


def test_panel_numbers_are_distinct() -> None:
    """No two panels share a number, by which alerts and links name them."""
    numbers = [panel["id"] for panel in PANELS]
    assert len(set(numbers)) == len(numbers)


def test_alert_links_to_the_detailed_power_panel() -> None:
    """The alert leads to the panel where a silence is seen first."""
    rules = load_yaml((ROOT / "grafana/provisioning/alerting/rules.yaml").read_text())
    (rule,) = rules["groups"][0]["rules"]
    (panel,) = (each for each in PANELS if each["id"] == rule["panelId"])
    assert (rule["dashboardUid"], panel["title"]) == (DASHBOARD["uid"], "Power in detail")
