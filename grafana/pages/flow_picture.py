"""The flow picture: PV, home, grid and battery, and lines between them that follow the power.

Takes the names of the data model, gives a Canvas panel. Everything is placed in percent of the panel, so
that it fits a phone. Never uses an image: text and borders follow the theme.

Canvas of Grafana 12.3 and later reads the direction of a line from a field; the builder library knows the
Canvas of 11.6, so `Flow` adds what is new. Source of the names: public/app/features/canvas/element.ts and
public/app/features/dimensions/direction.ts of Grafana.
"""

from typing import NamedTuple

from grafana_foundation_sdk.builders import canvas, common
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import canvas as model
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

from grafana.influxql import OF_DEVICE, Ready, Target, select
from grafana.panels import BATTERY, CLEAR, GRID, HOME, PV, asking

WIDEST_AT_W = 5000
# Grafana draws an arrow ten times as long as its line is wide.
_THINNEST_PX, _WIDEST_PX = 1, 4
_FLOWING_W = 1


class _Node(NamedTuple):
    """A box; `field` is what it shows, `left` and `top` are its corner in percent of the panel."""

    name: str
    field: str
    colour: str
    left: int
    top: int


_WIDTH, _HEIGHT = 26, 22
_NODES = (
    _Node("PV", "PV power", PV, 37, 3),
    _Node("Grid", "Grid power", GRID, 3, 39),
    _Node("Home", "Home power", HOME, 71, 39),
    _Node("Battery", "Battery power", BATTERY, 37, 75),
)

# The field of `flow`, and the boxes where its line begins and ends, each with a point of the box: 1 is right
# or up, -1 is left or down.
_FLOWS = (
    ("pv_to_home", "PV", (1, 0), "Home", (0, 1), PV),
    ("pv_to_battery", "PV", (0, -1), "Battery", (0, 1), PV),
    ("pv_to_grid", "PV", (-1, 0), "Grid", (0, 1), PV),
    ("battery_to_home", "Battery", (1, 0), "Home", (0, -1), BATTERY),
    ("battery_to_grid", "Battery", (-1, 0.5), "Grid", (0.5, -1), BATTERY),
    ("grid_to_home", "Grid", (1, 0), "Home", (-1, 0), GRID),
    ("grid_to_battery", "Grid", (-0.5, -1), "Battery", (-1, -0.5), GRID),
)
FLOW_NAMES = tuple(name for name, *_ in _FLOWS)


class Flow(model.CanvasConnection):
    """A line whose width, direction and colour follow a field: it is invisible at 0 and without data."""

    def __init__(
        self, field: str, source: tuple[float, float], target: str, end: tuple[float, float]
    ) -> None:
        super().__init__(
            source=model.ConnectionCoordinates(*source),
            target=model.ConnectionCoordinates(*end),
            target_name=target,
            color=options.ColorDimensionConfig(field=field, fixed=CLEAR),
            size=options.ScaleDimensionConfig(
                field=field, fixed=_THINNEST_PX, min_val=_THINNEST_PX, max_val=_WIDEST_PX
            ),
        )
        self._field = field

    def to_json(self) -> dict[str, object]:
        """The line with its direction."""
        return {**super().to_json(), "direction": {"mode": "field", "field": self._field, "fixed": "none"}}


def flow_picture() -> canvas.Panel:
    """The panel, with the newest power of each flow in the last minute."""
    elements = [element for node in _NODES for element in (_box(node), _value(node))]
    flows = select({name: f'{{of}}("{name}")' for name in FLOW_NAMES}, "last", '"flow"', OF_DEVICE)
    powers = {
        "PV power": '{of}("pv")',
        "Home power": '{of}("home")',
        "Grid power": '{of}("grid_import") - {of}("grid_export")',
        "Battery power": '{of}("battery_discharge") - {of}("battery_charge")',
    }
    totals = select(powers, "last", '"flow"', OF_DEVICE)
    panel = (
        canvas.Panel()
        .time_from("1m")
        .hide_time_override(True)
        .min(0)
        .max(WIDEST_AT_W)
        .inline_editing(False)
        .show_advanced_types(False)
        .root(canvas.CanvasOptionsRoot().name("Flow picture").elements(list(elements)))
    )
    for name, *_, colour in _FLOWS:
        panel.override_by_name(name, _seen_while_flowing(colour))
    return asking(panel, [Target(flows, result_format="table"), Target(totals, "B", result_format="table")])


def _seen_while_flowing(colour: str) -> list[DynamicConfigValue]:
    """Return the settings that give a flow its colour, and none while it is idle."""
    steps: list[dict[str, object]] = [
        {"value": None, "color": CLEAR},
        {"value": _FLOWING_W, "color": colour},
    ]
    return [
        DynamicConfigValue("color", {"mode": "thresholds"}),
        DynamicConfigValue("thresholds", {"mode": "absolute", "steps": steps}),
    ]


def _box(node: _Node) -> canvas.CanvasElementOptions:
    lines = [Ready(Flow(name, begin, end, at)) for name, of, begin, end, at, _ in _FLOWS if of == node.name]
    text = {
        "align": "center",
        "valign": "top",
        "size": 14,
        "color": {"fixed": "text"},
        "text": {"mode": "fixed", "fixed": node.name},
    }
    return (
        canvas.CanvasElementOptions()
        .name(node.name)
        .type("rectangle")
        .config(text)
        .constraint(_scaled())
        .placement(_placed(node))
        .background(canvas.BackgroundConfig().color(common.ColorDimensionConfig().fixed("transparent")))
        .border(
            canvas.LineConfig().color(common.ColorDimensionConfig().fixed(node.colour)).width(2).radius(8)
        )
        .connections(list[Builder[model.CanvasConnection]](lines))
    )


def _value(node: _Node) -> canvas.CanvasElementOptions:
    text = {
        "align": "center",
        "valign": "middle",
        "size": 18,
        "color": {"fixed": node.colour},
        "text": {"mode": "field", "field": node.field, "fixed": "-"},
    }
    return (
        canvas.CanvasElementOptions()
        .name(f"{node.name} value")
        # Not a "metric-value", which says "Field not found" where there is no data.
        .type("rectangle")
        .config(text)
        .constraint(_scaled())
        .placement(_placed(node))
        .background(canvas.BackgroundConfig().color(common.ColorDimensionConfig().fixed("transparent")))
    )


def _scaled() -> canvas.Constraint:
    return (
        canvas.Constraint()
        .horizontal(model.HorizontalConstraint.SCALE)
        .vertical(model.VerticalConstraint.SCALE)
    )


def _placed(node: _Node) -> canvas.Placement:
    return (
        canvas.Placement()
        .left(node.left)
        .right(100 - node.left - _WIDTH)
        .top(node.top)
        .bottom(100 - node.top - _HEIGHT)
        .rotation(0)
    )
