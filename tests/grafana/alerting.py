"""What Grafana does with an alert rule: queries, the last value of each series, arithmetic, a limit.

Takes a provisioned rule and something that answers InfluxQL, gives the labels for which it fires. Shares no
code with the rules. Sources, in Grafana's repository: pkg/expr/threshold.go, pkg/expr/mathexp/reduce.go,
pkg/expr/mathexp/exp.go (`union`), and for `States` pkg/services/ngalert/state/state.go and manager.go.
"""

import ast
import operator
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

INTERVAL_SECONDS = 60
NO_LABELS: Labels = frozenset()
_NOT_LABELS = {"name", "time"}


def firing(rule: Mapping[str, Any], ask: Ask) -> set[Labels]:
    """The labels of the instances whose condition holds."""
    return {labels for labels, value in evaluated(rule, ask).items() if value}


def evaluated(rule: Mapping[str, Any], ask: Ask) -> Numbers:
    """The condition of each instance, 0 where it does not hold; empty is "no data"."""
    return _results(rule, ask)[rule["condition"]]


class States:
    """The instances of a rule from one evaluation to the next."""

    def __init__(self, rule: Mapping[str, Any]) -> None:
        self._rule = rule
        self._for_s = seconds_of(rule["for"])
        self._since: dict[Labels, float] = {}
        self._seen: dict[Labels, float] = {}
        self.firing: set[Labels] = set()

    def evaluate(self, at_s: float, conditions: Numbers | None) -> set[Labels]:
        """Take what an evaluation gave, None for an error, and give the instances that fire."""
        if conditions:
            for labels, holds in conditions.items():
                self._set(labels, at_s, alerting=bool(holds))
            for labels in [
                one for one, seen_s in self._seen.items() if at_s - seen_s >= 2 * INTERVAL_SECONDS
            ]:
                self._set(labels, at_s, alerting=False)
                del self._seen[labels]
            return self.firing
        state = self._rule["execErrState" if conditions is None else "noDataState"]
        for labels in list(self._seen) or [NO_LABELS]:
            if state == "KeepLast":
                self._set(labels, at_s, alerting=labels in self._since)
            else:
                self._set(labels, at_s, alerting=state == "Alerting")
        return self.firing

    def _set(self, labels: Labels, at_s: float, *, alerting: bool) -> None:
        self._seen[labels] = at_s
        if not alerting:
            self._since.pop(labels, None)
            self.firing.discard(labels)
        elif at_s - self._since.setdefault(labels, at_s) >= self._for_s:
            self.firing.add(labels)


def seconds_of(duration: str) -> int:
    """The seconds of a duration such as `15m`."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[duration[-1]]


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
                labels: float(beyond(value)) for labels, value in results[model["expression"]].items()
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
    """A formula of values; Python ranks these operators as Grafana does."""
    python = re.sub(r"\$(\w+)", r"\1", formula).replace("&&", "and").replace("||", "or")
    node = ast.parse(python, mode="eval").body
    found = _value(node, results)
    assert isinstance(found, dict)
    return found


_OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Lt: operator.lt, ast.Gt: operator.gt, ast.LtE: operator.le, ast.GtE: operator.ge,
    ast.And: lambda one, other: bool(one) and bool(other),
    ast.Or: lambda one, other: bool(one) or bool(other),
}  # fmt: skip


def _value(node: ast.expr, results: Mapping[str, Numbers]) -> Numbers | float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return results[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _both(operator.sub, 0.0, _value(operand, results))
        case ast.BinOp(left=left, op=sign, right=right):
            return _both(_OPERATORS[type(sign)], _value(left, results), _value(right, results))
        case ast.Compare(left=left, ops=[sign], comparators=[right]):
            return _both(_OPERATORS[type(sign)], _value(left, results), _value(right, results))
        case ast.BoolOp(op=sign, values=[first, *others]):
            value = _value(first, results)
            for other in others:
                value = _both(_OPERATORS[type(sign)], value, _value(other, results))
            return value
    raise AssertionError(ast.dump(node))


def _both(
    function: Callable[[float, float], float], one: Numbers | float, other: Numbers | float
) -> Numbers | float:
    """What two values give: those with the same labels, or one whose labels are among the other's."""
    if not isinstance(one, dict) and not isinstance(other, dict):
        return float(function(one, other))
    if not isinstance(one, dict):
        return {labels: float(function(one, value)) for labels, value in other.items()}  # type: ignore[union-attr]
    if not isinstance(other, dict):
        return {labels: float(function(value, other)) for labels, value in one.items()}
    found = {
        max(mine, theirs, key=len): float(function(one[mine], other[theirs]))
        for mine in one
        for theirs in other
        if mine <= theirs or theirs <= mine
    }
    if not found and len(one) == len(other) == 1:
        # Grafana joins what is alone on both sides, whatever its labels are, and drops those.
        ((mine_value,), (theirs_value,)) = one.values(), other.values()
        return {NO_LABELS: float(function(mine_value, theirs_value))}
    return found
