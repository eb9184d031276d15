"""`make dashboard-pictures GRAFANA_URL=...`: the dashboards as pictures, from a Grafana that shows them.

Takes the address of a Grafana that lets anyone look, and a site, else the first one; writes the PNG files of
docs/pictures. Takes no picture of a dashboard in which a panel errs, lacks data or stays empty, and names it.

usage: python -m tests.grafana.pictures URL [SITE]
"""

import sys
from typing import Final
from urllib.parse import urlencode

from tests.browser.chromium import Chromium
from tests.grafana.pages import DASHBOARDS, ROOT

_WIDTH: Final = 1240
# Grafana draws only panels that are in sight.
_TALLER_THAN_ALL: Final = 7000
_RANGES: Final = {"energy-history": "now-1y"}

# The panels that still load, and the troubles of the others. Grafana 9, then Grafana 12.
_LOADING: Final = (
    "return document.querySelectorAll("
    '\'.panel-loading, [aria-label="Panel loading bar"], [data-testid="panel-loading-bar"]\').length'
)
_PANELS: Final = "return document.querySelectorAll('.react-grid-item').length"
_TROUBLES: Final = """
const failed = ".panel-info-corner--error, [data-testid='data-testid Panel status error']";
return [...document.querySelectorAll(".react-grid-item")].flatMap((panel) => {
  const [title, ...rest] = panel.innerText.split("\\n").filter((line) => line.trim());
  if (panel.querySelector(failed)) return [`${title}: error`];
  if (/No data|No numeric fields/.test(panel.innerText)) return [`${title}: no data`];
  return rest.length || panel.querySelector("canvas") ? [] : [`${title}: empty`];
});
"""
_BOTTOM: Final = """
const panels = [...document.querySelectorAll(".react-grid-item")];
return Math.ceil(Math.max(...panels.map((panel) => panel.getBoundingClientRect().bottom)));
"""


def main(arguments: list[str]) -> int:
    """Take every picture; 1 when a dashboard was not fit for one."""
    if len(arguments) not in (1, 2) or not arguments[0]:
        print(__doc__, file=sys.stderr)  # noqa: T201  # what the command is for
        return 2
    url, *site = arguments
    fit = True
    with Chromium() as browser:
        for name in DASHBOARDS:
            troubles = _take(browser, url.rstrip("/"), name, site)
            fit = fit and not troubles
            told = f"not taken: {', '.join(troubles)}" if troubles else f"docs/pictures/dashboard-{name}.png"
            print(f"{name}: {told}")  # noqa: T201  # what the command is for
    return 0 if fit else 1


def _take(browser: Chromium, url: str, name: str, site: list[str]) -> list[str]:
    """One dashboard; what is wrong with it, and then there is no picture."""
    asked = {"from": _RANGES.get(name, "now-24h"), "to": "now", "theme": "light", "refresh": ""}
    if site:
        asked["var-site"] = site[0]
    browser.shape(_WIDTH, _TALLER_THAN_ALL)
    browser.driver.get(f"{url}/d/{name}?{urlencode(asked)}")
    panels = len(DASHBOARDS[name]["panels"])
    browser.wait(lambda: browser.run(_PANELS) == panels and browser.run(_LOADING) == 0)
    try:
        browser.wait(lambda: not browser.run(_TROUBLES) and browser.run(_LOADING) == 0)
    except TimeoutError:
        return [str(trouble) for trouble in browser.run(_TROUBLES)]
    browser.shape(_WIDTH, int(browser.run(_BOTTOM)) + 16)
    browser.wait(lambda: browser.run(_LOADING) == 0)
    browser.driver.save_screenshot(str(ROOT / f"docs/pictures/dashboard-{name}.png"))
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
