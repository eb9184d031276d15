"""The dashboards as files, their panels, and what Grafana asks for them. Never builds one."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.grafana.as_grafana import TimeRange, interval_ms, resolved
from tests.grafana.year import SITE

ROOT = Path(__file__).parents[2]
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "grafana/dashboards").glob("*.json"))
}


class Page(NamedTuple):
    """A panel, and the dashboard that it is of."""

    dashboard: str
    panel: dict[str, Any]


PAGES = [Page(name, panel) for name, dashboard in DASHBOARDS.items() for panel in dashboard["panels"]]
EACH_PANEL = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: f"{page.dashboard} {page.panel['title']}"
)
EACH_DASHBOARD = pytest.mark.parametrize("name", DASHBOARDS)
CHOSEN = {"site": SITE, "device": "pcs", "meter": "meter", "capacity": "6.4"}
"""What is chosen above the dashboards, for the simulated year."""
RANGES = {"1 h": 1 / 24, "24 h": 1.0, "30 d": 30.0, "1 year": 365.0}
"""How many days a range of the time picker is long."""


def panel(dashboard: str, title: str) -> dict[str, Any]:
    """A panel by its title."""
    found: dict[str, Any]
    (found,) = (each for each in DASHBOARDS[dashboard]["panels"] if each["title"] == title)
    return found


def statements(shown: dict[str, Any], time_range: TimeRange, chosen: dict[str, str] = CHOSEN) -> list[str]:
    """The statements that Grafana sends for a panel."""
    milliseconds = interval_ms(shown, time_range)
    return [resolved(target["query"], time_range, chosen, milliseconds) for target in shown["targets"]]
