"""The energy flows of one home, as a picture in the terminal.

Takes points as they are recorded, gives a rich renderable, or a line of text where no terminal is.
Never does I/O.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from recorder.points.point import Point

_HISTORY_SAMPLES: Final = 36
_WIDTH: Final = 78
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_FULL_SCALE_W: Final = 5000.0
# Colours that people know from other energy pictures.
_COLOURS: Final = {"PV": "yellow", "Battery": "green", "Home": "blue", "Grid": "magenta"}
_BATTERY: Final = ("battery_charge", "battery_discharge")
_GRID: Final = ("grid_import", "grid_export")
_FLOWS: Final = (
    ("PV", "Home", "pv_to_home"),
    ("PV", "Battery", "pv_to_battery"),
    ("PV", "Grid", "pv_to_grid"),
    ("Battery", "Home", "battery_to_home"),
    ("Battery", "Grid", "battery_to_grid"),
    ("Grid", "Home", "grid_to_home"),
    ("Grid", "Battery", "grid_to_battery"),
)


class LiveView:
    """Keeps the newest values of one site, and shows them.

    `soc` is the measurement and the field of the state of charge, None where no device knows it.
    """

    def __init__(self, soc: tuple[str, str] | None = None) -> None:
        self.soc = soc
        self._newest: dict[str, Mapping[str, float]] = {}
        self._history: deque[Mapping[str, float]] = deque(maxlen=_HISTORY_SAMPLES)
        self.samples = 0
        self.average_of_ten: Mapping[str, float] = {}

    def observe(self, point: Point) -> None:
        """Take a point of the site."""
        self._newest[point.measurement] = point.fields
        if point.measurement == "flow":
            self._history.append(point.fields)
            self.samples += 1

    def picture(self, notes: list[str]) -> Group:
        """Give the picture, 78 columns wide at most, with `notes` below it."""
        now = Panel(self._powers(), title="power now", box=box.ROUNDED, width=_WIDTH)
        flows = Panel(self._targets(), title="where it goes", box=box.ROUNDED, width=_WIDTH)
        return Group(now, flows, *(Text(note, style="dim") for note in notes))

    def line(self) -> str:
        """Give the flows as one line of text."""
        flow, charge = self._newest.get("flow"), self._charge_percent
        if flow is None:
            return "waiting for the first sample"
        parts = [f"{a} > {b} {flow[name]:.0f} W" for a, b, name in _FLOWS if flow[name] > 0]
        battery = "" if charge is None else f", battery {charge:.1f} %"
        return f"home {flow['home']:.0f} W{battery}: " + ", ".join(parts)

    def _powers(self) -> Table | Text:
        flow, charge = self._newest.get("flow"), self._charge_percent
        if flow is None:
            return Text("waiting for the first sample ...")
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("", width=8)
        table.add_column("now", justify="right", width=9)
        table.add_column("mean of ten" if self.average_of_ten else "", justify="right", width=12)
        table.add_column(f"last {_HISTORY_SAMPLES} samples, 5 kW full", width=_HISTORY_SAMPLES)
        averages = self.average_of_ten
        rows = (
            ("PV", flow["pv"], averages.get("pv_power"), ("pv",)),
            (
                "Battery",
                flow["battery_discharge"] - flow["battery_charge"],
                averages.get("battery_power"),
                _BATTERY,
            ),
            ("Home", flow["home"], None, ("home",)),
            ("Grid", flow["grid_import"] - flow["grid_export"], averages.get("meter_power"), _GRID),
        )
        for name, power_w, average_w, fields in rows:
            table.add_row(
                Text(name, style=f"bold {_COLOURS[name]}"),
                f"{power_w:,.0f} W",
                "" if average_w is None else f"{average_w:,.0f} W",
                Text(self._bars(fields), style=_COLOURS[name]),
            )
        if charge is None:
            return table
        filled = round(max(0.0, min(100.0, charge)) / 100 * _HISTORY_SAMPLES)
        gauge = "█" * filled + "░" * (_HISTORY_SAMPLES - filled)
        table.add_row(Text("Charge", "bold green"), f"{charge:.1f} %", "", Text(gauge, "green"))
        return table

    @property
    def _charge_percent(self) -> float | None:
        """The state of charge in %, None where it is not known."""
        if self.soc is None:
            return None
        measurement, field = self.soc
        return self._newest.get(measurement, {}).get(field)

    def _targets(self) -> Table | Text:
        flow = self._newest.get("flow")
        if flow is None:
            return Text("")
        table = Table.grid(padding=(0, 1))
        table.add_column(width=8)
        table.add_column(width=_HISTORY_SAMPLES)
        table.add_column(justify="right", width=9)
        table.add_column(width=8)
        for source, target, name in _FLOWS:
            share = round(min(1.0, flow[name] / _FULL_SCALE_W) * (_HISTORY_SAMPLES - 2))
            arrow = "━" * share + "▶" if flow[name] >= 1 else ""
            table.add_row(
                Text(source, _COLOURS[source] if arrow else "dim"),
                Text(arrow, _COLOURS[source]),
                f"{flow[name]:,.0f} W" if arrow else "",
                Text(target, _COLOURS[target] if arrow else "dim"),
            )
        return table

    def _bars(self, fields: tuple[str, ...]) -> str:
        steps = len(_BLOCKS) - 1
        powers_w = (sum(sample[field] for field in fields) for sample in self._history)
        return "".join(_BLOCKS[min(steps, round(power_w / _FULL_SCALE_W * steps))] for power_w in powers_w)
