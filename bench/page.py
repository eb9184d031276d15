"""From a frame on the socket to its figure in the live page, in a real browser.

Takes options, gives the median and the longest.
"""

import tempfile
from pathlib import Path
from statistics import median

from bench.report import Options, Result, Row, Target
from tests.browser.chromium import Chromium
from tests.support.controller import Controller, Moment
from tests.support.service import Service


def run(options: Options) -> Result:
    """Let a home at 1 Hz send frames, each with a figure of its own, and note when the page shows it."""
    frames = 10 if options.quick else 60
    with (
        tempfile.TemporaryDirectory(prefix="ess-bench-") as directory,
        Service(Path(directory), "") as service,
        Chromium() as browser,
    ):
        browser.open(f"http://127.0.0.1:{service.http_port}/")
        options.show(f"{frames} frames")
        with Controller(service.pcs_port, Moment(100, 0, 100), rising=True) as controller:
            browser.wait(lambda: len(browser.seen("power-pv")) > frames)
        shown_at = {text: at for at, text in reversed(browser.seen("power-pv"))}
    delays = [shown_at[f"{pv_w} W"] - at for pv_w, at in controller.sent if f"{pv_w} W" in shown_at]
    return Result(
        "Live page: frame on the socket to figure in the browser",
        (
            Row("median", median(delays), "s", target=Target(at_most=1.0), runs=len(delays)),
            Row("longest", max(delays), "s", target=Target(at_most=2.0), runs=len(delays)),
        ),
        ("One home, Debian's chromium; the recorder gathers points for 0.1 s before it tells them.",),
    )
