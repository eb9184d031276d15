"""The dashboards and alert rules as code: writes the files that Grafana 12 loads.

Takes the rooms of `grafana/pages/` and `grafana/alert_rules.py`, gives a file for each dashboard in
`grafana/dashboards/`, and the rules in `grafana/provisioning/`. Uses built-in panels only. Never talks to
Grafana or InfluxDB.

usage: python grafana/build.py [--check]
    --check  write nothing; exit 1 when a file is not what this program would write
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import alerts
from grafana.alert_rules import GROUPS
from grafana.pages import battery, energy_flows, energy_history, grid, recorder

DIRECTORY = Path(__file__).parent
RULES = "provisioning/alerting/rules.yaml"
DASHBOARDS: dict[str, Callable[[], Dashboard]] = {
    "energy-flows.json": energy_flows.dashboard,
    "energy-history.json": energy_history.dashboard,
    "battery-and-pv.json": battery.dashboard,
    "grid.json": grid.dashboard,
    "recorder.json": recorder.dashboard,
}


def text_of(dashboard: Dashboard) -> str:
    """A dashboard as the JSON that Grafana loads, its panels numbered in their order."""
    built = dashboard.build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def files() -> dict[str, str]:
    """Every file by its path below `grafana/`."""
    dashboards = {f"dashboards/{name}": text_of(dashboard()) for name, dashboard in DASHBOARDS.items()}
    panels = {
        (dashboard["uid"], panel["title"]): panel["id"]
        for dashboard in map(json.loads, dashboards.values())
        for panel in dashboard["panels"]
    }
    return {**dashboards, RULES: alerts.file_of(GROUPS, panels)}


def main(arguments: list[str], directory: Path = DIRECTORY) -> int:
    """Write the files, or with `--check` compare them; the exit code."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = []
    for name, text in files().items():
        path = directory / name
        if not arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            stale.append(name)
    if stale:
        print(f"{', '.join(stale)}: out of date; run: python grafana/build.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
