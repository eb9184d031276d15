"""Every query of the dashboard and of the alert, asked of a real InfluxDB."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from grafana import build
from tests.grafana import data
from tests.grafana.as_grafana import firing, load_yaml, range_of, resolved
from tests.support.influxd import Influxd, Row

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads(build.TARGET.read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
CHOSEN = {"site": data.SITE, "device": "pcs", "meter": "meter"}
(RULE,) = load_yaml((ROOT / "grafana/provisioning/alerting/rules.yaml").read_text())["groups"][0]["rules"]
QUERIES = [
    pytest.param(panel, target["query"], id=f"{panel['id']} {panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]


class Plant(NamedTuple):
    """A filled database, and the moment of its last sample."""

    server: Influxd
    now: datetime

    def ask(self, panel: dict[str, Any], query: str, chosen: timedelta = timedelta(hours=24)) -> list[Row]:
        """The answer to a query of a panel, when the time picker ends at the last sample."""
        time_range = range_of(panel, self.now, chosen)
        return self.server.query(resolved(query, time_range, CHOSEN, panel.get("interval", "1s")), "ess")

    def numbers(self, number: int) -> dict[str, float]:
        """The names and the newest values of a panel."""
        (panel,) = (each for each in PANELS if each["id"] == number)
        shown: dict[str, float] = {}
        for target in panel["targets"]:
            for row in self.ask(panel, target["query"]):
                shown.update({key: value for key, value in row.items() if key not in {"name", "time"}})
        return shown


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """One site with an inverter, a meter, and a meter that fell silent."""
    now = data.current_time()
    with Influxd(tmp_path_factory.mktemp("influxd")) as server:
        data.fill(server, now)
        yield Plant(server, now)


@pytest.mark.parametrize(("panel", "query"), QUERIES)
def test_query_has_data(plant: Plant, panel: dict[str, Any], query: str) -> None:
    """Each query of each panel answers every column that it names with numbers, over a day or over a year."""
    rows = plant.ask(panel, query) or plant.ask(panel, query, timedelta(days=366))
    columns = set(rows[0]) - {"name", "time"}
    assert columns
    for column in columns:
        assert any(isinstance(row[column], float | int) for row in rows), column


@pytest.mark.parametrize("days", [1 / 24, 1, 7, 30, 366])
@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_answers_any_range(plant: Plant, panel: dict[str, Any], days: float) -> None:
    """Each panel has data from an hour to a year, in at most 2,000 rows, and each series once."""
    answers = [plant.ask(panel, target["query"], timedelta(days=days)) for target in panel["targets"]]
    series = [name for rows in answers if rows for name in rows[0] if name not in {"name", "time"}]
    assert series
    assert len(set(series)) == len(series)
    assert sum(map(len, answers)) <= 2000


def test_power_is_the_same_from_minutes_and_from_energies(plant: Plant) -> None:
    """A year of PV power, plotted from energies, shows the power that the minutes show."""
    panel = PANELS[6]
    (year,) = (
        rows
        for target in panel["targets"]
        if (rows := plant.ask(panel, target["query"], timedelta(days=366)))
    )
    highest = max(row["PV"] for row in year if row["PV"] is not None)
    assert 0.5 * data.PV_W < highest <= 1.1 * data.PV_W


@pytest.mark.parametrize("variable", DASHBOARD["templating"]["list"], ids=lambda variable: variable["name"])
def test_variable_offers_what_was_recorded(plant: Plant, variable: dict[str, Any]) -> None:
    """Each choice above the dashboard is filled from the tags of the data."""
    query = resolved(variable["query"], range_of({}, plant.now, timedelta(hours=1)), CHOSEN)
    offered = {row["value"] for row in plant.server.query(query, "ess")}
    expected = {"site": {data.SITE}, "device": {"pcs"}, "meter": {"meter", "heat_pump"}}
    assert offered == expected[variable["name"]]


def test_live_numbers_have_the_right_signs(plant: Plant) -> None:
    """Selling and charging are negative, and the home is what inverter and meter leave to it."""
    shown: dict[str, float] = {}
    for number in range(1, 6):
        shown |= plant.numbers(number)
    assert shown == {
        "PV": data.PV_W,
        "Home": data.PCS_W + data.METER_W,
        "Grid": data.METER_W,
        "Battery": data.BATTERY_W,
        "Charge": data.STATE_OF_CHARGE,
    }


def test_old_data_is_not_shown_as_live(plant: Plant) -> None:
    """A live number is empty when the newest sample is older than a minute."""
    panel = PANELS[0]
    gap = plant.now - timedelta(minutes=data.GAP_MINUTES.start + 3)
    later = plant._replace(now=gap)
    assert later.ask(panel, panel["targets"][0]["query"]) == []


def test_an_outage_is_a_gap(plant: Plant) -> None:
    """Minutes without samples are empty in the curves of samples and of minutes."""
    for number in (6, 7, 8, 13):
        panel = PANELS[number - 1]
        rows = plant.ask(panel, panel["targets"][0]["query"], timedelta(hours=1))
        start = plant.now - timedelta(minutes=data.GAP_MINUTES.stop - 1)
        end = plant.now - timedelta(minutes=data.GAP_MINUTES.start + 2)
        inside = [row for row in rows if start.timestamp() <= row["time"] / 1e9 < end.timestamp()]
        assert inside
        assert all(
            value is None for row in inside for key, value in row.items() if key not in {"name", "time"}
        )


def test_energies_come_from_counters_first(plant: Plant) -> None:
    """What was sold is what the counter gained, the outage too; PV has none and is integrated."""
    shown = plant.numbers(9)
    quarter = timedelta(minutes=15).total_seconds()
    first = (plant.now - timedelta(minutes=data.MINUTES)).timestamp()
    counted_hours = (plant.now.timestamp() - (first // quarter + 1) * quarter) / 3600
    integrated_hours = (data.MINUTES - len(data.GAP_MINUTES)) / 60
    one_minute = 1 / 60
    assert shown["Sold"] == pytest.approx(-data.METER_W / 1000 * counted_hours, abs=4 * one_minute)
    assert shown["PV"] == pytest.approx(data.PV_W / 1000 * integrated_hours, abs=15 * one_minute)
    assert (shown["Bought"], shown["Out of the battery"]) == (0, 0)


def test_shares_follow_their_definitions(plant: Plant) -> None:
    """A sunny half hour is 100 % self-sufficient, and uses 1800 W of 5000 W itself."""
    assert plant.numbers(10) == {"Share": pytest.approx(100)}
    assert plant.numbers(11) == {"Share": pytest.approx(100 * (data.PV_W + data.METER_W) / data.PV_W)}


def test_alert_fires_for_the_silent_device_only(plant: Plant) -> None:
    """A device whose newest sample is older than two minutes fires, by its own age, while others go on."""
    rows = plant.server.query(RULE["data"][0]["model"]["query"], "ess")
    assert {row["device"] for row in rows} == {"pcs", "meter", "heat_pump"}
    (fired,) = firing(RULE, rows)
    assert (fired["site"], fired["device"], fired["age"]) == (data.SITE, "heat_pump", 600)


def test_alert_fires_when_nothing_answers() -> None:
    """No series at all, and an error of the data source, are alarms too."""
    assert (RULE["noDataState"], RULE["execErrState"]) == ("Alerting", "Alerting")


def test_alert_says_what_to_do() -> None:
    """The notification names device, site and first command, and nothing that Grafana would expand."""
    annotations = RULE["annotations"]
    assert ".Labels.device" in annotations["summary"]
    assert ".Labels.site" in annotations["summary"]
    assert "/healthz" in annotations["description"]
    assert "$" not in "".join(annotations.values())
