"""The growth of a fleet as a picture.

Takes steps, gives SVG: processor and memory of the recorder by homes. Never measures anything.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.step import Step

PLOT: Final = Path(__file__).parents[1] / "docs/pictures/fleet.svg"
_WIDTH: Final = 640
_HEIGHT: Final = 260
_LEFT: Final = 60
_TOP: Final = 30
_PLOT_WIDTH: Final = 520
_PLOT_HEIGHT: Final = 180
_BELOW: Final = _TOP + _PLOT_HEIGHT + 18
_CURVES: Final[tuple[tuple[str, str, Callable[[Step], float]], ...]] = (
    ("processor, % of a core", "#b3541e", lambda step: step.cpu_percent),
    ("memory, MB", "#1f6f8b", lambda step: step.rss_mb),
)


def plot(steps: Sequence[Step]) -> str:
    """Give the picture; steps that were not served are hollow."""
    most_homes = max(step.homes for step in steps)
    most = 100.0 * (1 + int(max(max(of(step) for step in steps) for _, _, of in _CURVES)) // 100)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        )
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _LEFT + share * _PLOT_WIDTH, _TOP + (1 - share) * _PLOT_HEIGHT
        parts.append(f'<path d="M{_LEFT} {y:g}h{_PLOT_WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:g}" text-anchor="end">{share * most:g}</text>')
        label = f"{share * most_homes:,.0f}"
        parts.append(f'<text x="{x:g}" y="{_BELOW}" text-anchor="middle">{label}</text>')
    middle = _LEFT + _PLOT_WIDTH / 2
    parts.append(f'<text x="{middle:g}" y="{_HEIGHT - 8}" text-anchor="middle">homes at 1 Hz</text>')
    for number, (label, colour, of) in enumerate(_CURVES):
        places = [
            (_LEFT + step.homes / most_homes * _PLOT_WIDTH, _TOP + (1 - of(step) / most) * _PLOT_HEIGHT)
            for step in steps
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for step, (x, y) in zip(steps, places, strict=True):
            fill = colour if step.served else "#fff"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour}"/>')
        parts.append(f'<text x="{_LEFT + 10 + 200 * number}" y="20" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>\n"])
