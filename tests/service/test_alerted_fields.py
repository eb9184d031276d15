"""The alert rules ask for what the real recorder writes."""

import re
import time
from pathlib import Path

from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from tests.grafana.alerting import RULES, queries
from tests.support.influxd import Influxd, wait_until
from tests.support.service import Service

_MADE_OF = {"pcs_1h": "pcs", "pcs_1m": "pcs", "powermeter_1h": "powermeter", "flow_1m": "flow"}

_NO_FIELDS = {"site", "device", "source", "rollups", "value", "words", "samples", "share", "pv"}


def fields(influxd: Influxd, measurement: str) -> set[str]:
    """The names of a measurement's fields; none before it has a point."""
    if not any(row["name"] == "ess" for row in influxd.query("SHOW DATABASES")):
        return set()
    return {row["fieldKey"] for row in influxd.query(f'SHOW FIELD KEYS FROM "{measurement}"', "ess")}


def test_rules_ask_for_fields_that_the_recorder_writes(tmp_path: Path) -> None:
    """Each field of a rule's query is one that a recorder with inverter and meter has written."""
    stream = SiteStream(Plant(5, int(time.time()) - 5), DIALECTS["ttt"], FaultRates(), 5)
    text = b"".join(second.texts[0] for second, _ in zip(stream, range(5), strict=False))
    asked: dict[str, set[str]] = {}
    for query in (query for rule in RULES for query in queries(rule)):
        measurement = re.findall(r'FROM (?:"rollups"\.)?"(\w+)"', query)[-1]
        names = set(re.findall(r'"(\w+)"', query))
        asked.setdefault(measurement, set()).update(names - _NO_FIELDS - {measurement})
    assert asked.keys() - _MADE_OF.keys() == {"recorder", "powermeter", "pcs", "flow"}
    with Influxd(tmp_path / "influxd") as influxd, Service(tmp_path, influxd.url) as service:
        service.send(text)
        wait_until(lambda: {"sample_age", "queue_age", "frames"} <= fields(influxd, "recorder"))
        written = {name: fields(influxd, name) for name in asked}
    # Rollups have their fields under the same names.
    written |= {rollup: written[source] for rollup, source in _MADE_OF.items()}
    assert {name: asked[name] - written[name] for name in asked if asked[name] - written[name]} == {}
