"""The JSON of the scripts that owners have used so far, under its old names.

Takes the newest points of a site, gives what `/lgessgen1`, `/lgess` and `/json/all` answer. Never does
I/O. Signs and units are those of the scripts, which are ours: battery power + discharging, grid + buying.
"""

from datetime import UTC, datetime
from typing import Any, Final

from recorder.points.flow import MEASUREMENT as FLOW
from recorder.web.live import Live

# The scripts' battery holds 6 kWh: 60 Wh a percent.
_WH_PER_PERCENT: Final = 60

# Names in /json/all, with the field and what makes the bus's number of it.
_PCS_VALUES: Final = (
    ("pvValue6.Verbrauch", "active_power", 1),
    ("pvValue8.PV1Status", "pv1_state", 1),
    ("pvValue9.PV1V", "pv1_voltage", 1),
    ("pvValue10.PV1W", "pv1_power", 1),
    ("pvValue11.PV2Status", "pv2_state", 1),
    ("pvValue12.PV2V", "pv2_voltage", 1),
    ("pvValue13.PV2W", "pv2_power", 1),
    ("pvValue15.Zähler", "polls", 1),
    ("pvValue16.Frequenz", "frequency", 100),
    ("pvValue17.AkkuV1", "battery_voltage", 10),
    ("pvValue18.entladen-laden", "battery_current", 10),
    ("pvValue19.laden-entladen", "battery_power", 1),
    ("pvValue22.Status", "battery_status", 1),
    ("pvValue26.soc", "battery_soc_raw", 10),
    ("pvValue27.maxsoc", "battery_soc_max", 10),
    ("pvValue28", "battery_temperature_max", 10),
    ("pvValue29", "battery_temperature_min", 10),
    ("pvValue30.Zähler", "battery_energy_charged", 10),
    ("pvValue31.Zähler", "battery_energy_discharged", 10),
    ("pvValue43", "battery_temperature_mean", 10),
    ("pvValue45.Zähler", "heartbeat", 1),
)
_METER_VALUES: Final = (
    ("ActiveImport", "active_import"),
    ("ActiveExport", "active_export"),
    ("Voltage1", "voltage_l1"),
    ("Voltage2", "voltage_l2"),
    ("Voltage3", "voltage_l3"),
    ("ActivePower", "active_power"),
    ("Frequency", "frequency"),
)


class _Sample:
    """The newest values of a site, and when they were read."""

    def __init__(self, live: Live, site: str) -> None:
        # The devices of the scripts: the one that knows the AC power, and the grid meter.
        measurements = {
            name: live.quantities[quantity][0]
            for name, quantity in (("pcs", "ac_power"), ("meter", "grid_power"))
            if quantity in live.quantities
        }
        measurements["flow"] = FLOW
        newest = {name: live.newest(site, measurement) for name, measurement in measurements.items()}
        found = {name: sample for name, sample in newest.items() if sample is not None}
        self.empty = not found
        self.times = {name: _text(time_s) for name, (time_s, _) in found.items()}
        # Of several devices the oldest: none of the values is older than what is told.
        self.time = _text(min((time_s for time_s, _ in found.values()), default=0.0))
        fields = {name: values for name, (_, values) in found.items()}
        self.pcs = fields.get("pcs", {})
        self.meter = fields.get("meter", {})
        self.home_w = fields.get("flow", {}).get("home")
        self._fields = {quantity: field for quantity, (_, field) in live.quantities.items()}

    def value(self, quantity: str) -> float | None:
        """Return the newest value of a quantity, None where it was not read."""
        field = self._fields.get(quantity, "")
        return self.meter.get(field) if quantity.startswith("grid_") else self.pcs.get(field)


def lgessgen1(live: Live, site: str) -> dict[str, Any] | None:
    """Give the flat list; None before the first sample."""
    sample = _Sample(live, site)
    if sample.empty:
        return None
    soc = sample.value("soc")
    battery_w = sample.value("battery_power")
    return _present(
        {
            "time": sample.time,
            "gridpower": sample.value("grid_power"),
            "gridimport": sample.value("grid_import"),
            "gridexport": sample.value("grid_export"),
            "gridvoltage1": sample.meter.get("voltage_l1"),
            "gridvoltage2": sample.meter.get("voltage_l2"),
            "gridvoltage3": sample.meter.get("voltage_l3"),
            "batterysoc": _one_decimal(soc),
            "batterypower": battery_w,
            "batterypowern": battery_w,
            "batterykwh": _stored_wh(soc),
            "residualpower": sample.home_w,
            "pvpower": sample.value("pv_power"),
        }
    )


def lgess(live: Live, site: str) -> dict[str, Any] | None:
    """Give the list in groups, under the names of both versions of it; None before the first sample."""
    sample = _Sample(live, site)
    if sample.empty:
        return None
    soc = _one_decimal(sample.value("soc"))
    stored_wh = _stored_wh(sample.value("soc"))
    battery_w = sample.value("battery_power")
    inverted_w = None if battery_w is None else -battery_w
    imported, exported = sample.value("grid_import"), sample.value("grid_export")
    grid_w, pv_w = sample.value("grid_power"), sample.value("pv_power")
    return {
        "time": sample.time,
        "grid": _present(
            {
                "last_communication_time": sample.times.get("meter"),
                "ActivePower": grid_w,
                "GridActivePower": grid_w,
                "Voltage1": sample.meter.get("voltage_l1"),
                "Voltage2": sample.meter.get("voltage_l2"),
                "Voltage3": sample.meter.get("voltage_l3"),
            }
        ),
        "battery": _present(
            {
                "Soc": soc,
                "PvSoc": soc,
                "Power": battery_w,
                "PvBatPower": battery_w,
                "PowerInv": inverted_w,
                "PvBatPowerInv": inverted_w,
                "SocKW": stored_wh,
                "PvSocKW": stored_wh,
            }
        ),
        "load": _present(
            {
                "ActiveImport": imported,
                "GridActiveImport": imported,
                "HousePowerConsumption": sample.home_w,
            }
        ),
        "pv": _present(
            {"ActiveExport": exported, "GridActiveExport": exported, "Power": pv_w, "PvPower": pv_w}
        ),
    }


def json_all(live: Live, site: str) -> dict[str, Any] | None:
    """Give the PCS's values as the bus has them, and the meter's; None before the first sample."""
    sample = _Sample(live, site)
    if sample.empty:
        return None
    pcs = {name: _raw(sample.pcs.get(field), factor) for name, field, factor in _PCS_VALUES}
    meter = {f"grid{name}": sample.meter.get(field) for name, field in _METER_VALUES}
    return {
        "pv": _present({"last_communication_time": sample.times.get("pcs"), **pcs}),
        "grid": _present(meter),
    }


def _present(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what was not read."""
    return {name: value for name, value in values.items() if value is not None}


def _raw(value: float | None, factor: int) -> int | None:
    return None if value is None else round(value * factor)


def _one_decimal(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _stored_wh(soc: float | None) -> int | None:
    return None if soc is None else round(_WH_PER_PERCENT * soc)


def _text(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
