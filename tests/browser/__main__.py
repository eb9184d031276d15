"""`make screenshots`: the live page as a picture, from the demo in a real browser.

Takes nothing, writes the PNG files of docs/pictures.
"""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from tests.browser.chromium import Chromium

ROOT: Final = Path(__file__).parents[2]
_PICTURES: Final = ROOT / "docs" / "pictures"
_SETTLED: Final = "return document.getAnimations().every((one) => !(one instanceof CSSTransition))"


class Shot(NamedTuple):
    """One picture: sizes in CSS pixels, `scale` pixels to each; height 0 is the whole page."""

    name: str
    theme: str
    width: int
    height: int
    scale: float


_SHOTS: Final = (
    Shot("live-page-light", "light", 1240, 0, 1.0),
    Shot("live-page-dark", "dark", 1240, 0, 1.0),
    Shot("live-page-phone", "light", 390, 844, 2.0),
)


def main() -> None:
    """Take every picture once the plant's sun is up."""
    command = [sys.executable, "-m", "recorder", "demo", "--port", "0", "--seed", "1"]
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo,
        Chromium() as browser,
    ):
        assert demo.stdout is not None
        address = demo.stdout.readline().removeprefix("The live page: ").strip()
        for shot in _SHOTS:
            _take(browser, address, shot)
            print(f"docs/pictures/{shot.name}.png")  # noqa: T201  # what the command is for
        demo.send_signal(signal.SIGINT)
        demo.communicate()


def _take(browser: Chromium, address: str, shot: Shot) -> None:
    browser.prefer(prefers_color_scheme=shot.theme)
    browser.shape(shot.width, 900, scale=shot.scale)
    browser.open(address)
    browser.wait(lambda: browser.state() == "live" and browser.text("#energies") != "")
    browser.wait(lambda: bool(browser.run("return document.querySelectorAll('.u-wrap').length === 2")))
    # Three lines say more than one.
    browser.wait(lambda: bool(browser.run("return document.querySelectorAll('.flow.on').length >= 3")))
    browser.wait(lambda: bool(browser.run(_SETTLED)))
    whole = browser.run("return document.documentElement.scrollHeight")
    browser.shape(shot.width, shot.height or whole, scale=shot.scale)
    browser.driver.save_screenshot(str(_PICTURES / f"{shot.name}.png"))


if __name__ == "__main__":
    main()
