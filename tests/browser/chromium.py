"""Debian's chromium, driven by its own driver.

Takes nothing, gives a browser without a window, and what it asked for and complained about. Never
downloads anything, and never talks to another machine.
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from selenium import webdriver
from selenium.webdriver.chrome.service import Service as Driver

from tests.support.influxd import TIMEOUT_SECONDS, wait_until

# Notes each change of an element's text or state with the browser's time, Unix ms.
_WATCH: Final = """
window.seen = {};
const note = (key, value) => (window.seen[key] ??= []).push([Date.now(), value]);
for (const id of ["power-pv", "state-text"]) {
  const node = document.getElementById(id);
  const anything = { childList: true, characterData: true, subtree: true };
  new MutationObserver(() => note(id, node.textContent)).observe(node, anything);
}
new MutationObserver(() => note("state", document.body.dataset.state))
  .observe(document.body, { attributes: true, attributeFilter: ["data-state"] });
"""


class Chromium:
    """A browser for as long as the `with` block."""

    def __enter__(self) -> Self:
        os.environ["SE_OFFLINE"] = "true"
        options = webdriver.ChromeOptions()
        options.binary_location = _installed("chromium")
        for switch in (
            "headless=new",
            "no-sandbox",
            "disable-gpu",
            "disable-dev-shm-usage",
            "hide-scrollbars",
        ):
            options.add_argument(f"--{switch}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Driver(_installed("chromedriver")))
        self.driver.set_page_load_timeout(TIMEOUT_SECONDS)
        self.driver.set_script_timeout(TIMEOUT_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.driver.quit()

    def shape(self, width: int, height: int, *, scale: float = 1.0) -> None:
        """Set the size of the page's window in CSS pixels, and how many pixels each has."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, **features: str) -> None:
        """Set media features, such as `prefers_color_scheme="dark"`."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})

    def open(self, url: str) -> None:
        """Open an address, and watch the page from there on."""
        self.driver.get(url)
        self.run(_WATCH)

    def run(self, script: str, *arguments: object) -> Any:
        """Run JavaScript in the page; what it returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """The text of the first element that fits, hidden or not."""
        text = self.run("return document.querySelector(arguments[0]).textContent", selector)
        assert isinstance(text, str)
        return text

    def state(self) -> str:
        """What the page says about itself: connecting, live, stale or offline."""
        state = self.run("return document.body.dataset.state")
        assert isinstance(state, str)
        return state

    def wait(self, condition: Callable[[], bool]) -> None:
        """Return as soon as a condition holds."""
        wait_until(condition)

    def seen(self, key: str) -> list[tuple[float, str]]:
        """Every change that was watched: Unix seconds, and the new value."""
        return [
            (at_ms / 1000, value) for at_ms, value in self.run("return window.seen[arguments[0]] ?? []", key)
        ]

    def requested_urls(self) -> list[str]:
        """Every address that pages asked for since this was last called."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """Warnings and errors on the console since this was last called."""
        return [entry["message"] for entry in self._log("browser") if entry["level"] in {"SEVERE", "WARNING"}]

    def serious_findings(self) -> list[str]:
        """What axe-core finds on the page that is serious or critical."""
        self.run(axe_script().read_text())
        found = self.driver.execute_async_script(
            "axe.run(document, {resultTypes: ['violations']}).then(arguments[arguments.length - 1])"
        )
        return [
            f"{violation['id']}: {node['html']} {node['failureSummary']}"
            for violation in found["violations"]
            if violation["impact"] in {"serious", "critical"}
            for node in violation["nodes"]
        ]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return entries


def axe_script() -> Path:
    """The accessibility checker, as a package of Python brings it; the package itself is not imported."""
    spec = importlib.util.find_spec("axe_playwright_python")
    assert spec is not None, "run make test, or: pip install --no-deps -r tests/browser/requirements.lock"
    assert spec.origin is not None
    return Path(spec.origin).with_name("axe.min.js")


def _installed(program: str) -> str:
    path = shutil.which(program)
    assert path is not None, f"{program} is not installed: make test installs it"
    return path
