"""The live page when something is wrong: the recorder gone, clocks, tokens, hostile names."""

from pathlib import Path

import pytest

from tests.browser.chromium import Chromium
from tests.support.controller import Controller, Moment
from tests.support.service import Service

pytestmark = pytest.mark.xdist_group("browser")

MOMENT = Moment(pv_w=1200, battery_w=800, home_w=2600)


def address(service: Service) -> str:
    return f"http://127.0.0.1:{service.http_port}/"


def test_page_outlives_a_restart_of_the_recorder(browser: Chromium, tmp_path: Path) -> None:
    """While the recorder is away the page says so, and goes on by itself when it is back."""
    service = Service(tmp_path, "")
    with service:
        browser.open(address(service))
        with Controller(service.pcs_port, MOMENT):
            browser.wait(lambda: browser.state() == "live")
    browser.wait(lambda: browser.state() == "offline")
    assert browser.text("#state-text").startswith("No connection")
    with service, Controller(service.pcs_port, MOMENT):
        browser.wait(lambda: browser.state() == "live")


def test_page_opened_before_the_recorder_has_a_sample_waits_for_it(browser: Chromium, tmp_path: Path) -> None:
    """Without any sample it says so, shows no figures, and becomes live with the first."""
    with Service(tmp_path, "") as service:
        browser.open(address(service))
        browser.wait(lambda: browser.text("#state-text") == "No sample yet")
        assert browser.text("#power-home") == "\N{EN DASH}"
        with Controller(service.pcs_port, MOMENT):
            browser.wait(lambda: browser.state() == "live")
            assert browser.text("#power-home") == "2.60 kW"


@pytest.mark.parametrize("hours", [-30, 30])
def test_wrong_clock_of_the_browser_changes_nothing(browser: Chromium, tmp_path: Path, hours: int) -> None:
    """A browser more than a day off calls a fresh sample live, and an old one stale."""
    wrong = f"const real = Date.now; Date.now = () => real() + {hours} * 3600000;"
    script = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": wrong})
    try:
        with Service(tmp_path, "") as service:
            browser.open(address(service))
            with Controller(service.pcs_port, MOMENT):
                browser.wait(lambda: browser.state() == "live")
            browser.wait(lambda: browser.state() == "stale")
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_token_in_the_address_opens_the_page_once_and_for_later(browser: Chromium, tmp_path: Path) -> None:
    """With ?token= the page works and its address no longer holds the token; the next visit needs none."""
    with Service(tmp_path, "", ESS_HTTP_TOKEN="correct-horse") as service:
        with Controller(service.pcs_port, MOMENT):
            browser.open(f"{address(service)}?token=correct-horse")
            browser.wait(lambda: browser.state() == "live")
            assert "correct-horse" not in browser.driver.current_url
            browser.open(address(service))
            browser.wait(lambda: browser.state() == "live")
        browser.driver.delete_all_cookies()


def test_site_name_is_text_whatever_it_holds(browser: Chromium, tmp_path: Path) -> None:
    """A site that is named like a script is shown by its name, and runs nothing."""
    name = "<img src=x onerror=window.ran=1><script>window.ran=1</script>"
    with Service(tmp_path, "", ESS_SITE=name) as service, Controller(service.pcs_port, MOMENT):
        browser.open(address(service))
        browser.wait(lambda: browser.state() == "live" and browser.text("#parts") != "")
        assert browser.text("#site") == name
        assert browser.run("return window.ran") is None
        assert browser.run("return document.querySelectorAll('img, body script').length") == 0


def test_problem_is_shown_with_its_remedy(browser: Chromium, tmp_path: Path) -> None:
    """An InfluxDB that does not answer stands above everything else, with what to do; the flows go on."""
    with Service(tmp_path, "http://127.0.0.1:9") as service, Controller(service.pcs_port, MOMENT):
        browser.open(address(service))
        browser.wait(lambda: "InfluxDB" in browser.text("#problems"))
        assert "check that it runs" in browser.text("#problems")
        assert browser.run("return document.getElementById('notice').getBoundingClientRect().height > 0")
        browser.wait(lambda: browser.state() == "live")
