"""The dashboards as files, and their panels, for tests. Never builds one."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

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


def panel(dashboard: str, title: str) -> dict[str, Any]:
    """A panel by its title."""
    found: dict[str, Any]
    (found,) = (each for each in DASHBOARDS[dashboard]["panels"] if each["title"] == title)
    return found
