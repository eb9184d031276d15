"""`python -m tests.grafana.alert_years [DAYS]`: every alert rule over a year of three homes.

Takes the homes of `tests/grafana/homes.py`, fills a database for each in a real influxd, and asks the queries
of each rule as of past moments, as Grafana does each minute. Says what fired, and writes it into
`docs/alerts.md`. Exit code 1 where a rule fired without a fault, or not in time for one.

A rule is asked each minute, or five where it takes long to fire, around every fault, through the first
hours, and wherever a value came near a limit; elsewhere every six hours, and where it looks at strings every
five, so that each hour of the day has its turn.
Where its condition changes between two of those moments, each minute between them is asked too. So what comes
and goes within such a gap, far from any fault and limit, is not seen.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from rich.console import Console

from tests.grafana.alerting import RULES, Numbers, States, evaluated, queries
from tests.grafana.homes import BEGIN, HOMES, ZONE, Fault, Home, Life
from tests.support.influxd import Influxd, as_of

DOCUMENT = Path(__file__).parents[2] / "docs/alerts.md"
HEADING = "## Measured over a year of three homes\n"
NEXT_HEADING = "## Who hears of it\n"
DAYS = 366
HOMES_AT_A_TIME = 2

_LINES_A_WRITE, _MOMENTS_A_REQUEST = 10_000, 8
_MINUTE, _HOUR = 60, 3600
_FIRST_S, _BEFORE_S, _AFTER_S = 3 * _HOUR, 5 * _MINUTE, 15 * _MINUTE
_CHUNK = timedelta(days=2)
_VOLTAGES = ("voltage_l1", "voltage_l2", "voltage_l3")
_ROLLUPS = (
    ("pcs_1m", ("battery_soc",), "1m"),
    ("flow_1m", ("grid_export",), "1m"),
    ("pcs_1h", ("pv1_power", "pv_power"), "1h"),
    ("powermeter_1h", _VOLTAGES, "1h"),
)
"""What rules read of the rollups: the same means as the continuous queries make, of these fields only."""
_UNITS = {"min": 60, "h": 3600, "days": 86_400}

Rule = dict[str, Any]
Conditions = dict[int, Numbers | None]
"""What the evaluations of a rule gave, by moment in Unix s; None is an error."""


class Firing(NamedTuple):
    """When a rule fired, Unix s."""

    start_s: int
    end_s: int


class Judgement(NamedTuple):
    """How a rule did in a home: firings for faults and for none; each fault's delay, None if late."""

    correct: list[Firing]
    false: list[Firing]
    delays_s: list[tuple[Fault, int | None]]

    @property
    def is_right(self) -> bool:
        """Whether each fault was noticed in time, and nothing else."""
        return not self.false and all(delay is not None for _, delay in self.delays_s)


def fill(server: Influxd, life: Life) -> None:
    """Write all that the recorder of a home wrote, and derive the rollups."""
    database = life.home.name
    # One shard, so that the newest point ever is found as fast as among the 90 days that are kept.
    server.query(f'CREATE DATABASE "{database}" WITH DURATION INF SHARD DURATION 520w')
    server.query(f'CREATE RETENTION POLICY "rollups" ON "{database}" DURATION INF REPLICATION 1')
    lines = life.lines()
    while some := list(islice(lines, _LINES_A_WRITE)):
        server.write("\n".join(some).encode(), database)
    end = datetime.fromtimestamp(life.end_s, UTC)
    for target, fields, bucket in _ROLLUPS:
        source, means = target.rpartition("_")[0], ", ".join(f'mean("{name}") AS "{name}"' for name in fields)
        start = BEGIN.astimezone(UTC)
        while start < end:
            within = f"time >= '{start:%Y-%m-%dT%H:%M:%SZ}' AND time < '{start + _CHUNK:%Y-%m-%dT%H:%M:%SZ}'"
            into = f'SELECT {means} INTO "rollups"."{target}" FROM "{source}" WHERE {within}'
            server.query(f"{into} GROUP BY time({bucket}), * fill(none)", database)
            start += _CHUNK


def conditions(server: Influxd, life: Life, rule: Rule) -> Conditions:
    """Evaluate a rule at every moment that can matter."""
    found: Conditions = {}
    wanted = set(_moments(life, rule))
    while wanted:
        found |= _evaluate(server, life, rule, sorted(wanted))
        wanted = {
            moment
            for (one_s, one), (other_s, other) in pairwise(sorted(found.items()))
            if _holds(one) != _holds(other)
            for moment in range(one_s + _MINUTE, other_s, _MINUTE)
        }
    return dict(sorted(found.items()))


def firings(rule: Rule, found: Conditions) -> list[Firing]:
    """When a rule fired, from one evaluation to the next."""
    states = States(rule)
    fired: list[Firing] = []
    since: int | None = None
    for at_s, numbers in found.items():
        fires = bool(states.evaluate(at_s, numbers))
        if fires and since is None:
            since = at_s
        elif not fires and since is not None:
            fired.append(Firing(since, at_s))
            since = None
    if since is not None:
        fired.append(Firing(since, max(found)))
    return fired


def judge(life: Life, rule: Rule, fired: Sequence[Firing]) -> Judgement:
    """Tell the firings that a fault explains from those that none does."""
    most_s = latest_s(rule)
    expected = [fault for fault in life.faults if rule["uid"] in fault.expects]
    allowed = [*expected, *(fault for fault in life.faults if rule["uid"] in fault.allows)]
    correct = [
        one for one in fired if any(fault.start_s <= one.start_s <= fault.end_s + most_s for fault in allowed)
    ]
    delays = []
    for fault in expected:
        first = next((one for one in correct if fault.start_s <= one.start_s <= fault.start_s + most_s), None)
        # What is silent for days is reported for days.
        lasting = rule["uid"] != "ess-recorder-silent" or (
            first is not None and first.end_s >= fault.end_s - 90
        )
        delays.append((fault, first.start_s - fault.start_s if first and lasting else None))
    return Judgement(correct, [one for one in fired if one not in correct], delays)


def latest_s(rule: Rule) -> int:
    """How long a rule may take to notice a fault, by the document."""
    row = next(line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| {rule['title']} |"))
    number, unit = row.split("|")[-2].split()
    return int(number) * _UNITS[unit]


def judgements(
    server: Influxd, life: Life, rules: Iterable[Rule] = RULES
) -> Iterator[tuple[Rule, Judgement]]:
    """Every rule over the life of a home that `fill` has written."""
    for rule in rules:
        yield rule, judge(life, rule, firings(rule, conditions(server, life, rule)))


def _moments(life: Life, rule: Rule) -> Iterator[int]:
    """Half minutes, so that no sample is of the very moment of an evaluation."""
    begin_s, end_s = life.begin_s, life.end_s
    asked = queries(rule)
    of_strings = all('"rollups"."pcs_1h"' in query for query in asked)
    of_recorder = all('FROM "recorder"' in query for query in asked)
    coarse_s = (5 if of_strings else 6) * _HOUR
    yield from range(begin_s + coarse_s - 1770, end_s, coarse_s)
    if of_strings:
        for fault in life.faults:
            if fault.kind in {"string dead", "snow"}:
                first_s = fault.start_s // _HOUR * _HOUR + 1830
                yield from range(first_s, min(fault.end_s + 6 * 24 * _HOUR, end_s), _HOUR)
        return
    latest = latest_s(rule)
    step_s = _MINUTE if latest < 10 * _MINUTE else 5 * _MINUTE
    yield from range(begin_s - 90, min(end_s, begin_s + _FIRST_S), _MINUTE)
    for fault in life.faults:
        for edge_s in (fault.start_s, fault.end_s):
            at_s = edge_s // _MINUTE * _MINUTE + 30
            first_s = max(at_s - _BEFORE_S, begin_s - 90)
            yield from range(first_s, min(at_s + latest + _AFTER_S, end_s), step_s)
    if not of_recorder:
        for at_s in life.notable:
            yield from range(at_s + 30, min(at_s + 6 * _MINUTE, end_s), step_s)


def _evaluate(server: Influxd, life: Life, rule: Rule, moments: Sequence[int]) -> Conditions:
    down = [fault for fault in life.faults if fault.kind == "influxdb down"]
    found: Conditions = {}
    answered = []
    for at_s in moments:
        # Before its start a recorder has made no database.
        if at_s < life.begin_s or any(fault.start_s <= at_s < fault.end_s for fault in down):
            found[at_s] = None
        else:
            answered.append(at_s)
    asked = queries(rule)
    for place in range(0, len(answered), _MOMENTS_A_REQUEST):
        batch = answered[place : place + _MOMENTS_A_REQUEST]
        texts = [as_of(datetime.fromtimestamp(at_s, UTC), query) for at_s in batch for query in asked]
        rows = iter(server.query_each(texts, life.home.name))
        for at_s in batch:
            of_moment = {query: next(rows) for query in asked}
            found[at_s] = evaluated(rule, of_moment.__getitem__)
    return found


def _holds(numbers: Numbers | None) -> object:
    return None if numbers is None else {labels for labels, value in numbers.items() if value}


def run(home: Home, days: int) -> dict[str, Judgement]:
    """Every rule over so many days of a home, by its title; says what it finds."""
    console = Console(width=160, highlight=False)
    life = Life(home, BEGIN + timedelta(days=days))
    judged = {}
    began = time.monotonic()
    with TemporaryDirectory() as directory, Influxd(Path(directory) / "influxd") as server:
        fill(server, life)
        for rule, judgement in judgements(server, life):
            judged[rule["title"]] = judgement
            console.print("\n".join(_told(home, rule, judgement, time.monotonic() - began)))
            sys.stdout.flush()
    return judged


def main() -> int:
    """Run all homes, and write the table; 0 where no rule was wrong."""
    days = int(sys.argv[1]) if len(sys.argv) > 1 else DAYS
    with ProcessPoolExecutor(HOMES_AT_A_TIME, mp_context=get_context("spawn")) as pool:
        judged = list(pool.map(run, HOMES, [days] * len(HOMES)))
    if days >= DAYS:
        DOCUMENT.write_text(_document(DOCUMENT.read_text(), judged))
    return int(not all(one.is_right for of_home in judged for one in of_home.values()))


def _told(home: Home, rule: Rule, judgement: Judgement, seconds: float) -> Iterator[str]:
    delays = ", ".join(
        "late" if delay is None else f"{delay / 60:.0f} min" for _, delay in judgement.delays_s
    )
    counts = f"{len(judgement.correct)} correct, {len(judgement.false)} false"
    yield f"{seconds:5.0f} s  {home.name}  {rule['title']}: {counts}; {delays}"
    for fault, delay in judgement.delays_s:
        if delay is None:
            yield f"      not in time: {fault.kind} at {fault.at:%Y-%m-%d %H:%M}"
    for one in judgement.false:
        yield f"      false: {_local(one.start_s)} to {_local(one.end_s)}"


def _local(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s, ZONE):%Y-%m-%d %H:%M}"


def _document(text: str, judged: Sequence[dict[str, Judgement]]) -> str:
    before, _, rest = text.partition(HEADING)
    after = (rest or before).partition(NEXT_HEADING)[2]
    before = before.partition(NEXT_HEADING)[0]
    table = [
        ("rule", *(home.title for home in HOMES), "faults noticed", "after", "at the latest"),
        ("---",) * (len(HOMES) + 4),
    ]
    for rule in RULES:
        of_homes = [of_home[rule["title"]] for of_home in judged]
        delays = [delay for one in of_homes for _, delay in one.delays_s]
        noticed = [round(delay / 60) for delay in delays if delay is not None]
        table.append(
            (
                rule["title"],
                *(f"{len(one.correct)} / {len(one.false)}" for one in of_homes),
                f"{len(noticed)} of {len(delays)}",
                f"{min(noticed)} to {max(noticed)} min" if noticed else "-",
                f"{latest_s(rule) // 60} min",
            )
        )
    rows = "".join("| " + " | ".join(row) + " |\n" for row in table)
    return f"{before}{HEADING}{INTRODUCTION}\n{rows}\n{NEXT_HEADING}{after}"


INTRODUCTION = f"""\
`make alert-years` wrote this. It fills a real influxd with a simulated year of each home, from
{BEGIN:%d %B %Y} on, with the faults that `tests/grafana/homes.py` lists, and asks every rule's queries as of
past moments, as Grafana does: each minute around faults, in the first hours and near limits, else every few
hours. A cell has the firings for a fault, and those without one. What only light shows is reported anew each
day.
"""


if __name__ == "__main__":
    sys.exit(main())
