"""Alert rules from one evaluation to the next: Grafana's states, and some days of a home with faults.

A whole year of three homes is `make alert-years`.
"""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.grafana.alert_years import conditions, fill, firings, judge
from tests.grafana.alerting import RULES, Labels, Numbers, States
from tests.grafana.homes import BEGIN, METER, SILENT, STALE, Life, faults
from tests.support.influxd import Influxd

ONE: Labels = frozenset({("site", "one")})
OTHER: Labels = frozenset({("site", "other")})
BY_UID = {rule["uid"]: rule for rule in RULES}


def rule_for(duration: str, no_data: str = "OK", on_error: str = "KeepLast") -> dict[str, Any]:
    return {"for": duration, "noDataState": no_data, "execErrState": on_error}


def test_rule_fires_once_its_condition_has_held() -> None:
    """A condition that does not hold for once begins anew."""
    states = States(rule_for("2m"))
    seen = [
        bool(states.evaluate(60 * minute, {ONE: held})) for minute, held in enumerate((1, 1, 0, 1, 1, 1, 0))
    ]
    assert seen == [False, False, False, False, False, True, False]


def test_instance_that_is_missing_ends_after_two_evaluations() -> None:
    """A site whose series is gone keeps its state for one evaluation, while another goes on."""
    states = States(rule_for("0s"))
    states.evaluate(0, {ONE: 1, OTHER: 1})
    assert [set(states.evaluate(at_s, {OTHER: 1})) for at_s in (60, 120)] == [{ONE, OTHER}, {OTHER}]


def test_error_keeps_what_fires_and_no_data_ends_it() -> None:
    """Most rules stay as they are while InfluxDB does not answer, and are quiet where it has nothing."""
    states = States(rule_for("1m"))
    states.evaluate(0, {ONE: 1, OTHER: 0})
    assert set(states.evaluate(60, None)) == {ONE}
    assert not states.evaluate(120, {})


def test_rule_that_says_so_fires_on_errors_and_on_no_data() -> None:
    """All instances do, and where there was none yet one without labels."""
    absences: tuple[Numbers | None, ...] = (None, {})
    for absence in absences:
        states = States(rule_for("1m", "Alerting", "Alerting"))
        assert not states.evaluate(0, absence)
        assert set(states.evaluate(60, absence)) == {frozenset()}
        states = States(rule_for("1m", "Alerting", "Alerting"))
        states.evaluate(0, {ONE: 0, OTHER: 0})
        states.evaluate(60, absence)
        assert set(states.evaluate(120, absence)) == {ONE, OTHER}


FEW_DAYS = replace(
    METER,
    name="few_days",
    faults=faults(
        ("load", "2026-03-01 00:00", 8, {"value": 14_000.0}),
        ("controller down", "2026-03-01 06:00", 120, {"expects": STALE}),
        ("restart", "2026-03-01 12:00", 0.3),
        ("load", "2026-03-01 14:00", 8, {"value": 12_500.0}),
        ("recorder down", "2026-03-01 14:08", 5),
        ("load", "2026-03-01 18:00", 25, {"value": 9000.0, "expects": ("ess-import-peak",)}),
        ("influxdb down", "2026-03-01 20:00", 20, {"expects": SILENT}),
        ("dropped", "2026-03-01 22:00", 1, {"value": 5.0, "expects": ("ess-points-lost",)}),
        ("recorder down", "2026-03-02 08:00", 30 * 60, {"expects": SILENT}),
    ),
)


def test_rules_fire_for_their_faults_and_for_nothing_else(tmp_path: Path) -> None:
    """From the first minute on, through restarts, gaps and outages: in time, as long as needed, not else."""
    life = Life(FEW_DAYS, BEGIN + timedelta(days=3))
    with Influxd(tmp_path) as server:
        fill(server, life)
        judged = {
            uid: judge(life, BY_UID[uid], firings(BY_UID[uid], conditions(server, life, BY_UID[uid])))
            for uid in (*SILENT, *STALE, "ess-import-peak", "ess-points-lost")
        }
    assert {uid: one.false for uid, one in judged.items() if one.false} == {}
    assert {uid: one.delays_s for uid, one in judged.items() if not one.is_right} == {}
    assert sum(len(one.delays_s) for one in judged.values()) == sum(len(each.expects) for each in life.faults)
