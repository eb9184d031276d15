"""Each alert rule, asked of a real InfluxDB as Grafana asks, on data that makes it fire or does not."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.docker.compose import load
from tests.grafana import alert_data
from tests.grafana.alerting import ALERTING, RULES, expanded, firing, queries
from tests.grafana.pages import DASHBOARDS
from tests.grafana.year import END, Year
from tests.support.influxd import Influxd, as_of

EACH_RULE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["uid"])
BOTH_SIDES = {"fires", "other side"}
FIRING_SITES = {
    "ess-recorder-silent": {"silent"},
    "ess-points-lost": {*BOTH_SIDES, "third way"},
    "ess-voltage-l1": BOTH_SIDES,
    "ess-voltage-l2": BOTH_SIDES,
    "ess-voltage-l3": BOTH_SIDES,
    "ess-frequency": BOTH_SIDES,
    "ess-string-imbalance": BOTH_SIDES,
    "ess-energy-balance": BOTH_SIDES,
}
"""The sites for which a rule has to fire, and no other; where it is not named, the site "fires" alone."""
WATCHED = {
    "No fresh sample", "Recorder silent", "InfluxDB behind", "Averages behind", "Dead letters", "Points lost",
    "CRC errors", "Voltage of L1", "Voltage of L2", "Voltage of L3", "Frequency of the grid", "Import peak",
    "Battery low", "Battery not charging in sun", "String imbalance", "Battery too warm", "Battery too cold",
    "Energy balance off",
}  # fmt: skip
CONTACTS = (ALERTING / "contact-points.yaml").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """All sites of `alert_data`, as they are at `END`."""
    with Influxd(tmp_path_factory.mktemp("influxd")) as influxd:
        influxd.query('CREATE DATABASE "ess"')
        influxd.query('CREATE RETENTION POLICY "rollups" ON "ess" DURATION INF REPLICATION 1')
        by_policy: dict[str, list[str]] = {}
        for policy, line in alert_data.lines(END):
            by_policy.setdefault(policy, []).append(line)
        for policy, lines in by_policy.items():
            influxd.write("\n".join(lines).encode(), "ess", policy)
        yield influxd


@EACH_RULE
def test_rule_fires_where_it_should_and_nowhere_else(server: Influxd, rule: dict[str, Any]) -> None:
    """Beyond its limit a rule fires; at the limit, for a healthy home, and once all is mended it does not."""
    fired = firing(rule, lambda query: server.query(as_of(END, query), "ess"))
    assert {dict(labels)["site"] for labels in fired} == FIRING_SITES.get(rule["uid"], {"fires"})
    named = set(re.findall(r"\.Labels\.(\w+)", "".join(rule["annotations"].values())))
    assert all(named <= dict(labels).keys() for labels in fired)


@EACH_RULE
def test_rule_fires_on_values_and_not_on_their_absence(server: Influxd, rule: dict[str, Any]) -> None:
    """Each query of a rule has a number for a healthy home, so that no rule is silent for want of data."""
    for query in queries(rule):
        rows = [row for row in server.query(as_of(END, query), "ess") if row["site"] == "healthy"]
        assert isinstance(rows[-1]["value"], int | float)


@EACH_RULE
def test_rule_answers_on_a_year(year: Year, rule: dict[str, Any]) -> None:
    """No query of a rule errs on the database of a year, and each reads few blocks of it."""
    for query in queries(rule):
        year.ask(query)
        plan = "\n".join(row["EXPLAIN ANALYZE"] for row in year.ask(f"EXPLAIN ANALYZE {query}"))
        assert sum(map(int, re.findall(r"blocks_decoded: (\d+)", plan))) < 200


def test_every_danger_is_watched() -> None:
    """The rules are those that docs/alerts.md lists, each with a key of its own."""
    assert {rule["title"] for rule in RULES} == WATCHED
    assert len({rule["uid"] for rule in RULES}) == len(RULES)
    documented = (ALERTING.parents[2] / "docs/alerts.md").read_text()
    assert all(f"| {rule['title']} |" in documented for rule in RULES)


def test_only_a_silent_recorder_is_told_by_missing_data() -> None:
    """Where nothing answers one rule raises the alarm, and the others do not all join in."""
    alarming = {rule["uid"] for rule in RULES if "Alerting" in {rule["noDataState"], rule["execErrState"]}}
    assert alarming == {"ess-recorder-silent"}
    assert {(rule["noDataState"], rule["execErrState"]) for rule in RULES} == {
        ("Alerting", "Alerting"),
        ("OK", "KeepLast"),
    }


def test_rule_of_an_empty_database_gives_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A database that never held a point fires no condition and errs nowhere: to Grafana it is "no data"."""
    with Influxd(tmp_path_factory.mktemp("empty")) as influxd:
        influxd.query('CREATE DATABASE "ess"')
        influxd.query('CREATE RETENTION POLICY "rollups" ON "ess" DURATION INF REPLICATION 1')
        assert not any(firing(rule, lambda query: influxd.query(query, "ess")) for rule in RULES)


@EACH_RULE
def test_rule_says_what_to_do_and_leads_to_its_panel(rule: dict[str, Any]) -> None:
    """A notification has a summary, a remedy, a severity that a policy knows, and a panel that exists."""
    assert len(rule["annotations"]["summary"]) > 20 < len(rule["annotations"]["description"])
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    panels = {panel["id"] for panel in DASHBOARDS[rule["annotations"]["__dashboardUid__"]]["panels"]}
    assert int(rule["annotations"]["__panelId__"]) in panels
    assert len(rule["uid"]) <= 40


@EACH_RULE
def test_rule_holds_nothing_that_grafana_would_expand(rule: dict[str, Any]) -> None:
    """Grafana's provisioning puts the environment into texts, though not into queries and formulas."""
    texts = json.dumps({key: value for key, value in rule.items() if key != "data"})
    assert "$" not in texts


@pytest.mark.parametrize("chosen", ["nobody", "e-mail", "webhook", "ntfy"])
def test_environment_chooses_who_hears(chosen: str) -> None:
    """Whatever ESS_ALERT_TO names is a contact point that every severity is sent to."""
    environment = load({"ESS_ALERT_TO": chosen})["services"]["grafana"]["environment"]
    document = yaml.safe_load(expanded(CONTACTS, environment))
    (policy,) = document["policies"]
    assert chosen in {contact["name"] for contact in document["contactPoints"]}
    assert {route["receiver"] for route in policy["routes"]} == {chosen}
    routed = {value for route in policy["routes"] for _, _, value in route["object_matchers"]}
    assert routed == {rule["labels"]["severity"] for rule in RULES}


def test_no_variable_is_needed_for_contact_points() -> None:
    """Without a variable nobody is told, and no contact point has an empty setting, which Grafana refuses."""
    environment = load({})["services"]["grafana"]["environment"]
    document = yaml.safe_load(expanded(CONTACTS, environment))
    assert {route["receiver"] for route in document["policies"][0]["routes"]} == {"nobody"}
    for contact in document["contactPoints"]:
        for receiver in contact["receivers"]:
            assert all(receiver["settings"].values())
            assert re.search(
                r"\.invalid$|^http://127\.0\.0\.1:9/$", next(iter(receiver["settings"].values()))
            )
