"""The answers of a running recorder as a picture in the terminal.

Takes what `/api/v1` answered, gives a rich renderable. Never does I/O.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from recorder.commands.live_view import LiveView
from recorder.points.point import Point

_WIDTH: Final = 78
_ENERGIES: Final = (
    ("PV", "pv"),
    ("home", "home"),
    ("bought", "grid_import"),
    ("sold", "grid_export"),
    ("charged", "battery_charge"),
    ("discharged", "battery_discharge"),
)


class StatusView:
    """Keeps the newest answers of one recorder, and shows them."""

    def __init__(self) -> None:
        self._flows = LiveView()
        self._seen_s = 0.0
        self._answers: Mapping[str, Any] = {}
        self._lost = ""

    def take(self, answers: Mapping[str, Any]) -> None:
        """Take the answers `latest`, `health` and `today`."""
        self._answers = answers
        self._lost = ""
        soc = answers["latest"].get("state_of_charge")
        self._flows.soc = tuple(soc.split(".")) if soc else None
        newest_s = self._seen_s
        for point in answers["latest"]["points"]:
            if point["site"] == self._site and point["time"] > self._seen_s:
                newest_s = max(newest_s, point["time"])
                self._flows.observe(Point(point["measurement"], (), point["fields"], None))
        self._seen_s = newest_s

    def lose(self, reason: str) -> None:
        """Say that the recorder does not answer, and why; the last picture stays."""
        self._lost = reason

    def picture(self) -> Group:
        """Give the picture, 78 columns wide at most."""
        health = self._answers["health"]
        problems = [self._lost] if self._lost else health["problems"]
        parts: list[RenderableType] = [self._headline()]
        if problems:
            text = Text("\n".join(problems))
            parts.append(
                Panel(text, title="needs attention", border_style="red", box=box.ROUNDED, width=_WIDTH)
            )
        parts += [self._flows.picture([]), self._today(), self._parts()]
        return Group(*parts)

    @property
    def _site(self) -> str:
        site = self._answers["today"]["site"]
        assert isinstance(site, str)
        return site

    def _headline(self) -> Text:
        health = self._answers["health"]
        ages = [
            point["age_seconds"]
            for point in self._answers["latest"]["points"]
            if point["site"] == self._site and point["measurement"] == "flow"
        ]
        stale_after = self._answers["latest"]["stale_after_seconds"]
        line = Text(f"{self._site}  ", "bold")
        if self._lost:
            line.append("no connection", "bold red")
        elif not ages:
            line.append("no sample yet", "bold red")
        elif min(ages) > stale_after:
            line.append(f"stale: last sample {_duration(min(ages))} ago", "bold red")
        else:
            line.append(f"live, sample of {min(ages):.1f} s ago", "green")
        return line.append(f"  ess-recorder {health['version']}", "dim")

    def _today(self) -> Panel:
        totals = self._answers["today"]["totals"]
        energies = totals["energy"] or {}
        grid = Table.grid(padding=(0, 3))
        for _ in range(3):
            grid.add_column(width=22)
        cells = [f"{name} {_known(energies.get(field), '.2f')} kWh" for name, field in _ENERGIES]
        cells += [
            f"self-sufficiency {_known(totals['self_sufficiency'], '.0f')} %",
            f"self-consumption {_known(totals['self_consumption'], '.0f')} %",
        ]
        for start in range(0, len(cells), 3):
            grid.add_row(*cells[start : start + 3])
        return Panel(grid, title="today", box=box.ROUNDED, width=_WIDTH)

    def _parts(self) -> Panel:
        health = self._answers["health"]
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(width=20)
        table.add_column(width=50)
        for row in (*_devices(health["devices"]), *_sources(health["sources"]), *_keepers(health)):
            good, name, text = row
            mark = Text("●", "green") if good else Text("■", "red")
            table.add_row(mark, Text(name), Text(text, "" if good else "red"))
        return Panel(table, title="parts", box=box.ROUNDED, width=_WIDTH)


Row = tuple[bool, str, str]


def _devices(devices: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [
        (
            not device["stale"],
            f"{device['device']} of {device['site']}",
            f"{_duration(device['age_seconds'])} ago",
        )
        for device in devices
    ]


def _sources(sources: Sequence[Mapping[str, Any]]) -> list[Row]:
    rows = []
    for source in sources:
        counts = source["counts"]
        faults = "".join(
            f", {name.replace('_', ' ')} {counts[name]:,.0f}"
            for name in ("crc_errors", "unanswered", "lost_samples")
            if counts.get(name)
        )
        text = f"{source['connections']:.0f} connected, {counts.get('frames', 0):,.0f} frames{faults}"
        rows.append((True, f"port {source['name']}", text))
    return rows


def _keepers(health: Mapping[str, Any]) -> list[Row]:
    queue, influxdb, store = health["queue"], health["influxdb"], health["store"]
    waiting = f"{queue['points']:,.0f} points wait" if queue["points"] else "empty"
    if influxdb["configured"]:
        stored = f"{influxdb['state']}, {influxdb['written']:,.0f} points written"
    else:
        stored = "not configured: the recorder keeps the data itself"
    problem = influxdb["problem"] or "; ".join(influxdb["set_up_problems"])
    return [
        (not queue["problem"], "queue", queue["problem"] or waiting),
        (not problem, "InfluxDB", problem or stored),
        (not store["problem"], "history", store["problem"] or f"{store['bytes'] / 1e6:.1f} MB"),
    ]


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _duration(seconds: float) -> str:
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} days"
