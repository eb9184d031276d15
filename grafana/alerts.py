"""Alert rules as Grafana 11 and 12 provision them: a query, its newest value, and a limit.

Takes the rules of `grafana/alert_rules.py` and the built dashboards, gives one YAML file. Never talks to
Grafana.

A rule asks for each of its values by InfluxQL, one series a device or site, and takes the newest of each. Its
condition is a limit of the only value, or a formula of several. No condition is about missing data: even the
query of "Recorder silent" gives a value, 0, where nothing was said.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import yaml

from grafana.influxql import DATA_SOURCE

_HEAD = """\
# What Grafana watches, once a minute; docs/alerts.md tells each limit. Who hears of it: contact-points.yaml.
# Written by grafana/build.py from grafana/alert_rules.py: change it there.
"""
_EXPRESSION = "__expr__"
_FOLDER = "Energy"

State = Literal["OK", "Alerting", "KeepLast"]


class Limit(NamedTuple):
    """When a value is not as it should be; a value at the limit itself still is."""

    kind: Literal["gt", "lt", "outside_range"]
    params: tuple[float, ...]


class Rule(NamedTuple):
    """One rule.

    `values` are InfluxQL queries by the name that each value has in a formula; `seconds` is how far back they
    look. The rule fires when its condition has held for `lasts`. `summary` says what is wrong in one line,
    `remedy` what to do. `panel` is the dashboard and the title of the panel where it is seen. `labels` come
    beside the severity. `no_data` and `on_error` are what Grafana makes of no series, and of a failed query.
    """

    uid: str
    title: str
    severity: Literal["critical", "warning", "info"]
    values: Mapping[str, str]
    seconds: int
    condition: Limit | str
    lasts: str
    summary: str
    remedy: str
    panel: tuple[str, str]
    labels: Mapping[str, str] = {}
    no_data: State = "OK"
    on_error: State = "KeepLast"


def above(limit: float) -> Limit:
    """Fire above `limit`."""
    return Limit("gt", (limit,))


def below(limit: float) -> Limit:
    """Fire below `limit`."""
    return Limit("lt", (limit,))


def outside(least: float, most: float) -> Limit:
    """Fire below `least` and above `most`."""
    return Limit("outside_range", (least, most))


def file_of(groups: Mapping[str, Sequence[Rule]], panels: Mapping[tuple[str, str], int]) -> str:
    """The provisioning file of rules by the name of their group; `panels` has the number of each panel."""
    listed = [
        {
            "orgId": 1,
            "name": name,
            "folder": _FOLDER,
            "interval": "1m",
            "rules": [_provisioned(rule, panels[rule.panel]) for rule in rules],
        }
        for name, rules in groups.items()
    ]
    document = {"apiVersion": 1, "groups": listed}
    return _HEAD + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110)


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice twice: Grafana's files are read by people too."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # the library's signature
        return True


def _provisioned(rule: Rule, panel: int) -> dict[str, Any]:
    if isinstance(rule.condition, Limit):
        (name,) = rule.values
        evaluator = {"type": rule.condition.kind, "params": list(rule.condition.params)}
        decision = {"type": "threshold", "expression": name, "conditions": [{"evaluator": evaluator}]}
    else:
        decision = {"type": "math", "expression": rule.condition}
    letters = dict(zip("ABCDEFGHIJ", rule.values, strict=False))
    steps = [
        *((letter, DATA_SOURCE.uid, _query(rule.values[name])) for letter, name in letters.items()),
        *((name, _EXPRESSION, _newest(letter)) for letter, name in letters.items()),
        ("fires", _EXPRESSION, decision),
    ]
    return {
        "uid": rule.uid,
        "title": rule.title,
        "condition": "fires",
        "for": rule.lasts,
        "noDataState": rule.no_data,
        "execErrState": rule.on_error,
        "labels": {"severity": rule.severity, **rule.labels},
        "annotations": {
            "summary": rule.summary,
            "description": rule.remedy,
            # Links and marks go by these. What a file says as `dashboardUid` and `panelId` is stored, but not
            # read (Grafana: SetDashboardAndPanelFromAnnotations in pkg/services/ngalert/models).
            "__dashboardUid__": rule.panel[0],
            "__panelId__": str(panel),
        },
        "data": [
            {
                "refId": name,
                "relativeTimeRange": {"from": rule.seconds, "to": 0},
                "datasourceUid": source,
                "model": {"refId": name, **model},
            }
            for name, source, model in steps
        ],
    }


def _query(statement: str) -> dict[str, Any]:
    return {
        "rawQuery": True,
        "resultFormat": "time_series",
        "intervalMs": 60_000,
        "maxDataPoints": 43_200,
        "query": statement,
    }


def _newest(letter: str) -> dict[str, Any]:
    return {"type": "reduce", "expression": letter, "reducer": "last"}
