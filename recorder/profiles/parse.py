"""A device profile from YAML, checked until nothing in it can surprise the decoder.

Takes the text of one profile file, gives a `Profile`. Never does I/O; every mistake in the text is
a `ConfigurationError` that names file, line, key and what is allowed.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from recorder.profiles.model import (
    WORDS_OF_TYPE,
    DerivedField,
    FieldKind,
    PointPer,
    Profile,
    Register,
    RegisterType,
    ValidityRule,
)
from recorder.yaml_document import (
    Allowed,
    ConfigurationError,
    Document,
    KeyPath,
    Mistake,
    nearest,
    parse_document,
)

ADDRESS_END = 0x10000
ENERGY_FLOWS = ("home", "pv", "grid_import", "grid_export", "battery_charge", "battery_discharge")
TEXT_KEYS = frozenset({"name", "measurement", "device", "description", "scale", "scan_closed_by"})

_SCALE = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{1,12})?)(?:/([0-9]{1,12}))?")


def _exact_scale(value: object) -> Fraction:
    """The scale as written, exactly: 0.1 is 1/10, which no float is."""
    match = _SCALE.fullmatch(str(value))
    scale = Fraction(match[1]) / Fraction(match[2] or 1) if match and match[2] != "0" else Fraction(0)
    if not scale:
        raise ValueError
    return scale


Name = Annotated[
    str,
    Field(pattern=r"\A[a-z][a-z0-9_]{0,63}\z"),
    Allowed("a name of up to 64 of a-z, 0-9 and _, with a letter first"),
]
Address = Annotated[int, Field(ge=0, lt=ADDRESS_END), Allowed("an address from 0 to 0xFFFF")]
Type = Annotated[RegisterType, Allowed("u16, s16, u32, s32, u64, s64 or f32")]
Kind = Annotated[FieldKind, Allowed("gauge, counter or state")]
Words = Annotated[str, Field(max_length=500), Allowed("a text of up to 500 characters")]
UnitOfMeasure = Annotated[
    str, Field(max_length=16), Allowed("a unit of up to 16 characters, such as W or kWh")
]
Flag = Annotated[bool, Allowed("true or false")]
Bound = Annotated[float, Field(allow_inf_nan=False)]
Scale = Annotated[
    Fraction,
    BeforeValidator(_exact_scale),
    Allowed("a decimal such as 0.1, or a ratio such as 100/905; not 0"),
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Register(_Model):
    address: Address
    name: Name
    type: Type
    scale: Scale = Fraction(1)
    offset: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63), Allowed("a whole number")] = 0
    unit: UnitOfMeasure = ""
    range: Annotated[tuple[Bound, Bound] | None, Allowed("two numbers, [lowest, highest]")] = None
    kind: Kind = "gauge"
    extremes: Flag = False
    description: Words = ""


class _Derived(_Model):
    name: Name
    sum_of: Annotated[tuple[str, ...], Field(min_length=1), Allowed("a list of register names")]
    unit: UnitOfMeasure = ""
    kind: Kind = "gauge"
    extremes: Flag = False
    description: Words = ""


class _ValidWhen(_Model):
    address: Address
    type: Type
    above: Annotated[int, Allowed("a whole number, compared with the raw value")]


class _Profile(_Model):
    name: Annotated[
        str, Field(pattern=r"\A[a-z0-9][a-z0-9_.-]{0,63}\z"), Allowed("up to 64 of a-z, 0-9, dot, dash and _")
    ]
    description: Words = ""
    measurement: Name
    device: Name
    unit: Annotated[int, Field(ge=1, le=247), Allowed("a Modbus unit from 1 to 247")]
    function: Annotated[int, Field(ge=3, le=4), Allowed("3 (holding registers) or 4 (input registers)")]
    point_per: Annotated[PointPer, Allowed("answer or scan")] = "answer"
    scan_closed_by: Annotated[str | None, Allowed("the name of a register")] = None
    scan_timeout_seconds: Annotated[
        float, Field(gt=0, le=3600), Allowed("a number of seconds above 0, up to 3600")
    ] = 5.0
    valid_when: _ValidWhen | None = None
    energy: Annotated[
        dict[str, str], Allowed("a mapping of flow to field, such as grid_import: active_import")
    ] = {}
    registers: Annotated[
        tuple[_Register, ...],
        Field(min_length=1, max_length=4096),
        Allowed("a list of 1 to 4096 registers, each with address, name and type"),
    ]
    derived: Annotated[
        tuple[_Derived, ...], Allowed("a list of derived fields, each with name and sum_of")
    ] = ()


def parse_profile(text: str, file_name: str) -> Profile:
    """Read one profile; `file_name` is only named in messages.

    Raises:
        ConfigurationError: with all mistakes found, each with file, line, key and what is allowed.
    """
    document = parse_document(text, file_name, {}, TEXT_KEYS)
    parsed = document.validate(_Profile)
    mistakes = [*_name_mistakes(document, parsed), *_address_mistakes(document, parsed)]
    if mistakes:
        raise ConfigurationError(mistakes)
    return Profile(
        name=parsed.name,
        measurement=parsed.measurement,
        device=parsed.device,
        unit=parsed.unit,
        function=parsed.function,
        registers=tuple(_register(register) for register in parsed.registers),
        derived=tuple(DerivedField(**dict(derived)) for derived in parsed.derived),
        validity=ValidityRule(**dict(parsed.valid_when)) if parsed.valid_when else None,
        point_per=parsed.point_per,
        scan_closed_by=parsed.scan_closed_by,
        scan_timeout_seconds=parsed.scan_timeout_seconds,
        energy=tuple(parsed.energy.items()),
        description=parsed.description,
    )


def _register(parsed: _Register) -> Register:
    low, high = parsed.range or (None, None)
    return Register(
        address=parsed.address,
        name=parsed.name,
        type=parsed.type,
        scale=parsed.scale,
        offset=parsed.offset,
        unit=parsed.unit,
        low=low,
        high=high,
        kind=parsed.kind,
        extremes=parsed.extremes,
        description=parsed.description,
    )


def _name_mistakes(document: Document, parsed: _Profile) -> Iterator[Mistake]:
    """Names that stand twice, and names that name nothing."""
    registers = [register.name for register in parsed.registers]
    seen: set[str] = set()
    places: list[KeyPath] = [("registers", index, "name") for index in range(len(registers))]
    places += [("derived", index, "name") for index in range(len(parsed.derived))]
    names = [*registers, *(derived.name for derived in parsed.derived)]
    for path, name in zip(places, names, strict=True):
        if name in seen:
            yield document.mistake(path, f"{name} is taken already", "give each field its own name")
        seen.add(name)
    for index, derived in enumerate(parsed.derived):
        for part, name in enumerate(derived.sum_of):
            path = ("derived", index, "sum_of", part)
            if name in derived.sum_of[:part]:
                yield document.mistake(path, f"{name} stands twice in the sum", "name each part once")
            if name not in registers:
                yield document.mistake(path, f"no register is named {name}", nearest(name, registers))
    yield from _counter_mistakes(document, parsed)
    if parsed.scan_closed_by is not None and parsed.scan_closed_by not in registers:
        problem = f"no register is named {parsed.scan_closed_by}"
        yield document.mistake(("scan_closed_by",), problem, nearest(parsed.scan_closed_by, registers))


def _counter_mistakes(document: Document, parsed: _Profile) -> Iterator[Mistake]:
    """Flows that nobody knows, and energies that no counter counts."""
    counters = [register.name for register in parsed.registers if register.kind == "counter"]
    for flow, name in parsed.energy.items():
        if flow not in ENERGY_FLOWS:
            yield document.mistake(("energy", flow), "unknown flow", nearest(flow, ENERGY_FLOWS))
        if name not in counters:
            problem = f"no register of kind counter is named {name}"
            yield document.mistake(("energy", flow), problem, nearest(name, counters))


def _address_mistakes(document: Document, parsed: _Profile) -> Iterator[Mistake]:
    """Ranges that are empty, values beyond the last address, and values that share a part of an address."""
    values: list[tuple[int, RegisterType, KeyPath]] = []
    for index, register in enumerate(parsed.registers):
        values.append((register.address, register.type, ("registers", index, "address")))
        if register.range is not None and register.range[0] >= register.range[1]:
            problem = f"{register.range[0]:g} is not below {register.range[1]:g}"
            yield document.mistake(("registers", index, "range"), problem, "allowed is [lowest, highest]")
    if parsed.valid_when is not None:
        values.append((parsed.valid_when.address, parsed.valid_when.type, ("valid_when", "address")))
    for address, kind, path in values:
        if address + WORDS_OF_TYPE[kind] > ADDRESS_END:
            yield document.mistake(
                path,
                f"{address:#06x} leaves no room for {kind}",
                "the last register of a value is at most 0xFFFF",
            )
    for (address, kind, _), (other, other_kind, path) in pairwise(sorted(values, key=lambda value: value[0])):
        same = (address, kind) == (other, other_kind)
        if other < address + WORDS_OF_TYPE[kind] and not same:
            yield document.mistake(
                path,
                f"{other_kind} at {other:#06x} overlaps {kind} at {address:#06x}",
                "values may share their address and type, or nothing",
            )
