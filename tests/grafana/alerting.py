"""What Grafana does with an alert rule: queries, the last value of each series, arithmetic, a limit.

Takes a provisioned rule and something that answers InfluxQL, gives the labels for which it fires. Shares no
code with the rules. Sources, in Grafana's repository: pkg/expr/threshold.go, pkg/expr/mathexp/reduce.go and
pkg/expr/mathexp/exp.go (`union`).
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.influxd import Row

ALERTING = Path(__file__).parents[2] / "grafana/provisioning/alerting"
RULES: tuple[dict[str, Any], ...] = tuple(
    rule
    for group in yaml.safe_load((ALERTING / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
)

Labels = frozenset[tuple[str, str]]
Numbers = dict[Labels, float]
Ask = Callable[[str], list[Row]]

_FORMULA = re.compile(r"[\w$. ()*+<>&|-]+")
_NOT_LABELS = {"name", "time"}


def firing(rule: Mapping[str, Any], ask: Ask) -> set[Labels]:
    """The labels of the instances whose condition holds."""
    return {labels for labels, value in _results(rule, ask)[rule["condition"]].items() if value}


def queries(rule: Mapping[str, Any]) -> list[str]:
    """The InfluxQL of a rule."""
    return [item["model"]["query"] for item in rule["data"] if "query" in item["model"]]


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """A provisioning file with its variables, as Go's `os.ExpandEnv`: one that is not set is empty."""
    return re.sub(r"\$\{?([A-Z_]+)\}?", lambda match: environment.get(match[1], ""), text)


def _results(rule: Mapping[str, Any], ask: Ask) -> dict[str, Numbers]:
    """What each step of a rule gives, in their order."""
    results: dict[str, Numbers] = {}
    series: dict[str, dict[Labels, list[float]]] = {}
    for item in rule["data"]:
        model = item["model"]
        assert model["refId"] == item["refId"]
        if item["datasourceUid"] != "__expr__":
            series[item["refId"]] = _series(ask(model["query"]))
        elif model["type"] == "reduce":
            assert model["reducer"] == "last"
            asked = series[model["expression"]]
            results[item["refId"]] = {labels: values[-1] for labels, values in asked.items()}
        elif model["type"] == "threshold":
            (condition,) = model["conditions"]
            beyond = _beyond(condition["evaluator"])
            results[item["refId"]] = {
                labels: beyond(value) for labels, value in results[model["expression"]].items()
            }
        else:
            results[item["refId"]] = _computed(model["expression"], results)
    return results


def _series(rows: list[Row]) -> dict[Labels, list[float]]:
    """Values by labels; Grafana refuses two series with the same labels, as two columns would be."""
    found: dict[Labels, list[float]] = {}
    for row in rows:
        labels = frozenset(
            (key, value) for key, value in row.items() if isinstance(value, str) and key not in _NOT_LABELS
        )
        (value,) = (value for key, value in row.items() if key != "time" and not isinstance(value, str))
        found.setdefault(labels, []).append(value)
    return found


def _beyond(evaluator: Mapping[str, Any]) -> Callable[[float], bool]:
    limits = evaluator["params"]
    return {
        "gt": lambda value: value > limits[0],
        "lt": lambda value: value < limits[0],
        "outside_range": lambda value: value < limits[0] or value > limits[-1],
    }[evaluator["type"]]


def _computed(formula: str, results: Mapping[str, Numbers]) -> Numbers:
    """A formula for each label that all its values have; Python ranks these operators as Grafana does."""
    assert _FORMULA.fullmatch(formula)
    names = re.findall(r"\$(\w+)", formula)
    python = re.sub(r"\$(\w+)", r"\1", formula).replace("&&", "and").replace("||", "or")
    common = set.intersection(*(set(results[name]) for name in names))
    return {
        labels: bool(eval(python, {"abs": abs}, {name: results[name][labels] for name in names}))
        for labels in common
    }
