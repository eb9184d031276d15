"""What a profile says about a device: registers, scan, validity, derived fields.

Takes nothing, gives frozen records that `parse` fills from YAML and that `readings`, the
continuous queries and the simulator read. Never does I/O.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

RegisterType = Literal["u16", "s16", "u32", "s32", "u64", "s64", "f32"]
FieldKind = Literal["gauge", "counter", "state"]
PointPer = Literal["answer", "scan"]

WORDS_OF_TYPE: dict[str, int] = {"u16": 1, "s16": 1, "u32": 2, "s32": 2, "f32": 2, "u64": 4, "s64": 4}


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
class Profile:
    """One device family on a Modbus bus.

    `point_per` is "answer" where one answer holds a whole sample, or "scan" where several answers
    make one point; a scan is closed by the register `scan_closed_by`, by a repeated register, or
    `scan_timeout_seconds` after its first answer. `energy` maps an energy flow (`grid_import`, ...)
    to the counter field, in kWh, that is its truth.
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
    energy: tuple[tuple[str, str], ...] = ()
    description: str = ""

    def __hash__(self) -> int:
        """Cheap, because caches of the decoder look a profile up for every answer."""
        return hash((self.name, self.device, self.unit))

    @property
    def fields(self) -> tuple[Register | DerivedField, ...]:
        """Every field of a point of this profile, registers first, in the order of the file."""
        return (*self.registers, *self.derived)
