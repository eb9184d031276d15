"""What a profile says about a device: registers, scan, validity, derived fields, role and quantities.

Holds frozen records that `parse` fills from YAML and that `readings`, the site's balance, the continuous
queries and the simulator read. Never does I/O. No measurement and no field name has a meaning of its own:
what a field means for the energy balance is in `role` and `quantities` only.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

RegisterType = Literal["u16", "s16", "u32", "s32", "u64", "s64", "f32"]
FieldKind = Literal["gauge", "counter", "state"]
PointPer = Literal["answer", "scan"]
Role = Literal["inverter", "hybrid_inverter", "grid_meter", "battery", "submeter", "other"]
Side = Literal["ac", "dc"]

WORDS_OF_TYPE: dict[str, int] = {"u16": 1, "s16": 1, "u32": 2, "s32": 2, "f32": 2, "u64": 4, "s64": 4}

POWER_SOURCES: Final[frozenset[Role]] = frozenset({"inverter", "hybrid_inverter", "battery"})
"""Roles of devices that deliver or draw the AC power between the grid meter and the home."""

POWER_QUANTITIES: Final = ("ac_power", "pv_power", "battery_power", "grid_power")
COUNTER_QUANTITIES: Final = (
    "home",
    "pv",
    "grid_import",
    "grid_export",
    "battery_charge",
    "battery_discharge",
)
QUANTITIES: Final = (*POWER_QUANTITIES, "soc", *COUNTER_QUANTITIES)

# The powers that a counter adds up, the most fitting first.
_POWERS_OF_COUNTER: Final = {
    "grid_import": ("grid_power",),
    "grid_export": ("grid_power",),
    "battery_charge": ("battery_power", "ac_power"),
    "battery_discharge": ("battery_power", "ac_power"),
    "pv": ("pv_power", "ac_power"),
    "home": ("grid_power", "ac_power"),
}
_WATT_SECONDS_PER_KWH: Final = 3_600_000.0


@dataclass(frozen=True, slots=True)
class Register:
    """One named value at an address: `(raw + offset) * scale`, in `unit`.

    Multi-word values have the high word first. `low` and `high` bound the plausible value, in
    `unit`; outside them the value is no reading. `kind` tells how rollups treat the field: a gauge
    is averaged, a counter or a state keeps its last value. `extremes` asks for min and max in rollups.
    """

    address: int
    name: str
    type: RegisterType
    scale: Fraction = Fraction(1)
    offset: int = 0
    unit: str = ""
    low: float | None = None
    high: float | None = None
    kind: FieldKind = "gauge"
    extremes: bool = False
    description: str = ""

    @property
    def words(self) -> int:
        """How many 16-bit Modbus registers the value takes."""
        return WORDS_OF_TYPE[self.type]

    def lies_in(self, address: int, count: int) -> bool:
        """Tell whether the value lies wholly inside the `count` registers from `address`."""
        return address <= self.address and self.address + self.words <= address + count

    @property
    def largest(self) -> float | None:
        """The largest magnitude that the range allows, in `unit`; None without a range."""
        if self.low is None or self.high is None:
            return None
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True, slots=True)
class DerivedField:
    """A field that is the sum of other fields of the same point; absent when one of them is."""

    name: str
    sum_of: tuple[str, ...]
    unit: str = ""
    kind: FieldKind = "gauge"
    extremes: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class ValidityRule:
    """An answer counts only when the raw value at `address` is above `above`."""

    address: int
    type: RegisterType
    above: int


@dataclass(frozen=True, slots=True)
class EnergyCounter:
    """A counter of energy in kWh that is bounded by a power.

    `quantity` is the one of `COUNTER_QUANTITIES` that it counts, or empty. `most_kwh_per_second` is what the
    largest power in the profile's range adds; `resolution_kwh` is the counter's smallest step.
    """

    field: str
    quantity: str
    most_kwh_per_second: float
    resolution_kwh: float


@dataclass(frozen=True, slots=True)
class Profile:
    """One device family on a Modbus bus.

    `point_per` is "answer" where one answer holds a whole sample, or "scan" where several answers
    make one point; a scan is closed by the register `scan_closed_by`, by a repeated register, or
    `scan_timeout_seconds` after its first answer. `role` is what the device is in the site's energy balance,
    and `quantities` pairs each of `QUANTITIES` that it knows with the field that holds it; both are inferred
    where the profile has no role. `pv_side` is the side of the inverter on which `pv_power` is measured.
    `poll_counter` is a field that grows by one with each poll.
    """

    name: str
    measurement: str
    device: str
    unit: int
    function: int
    registers: tuple[Register, ...]
    derived: tuple[DerivedField, ...] = ()
    validity: ValidityRule | None = None
    point_per: PointPer = "answer"
    scan_closed_by: str | None = None
    scan_timeout_seconds: float = 5.0
    role: Role = "other"
    is_role_inferred: bool = False
    quantities: tuple[tuple[str, str], ...] = ()
    pv_side: Side = "dc"
    poll_counter: str = ""
    description: str = ""

    def __hash__(self) -> int:
        """Cheap, because caches of the decoder look a profile up for every answer."""
        return hash((self.name, self.device, self.unit))

    @property
    def fields(self) -> tuple[Register | DerivedField, ...]:
        """Every field of a point of this profile, registers first, in the order of the file."""
        return (*self.registers, *self.derived)

    def field_of(self, quantity: str) -> str:
        """Return the field that holds a quantity, or an empty text where the device does not know it."""
        return dict(self.quantities).get(quantity, "")

    @property
    def energy(self) -> tuple[tuple[str, str], ...]:
        """The counters that are the source of a flow's energy: the flow, and the field in kWh."""
        return tuple(pair for pair in self.quantities if pair[0] in COUNTER_QUANTITIES)

    @property
    def energy_counters(self) -> tuple[EnergyCounter, ...]:
        """Every counter in kWh, with how fast it can grow; none where no range of a power bounds it."""
        quantity_of = {name: quantity for quantity, name in self.energy}
        counters = []
        for register in self.registers:
            if register.kind == "counter" and register.unit == "kWh":
                quantity = quantity_of.get(register.name, "")
                watts = self._most_watts(quantity)
                if watts is not None:
                    step = abs(float(register.scale))
                    most = watts / _WATT_SECONDS_PER_KWH
                    counters.append(EnergyCounter(register.name, quantity, most, step))
        return tuple(counters)

    def _most_watts(self, quantity: str) -> float | None:
        """Return the largest power that can feed a counter, W; of an unknown counter the largest of all."""
        largest = {register.name: register.largest for register in self.registers if register.unit == "W"}
        for derived in self.derived:
            parts = [largest.get(part) for part in derived.sum_of]
            known = [part for part in parts if part is not None]
            if derived.unit == "W" and len(known) == len(parts):
                largest[derived.name] = sum(known)
        for power in _POWERS_OF_COUNTER.get(quantity, ()):
            watts = largest.get(self.field_of(power))
            if watts is not None:
                return watts
        return max((watts for watts in largest.values() if watts is not None), default=None)
