"""A device profile from YAML, checked until nothing in it can surprise the decoder.

Takes the text of one profile file, gives a `Profile`. Never does I/O; every mistake in the text is
a `ConfigurationError` that names file, line, key and what is allowed.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from recorder.profiles.model import (
    COUNTER_QUANTITIES,
    QUANTITIES,
    WORDS_OF_TYPE,
    DerivedField,
    FieldKind,
    PointPer,
    Profile,
    Register,
    RegisterType,
    Role,
    Side,
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
TEXT_KEYS = frozenset(
    {"name", "measurement", "device", "description", "scale", "scan_closed_by", "role", "poll_counter"}
)
_UNIT_OF = {"soc": "%", **dict.fromkeys(COUNTER_QUANTITIES, "kWh")}
# The recorder writes these itself; `energy_` and `savings_` are the beginnings of more.
RESERVED_MEASUREMENTS = frozenset({"flow", "recorder", "energy"})
RESERVED_PREFIXES = ("energy_", "savings_")

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
RoleName = Annotated[Role, Allowed("inverter, hybrid_inverter, grid_meter, battery, submeter or other")]
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


class _PvPower(_Model):
    field: Name
    side: Annotated[Side, Allowed("ac or dc: on which side of the inverter it is measured")]


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
    role: Annotated[Role | None, RoleName.__metadata__[0]] = None
    quantities: Annotated[
        dict[str, str | _PvPower],
        Allowed(
            "a mapping of quantity to field, such as grid_power: active_power; pv_power is {field, side}"
        ),
    ] = {}
    poll_counter: Annotated[str | None, Allowed("the name of a register of kind counter")] = None
    # The former place of the counters; `quantities` names them too.
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
        **_balance_of(parsed),
        description=parsed.description,
    )


def _balance_of(parsed: _Profile) -> dict[str, Any]:
    """Return what the profile says about the energy balance: role, quantities, side of PV, poll counter."""
    sides = [value.side for value in parsed.quantities.values() if isinstance(value, _PvPower)]
    named = {
        quantity: value.field if isinstance(value, _PvPower) else value
        for quantity, value in parsed.quantities.items()
    }
    if parsed.role is None:
        return _balance_of_older(parsed)
    return {
        "role": parsed.role,
        "quantities": tuple({**parsed.energy, **named}.items()),
        "pv_side": sides[0] if sides else "dc",
        "poll_counter": parsed.poll_counter or "",
    }


def _balance_of_older(parsed: _Profile) -> dict[str, Any]:
    """Return the same of a profile from before roles: a copy of a shipped one, told by its counters."""
    names = {register.name: register for register in parsed.registers}
    known = {*names, *(derived.name for derived in parsed.derived)}
    role: Role = "other"
    quantities = dict(parsed.energy)
    if parsed.energy.keys() & {"grid_import", "grid_export"} and "active_power" in known:
        role, quantities["grid_power"] = "grid_meter", "active_power"
    elif known >= {"active_power", "pv_power", "battery_power"}:
        role = "hybrid_inverter"
        quantities |= {
            "ac_power": "active_power",
            "pv_power": "pv_power",
            "battery_power": "battery_power",
            **({"soc": "battery_soc"} if "battery_soc" in known else {}),
        }
    polls = names.get(parsed.poll_counter or "polls")
    return {
        "role": role,
        "is_role_inferred": True,
        "quantities": tuple(quantities.items()),
        "poll_counter": polls.name if polls is not None and polls.kind == "counter" else "",
    }


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
    yield from _reserved_mistakes(document, parsed, zip(places, names, strict=True))
    yield from _counter_mistakes(document, parsed)
    if parsed.scan_closed_by is not None and parsed.scan_closed_by not in registers:
        problem = f"no register is named {parsed.scan_closed_by}"
        yield document.mistake(("scan_closed_by",), problem, nearest(parsed.scan_closed_by, registers))


def _reserved_mistakes(
    document: Document, parsed: _Profile, named: Iterable[tuple[KeyPath, str]]
) -> Iterator[Mistake]:
    """Names that the recorder and InfluxDB use themselves."""
    if parsed.measurement in RESERVED_MEASUREMENTS or parsed.measurement.startswith(RESERVED_PREFIXES):
        problem = f"the recorder writes {parsed.measurement} itself"
        yield document.mistake(("measurement",), problem, "give the measurement another name")
    for path, name in named:
        if name == "time":
            yield document.mistake(path, "time is the name of a point's time", "give the field another name")


def _counter_mistakes(document: Document, parsed: _Profile) -> Iterator[Mistake]:
    """Quantities that nobody knows, fields that do not exist, and energies that no counter counts."""
    counters = [register.name for register in parsed.registers if register.kind == "counter"]
    fields = {register.name: register.unit for register in parsed.registers}
    fields |= {derived.name: derived.unit for derived in parsed.derived}
    places: list[tuple[KeyPath, str, str, Sequence[str]]] = [
        (("energy", flow), flow, name, COUNTER_QUANTITIES) for flow, name in parsed.energy.items()
    ]
    for quantity, value in parsed.quantities.items():
        path: KeyPath = ("quantities", quantity)
        if isinstance(value, str) and quantity == "pv_power":
            problem = "the side of the inverter is missing"
            yield document.mistake(path, problem, f"pv_power: {{field: {value}, side: dc}}, or side: ac")
        elif isinstance(value, _PvPower) and quantity != "pv_power":
            yield document.mistake(path, f"{quantity} has no side", f"{quantity}: {value.field}")
        places.append((path, quantity, value if isinstance(value, str) else value.field, QUANTITIES))
    for path, quantity, name, allowed in places:
        if quantity not in allowed:
            problem = "unknown flow" if path[0] == "energy" else "unknown quantity"
            yield document.mistake(path, problem, nearest(quantity, allowed))
        elif quantity in COUNTER_QUANTITIES and name not in counters:
            problem = f"no register of kind counter is named {name}"
            yield document.mistake(path, problem, nearest(name, counters))
        elif name not in fields:
            yield document.mistake(path, f"no field is named {name}", nearest(name, list(fields)))
        elif path[0] == "quantities" and fields[name] != _UNIT_OF.get(quantity, "W"):
            unit = _UNIT_OF.get(quantity, "W")
            problem = f"{quantity} is in {unit}, and {name} in {fields[name] or 'no unit'}"
            yield document.mistake(path, problem, f"set unit: {unit}, with a scale that leads to it")
    if parsed.poll_counter is not None and parsed.poll_counter not in counters:
        problem = f"no register of kind counter is named {parsed.poll_counter}"
        yield document.mistake(("poll_counter",), problem, nearest(parsed.poll_counter, counters))
    yield from _role_mistakes(document, parsed)


def _role_mistakes(document: Document, parsed: _Profile) -> Iterator[Mistake]:
    """Roles without the quantities that the balance needs of them."""
    needed: dict[Role, tuple[tuple[str, ...], ...]] = {
        "inverter": (("ac_power", "pv_power"),),
        "hybrid_inverter": (("ac_power",), ("pv_power",), ("battery_power",)),
        "battery": (("battery_power", "ac_power"),),
        "grid_meter": (("grid_power",),),
        "submeter": (("grid_power", "grid_import"),),
    }
    for one_of in needed.get(parsed.role or "other", ()):
        if not any(quantity in parsed.quantities for quantity in one_of):
            problem = f"a device of role {parsed.role} needs the quantity {' or '.join(one_of)}"
            yield document.mistake(("role",), problem, "name its field in `quantities`, or set another role")


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
