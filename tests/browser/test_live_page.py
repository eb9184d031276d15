"""The live page in a real browser, before a real recorder that a controller sends to."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser.chromium import Chromium
from tests.support.controller import Controller, Moment
from tests.support.service import Service

pytestmark = pytest.mark.xdist_group("browser")

MIXED = Moment(pv_w=1200, battery_w=800, home_w=2600)
SITUATIONS = {
    "sun and export": (Moment(4000, 0, 600), {("pv", "home"), ("pv", "grid")}),
    "sun and charging": (Moment(3000, -2400, 600), {("pv", "home"), ("pv", "battery")}),
    "night on battery": (Moment(0, 500, 500), {("battery", "home")}),
    "night on grid": (Moment(0, 0, 700), {("grid", "home")}),
    "grid charging": (Moment(0, -1500, 400), {("grid", "home"), ("grid", "battery")}),
    "mixed": (MIXED, {("pv", "home"), ("battery", "home"), ("grid", "home")}),
}

# Where each visible line begins and ends, read off its drawing; and whether its dots and arrow go that way.
LINES = """
const nodes = [...document.querySelectorAll(".node")].map((node) => {
  const at = node.transform.baseVal.consolidate().matrix;
  return { name: node.dataset.node, x: at.e, y: at.f };
});
const distance = (node, point) => Math.hypot(node.x - point.x, node.y - point.y);
const nearest = (point) => nodes.toSorted((one, other) => distance(one, point) - distance(other, point))[0];
return [...document.querySelectorAll(".flow")]
  .filter((line) => getComputedStyle(line).display !== "none")
  .map((line) => {
    const path = line.querySelector(".beam");
    const length = path.getTotalLength();
    const dots = line.querySelector(".sparks");
    const [first, last] = dots.getAnimations()[0].effect.getKeyframes();
    const head = line.querySelector(".head").transform.baseVal.consolidate().matrix;
    const before = path.getPointAtLength(length * 0.69);
    const after = path.getPointAtLength(length * 0.71);
    return {
      from: nearest(path.getPointAtLength(0)).name,
      to: nearest(path.getPointAtLength(length)).name,
      sameDots: dots.getAttribute("d") === path.getAttribute("d"),
      forward: parseFloat(first.strokeDashoffset) - parseFloat(last.strokeDashoffset),
      playing: dots.getAnimations()[0].playState,
      arrow: head.a * (after.x - before.x) + head.b * (after.y - before.y),
      width: parseFloat(getComputedStyle(path).strokeWidth),
    };
  });
"""

STANDING_OUT = """
return [...document.querySelectorAll("body *")]
  .filter((part) => !part.closest(".scroll, .visually-hidden, .skip"))
  .filter((part) => part.getBoundingClientRect().right > innerWidth + 0.5)
  .map((part) => part.outerHTML);
"""

FOCUSED = """
const part = document.activeElement;
return { name: part.id || part.value || part.textContent.trim(), outline: getComputedStyle(part).outlineStyle,
         radio: part.type === "radio", end: part === document.body };
"""

# Months are not answered until `failLate` is called, and then they fail.
HOLD_MONTHS = """
const ask = window.fetch;
window.fetch = (url, options) => {
  if (!url.includes("step=1d")) return ask(url, options);
  return new Promise((_, fail) => (window.failLate = () => fail(new TypeError())));
};
"""

# Nothing is asked for again by the page's own clock.
NO_REPEATED_QUESTIONS = """
const repeat = window.setInterval;
window.setInterval = (ask, everyMs) => (everyMs < 10000 ? repeat(ask, everyMs) : 0);
"""

QUESTIONS = """
return performance.getEntriesByType("resource")
  .map((entry) => new URL(entry.name))
  .filter((url) => /latest|health|history/.test(url.pathname))
  .map((url) => `${url.pathname} ${url.searchParams.get("step") ?? ""}`.trim())
  .toSorted();
"""

NOTE_ANNOUNCEMENTS = """
window.told = [];
const voice = document.getElementById("announcement");
new MutationObserver(() => told.push(voice.textContent)).observe(voice, { childList: true });
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("recorder"), "") as recorder:
        yield recorder


@pytest.fixture
def page(browser: Chromium, service: Service) -> Chromium:
    """The page in a desktop's window, in light, without anything left of the test before."""
    browser.prefer(prefers_color_scheme="light")
    browser.shape(1400, 900)
    browser.complaints()
    browser.requested_urls()
    browser.open(f"http://127.0.0.1:{service.http_port}/")
    return browser


def test_page_shows_the_figure_of_each_frame(page: Chromium, service: Service) -> None:
    """Ten frames, each with a figure of its own, are in the page one after the other."""
    with Controller(service.pcs_port, Moment(700, 0, 700), rising=True):
        page.wait(lambda: len(page.seen("power-pv")) >= 11)
    shown = [text for _, text in page.seen("power-pv") if text.endswith(" W")]
    figures = [int(text.removesuffix(" W")) for text in shown]
    assert figures == sorted(figures)
    assert len(figures) >= 10


@pytest.mark.parametrize("situation", SITUATIONS)
def test_lines_point_the_right_way(page: Chromium, service: Service, situation: str) -> None:
    """The visible lines begin and end where the power does, and dots and arrow go along."""
    moment, flows = SITUATIONS[situation]

    def is_right(line: dict[str, Any]) -> bool:
        goes_along = line["sameDots"] and line["forward"] > 0 and line["arrow"] > 0
        return bool(goes_along and line["playing"] == "running")

    with Controller(service.pcs_port, moment):
        page.wait(lambda: {(line["from"], line["to"]) for line in page.run(LINES) if is_right(line)} == flows)
        page.wait(lambda: page.state() == "live")
        assert {(line["from"], line["to"]) for line in page.run(LINES)} == flows


def test_line_is_wider_with_more_power(page: Chromium, service: Service) -> None:
    """1,200 W of PV are wider than 800 W of the battery, and those than 600 W of the grid."""
    with Controller(service.pcs_port, MIXED):
        page.wait(lambda: len(page.run(LINES)) == 3)
        # A change of width takes half a second.
        page.wait(lambda: _widths(page)["pv"] > _widths(page)["battery"] > _widths(page)["grid"])


def test_page_is_stale_after_the_end_of_the_stream_and_comes_back(page: Chromium, service: Service) -> None:
    """What is old is called stale, the dots stop, and with the next frame the page is live again."""
    with Controller(service.pcs_port, MIXED) as controller:
        page.wait(lambda: len(controller.sent) >= 3 and page.state() == "live")
    page.wait(lambda: page.state() == "stale")
    _, ended_at = controller.sent[-1]
    live_until = max(at for at, state in page.seen("state") if state == "live")
    stale_at = min(at for at, state in page.seen("state") if state == "stale" and at > live_until)
    assert stale_at > ended_at
    assert page.text("#state-text").startswith("Stale: last sample")
    assert {line["playing"] for line in page.run(LINES)} == {"paused"}
    with Controller(service.pcs_port, MIXED):
        page.wait(lambda: page.state() == "live")


@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_is_wider_than_the_window(page: Chromium, service: Service, width: int) -> None:
    """With all tables open, neither the page nor any part of it stands out to the side."""
    page.shape(width, 800)
    with Controller(service.pcs_port, MIXED):
        page.wait(lambda: page.state() == "live" and page.text("#energies") != "")
        page.wait(lambda: page.run("return document.querySelectorAll('.u-wrap').length") == 2)
        page.run("for (const part of document.querySelectorAll('details')) part.open = true")
        page.wait(lambda: page.run("return document.querySelectorAll('#history-table td').length > 20"))
        assert page.run("return document.documentElement.scrollWidth") <= width
        assert page.run(STANDING_OUT) == []


def test_page_asks_only_its_recorder_and_complains_of_nothing(page: Chromium, service: Service) -> None:
    """Every request goes to the recorder itself, and the console stays empty."""
    with Controller(service.pcs_port, MIXED):
        page.wait(lambda: page.state() == "live" and page.text("#energies") != "")
        page.wait(lambda: page.run("return document.querySelectorAll('.u-wrap').length") == 2)
        for choice in page.driver.find_elements(By.CSS_SELECTOR, "#ranges input"):
            page.run("arguments[0].click()", choice)
        page.wait(lambda: page.text("#history-note") == "")
    own = f"http://127.0.0.1:{service.http_port}/"
    urls = page.requested_urls()
    assert len(urls) > 12
    assert [url for url in urls if not url.startswith(own)] == []
    assert page.complaints() == []


def test_page_asks_each_question_once_when_it_opens(page: Chromium, service: Service) -> None:
    """Until its clock asks again, a page whose stream has opened has asked for each figure once."""
    source = {"source": NO_REPEATED_QUESTIONS}
    script = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", source)
    page.open(f"http://127.0.0.1:{service.http_port}/")
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    with Controller(service.pcs_port, MIXED) as controller:
        page.wait(lambda: page.state() == "live" and page.text("#energies") != "")
        page.wait(lambda: page.run("return document.querySelectorAll('.u-wrap').length") == 2)
        began = len(controller.sent)
        page.wait(lambda: len(controller.sent) >= began + 2)
        asked = page.run(QUESTIONS)
    assert asked == ["/api/v1/health", "/api/v1/history 1h", "/api/v1/history 1m", "/api/v1/latest"]


def test_late_failure_says_nothing_of_a_later_choice(page: Chromium, service: Service) -> None:
    """A range that cannot be loaded is not complained of below the charts of the range chosen after it."""
    with Controller(service.pcs_port, MIXED):
        page.wait(lambda: page.run("return document.querySelectorAll('.u-wrap').length") == 2)
        page.run(HOLD_MONTHS)
        page.run("document.querySelector('#ranges [value=\"12m\"]').click()")
        page.run("document.getElementById('history-note').textContent = 'not answered yet'")
        page.run("document.querySelector('#ranges [value=\"6h\"]').click()")
        page.wait(lambda: page.text("#history-note") == "")
        page.run("failLate()")
        assert page.text("#history-note") == ""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessibility_checker_finds_nothing_serious(page: Chromium, service: Service, theme: str) -> None:
    """axe-core, with everything opened, live and stale."""
    page.prefer(prefers_color_scheme=theme)
    with Controller(service.pcs_port, MIXED):
        page.wait(lambda: page.state() == "live" and page.text("#energies") != "")
        page.run("for (const part of document.querySelectorAll('details')) part.open = true")
        page.wait(lambda: page.run("return document.querySelectorAll('#history-table td').length > 20"))
        assert page.run("return document.documentElement.dataset.theme") == theme
        assert page.serious_findings() == []
    page.wait(lambda: page.state() == "stale")
    assert page.serious_findings() == []


def test_theme_can_be_chosen_and_is_kept(page: Chromium, service: Service) -> None:
    """The switch goes from the system's theme to light to dark, and a new visit keeps that."""
    button = page.driver.find_element(By.ID, "theme")
    button.click()
    button.click()
    assert page.text("#theme") == "Theme: dark"
    page.open(f"http://127.0.0.1:{service.http_port}/")
    assert page.run("return document.documentElement.dataset.theme") == "dark"
    page.run("localStorage.clear()")


def test_keyboard_reaches_and_uses_every_control(page: Chromium, service: Service) -> None:
    """Tab goes over the switch, the ranges, the tables and links, with a visible focus; an arrow chooses."""
    page.wait(lambda: page.text("#site") == "home")
    reached = set()
    for _ in range(20):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        focused = page.run(FOCUSED)
        if focused["end"]:
            break
        reached.add(focused["name"])
        if focused["radio"]:
            page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
            assert page.run(FOCUSED)["name"] == "7d"
        else:
            assert focused["outline"] == "solid", focused["name"]
    assert {"theme", "24h", "The flows as a table", "The charts as a table", "Metrics"} <= reached


def test_screen_reader_is_told_the_figures_and_not_every_second(page: Chromium, service: Service) -> None:
    """The announcement says the flows when the page becomes live, and then stays for a while."""
    # What another test sent must be old, so that the page becomes live before our eyes.
    page.wait(lambda: page.state() == "stale")
    before = len(page.seen("state"))
    page.run(NOTE_ANNOUNCEMENTS)
    with Controller(service.pcs_port, MIXED) as controller:
        page.wait(lambda: page.state() == "live")
        began = len(controller.sent)
        page.wait(lambda: len(controller.sent) >= began + 3)
        told = [text for text in page.run("return told") if text.startswith("Energy flows: PV")]
    states = ["stale", *(state for _, state in page.seen("state")[before:])]
    # On a busy machine a frame may come so late that the page was stale meanwhile.
    assert len(told) == sum(one != "live" == other for one, other in pairwise(states))


def test_what_was_not_recorded_is_a_dash(page: Chromium, service: Service) -> None:
    """In the table of a day most of which was not recorded only the last row holds figures."""
    with Controller(service.pcs_port, MIXED):
        page.wait(lambda: page.state() == "live")
        page.open(f"http://127.0.0.1:{service.http_port}/")
        page.run("document.getElementById('history-details').open = true")
        page.wait(lambda: page.run("return document.querySelectorAll('#history-table td').length > 20"))
        rows = page.run(
            "return [...document.querySelectorAll('#history-table tbody tr')]"
            ".map((row) => [...row.querySelectorAll('td')].map((cell) => cell.textContent))"
        )
    assert rows[0] == ["–"] * 5  # noqa: RUF001  # the page's own dash
    assert all(text.endswith(("W", "%")) for text in rows[-1])


def test_motion_stops_where_it_is_not_wanted(page: Chromium, service: Service) -> None:
    """With reduced motion there are no moving dots; lines and arrows stay."""
    page.prefer(prefers_reduced_motion="reduce")
    with Controller(service.pcs_port, MIXED):
        page.wait(lambda: page.state() == "live")
        page.wait(lambda: page.run("return document.querySelectorAll('.flow.on').length") == 3)
        shown = "return getComputedStyle(document.querySelector(arguments[0])).display"
        assert page.run(shown, ".flow.on .sparks") == "none"
        assert page.run(shown, ".flow.on .head") != "none"


def _widths(page: Chromium) -> dict[str, float]:
    return {line["from"]: line["width"] for line in page.run(LINES)}
