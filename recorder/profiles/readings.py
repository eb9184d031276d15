"""Values from the registers of one answer.

Takes a profile, the first address and the register bytes of an answer whose CRC is right; gives
`Readings`. Never does I/O, never gives a value for a register that was not read, is marked "not
available" by the device, or is outside its plausible range.
"""

import math
import struct
from fractions import Fraction
from typing import Final, NamedTuple

from recorder.profiles.model import Profile, Register, RegisterType

# Modbus sends the high byte and the high word first.
_CODES: dict[RegisterType, str] = {"u16": "H", "s16": "h", "u32": "I", "s32": "i"}
_CODES |= {"u64": "Q", "s64": "q", "f32": "f"}


class Readings(NamedTuple):
    """What one answer says.

    `values` are in the units of the profile. `implausible` and `unavailable` count the fields that
    are left out for their value. An answer that the validity rule rejects has `valid` False and no
    values.
    """

    values: dict[str, float]
    implausible: int = 0
    unavailable: int = 0
    valid: bool = True


INVALID: Final = Readings({}, valid=False)


class _Step(NamedTuple):
    """How one field comes from its raw value: `(raw + offset) * numerator / denominator`."""

    name: str
    slot: int
    absent: int | None
    offset: int
    numerator: int
    denominator: int
    low: float
    high: float


class AnswerPlan(NamedTuple):
    """How all fields come from one shape of answer; see `plan_answer`."""

    unpack: struct.Struct
    steps: tuple[_Step, ...]
    floats: bool
    sums: tuple[tuple[str, frozenset[str]], ...]
    valid_slot: int | None
    valid_absent: int | None
    valid_above: int

    def read(self, register_bytes: bytes) -> Readings:
        """Decode every field whose registers lie wholly inside an answer of the planned shape.

        Each value is the float nearest to the exact `(raw + offset) * scale`. "Not available" is the
        largest signed value, all ones in an unsigned one (ABB B21/B23/B24 manual), and NaN or infinity
        in f32. An odd last byte is not looked at.
        """
        unpack, steps, floats, sums, valid_slot, _, _ = self
        raws = unpack.unpack_from(register_bytes)
        if floats:
            raws = tuple(map(_exact, raws))
        if valid_slot is not None and not _is_valid(self, raws[valid_slot]):
            return INVALID
        values: dict[str, float] = {}
        implausible = unavailable = 0
        for name, slot, absent, offset, numerator, denominator, low, high in steps:
            raw = raws[slot]
            if raw == absent:
                unavailable += 1
                continue
            value = (raw + offset) * numerator / denominator  # exact up to the one division
            if low <= value <= high:
                values[name] = value
            else:
                implausible += 1
        if floats:
            values = {name: float(value) for name, value in values.items()}
        for name, parts in sums:
            if values.keys() >= parts:
                values[name] = math.fsum([values[part] for part in parts])
        return Readings(values, implausible, unavailable)


def plan_answer(profile: Profile, address: int, count: int) -> AnswerPlan | None:
    """Plan answers of `count` registers from `address`; None where the rule's register is missing."""
    rule = profile.validity
    inside = [register for register in profile.registers if register.lies_in(address, count)]
    witnesses = [Register(rule.address, "", rule.type)] if rule else []
    if not all(witness.lies_in(address, count) for witness in witnesses):
        return None
    shapes = sorted({(register.address, register.type, register.words) for register in (*inside, *witnesses)})
    slots = {start: slot for slot, (start, _, _) in enumerate(shapes)}
    layout, position = ">", address
    for start, kind, words in shapes:
        layout += f"{2 * (start - position)}x{_CODES[kind]}"
        position = start + words
    names = {register.name for register in inside}
    return AnswerPlan(
        unpack=struct.Struct(layout),
        steps=tuple(_step(register, slots) for register in inside),
        floats=any(kind == "f32" for _, kind, _ in shapes),
        sums=tuple(
            (field.name, frozenset(field.sum_of))
            for field in profile.derived
            if names.issuperset(field.sum_of)
        ),
        valid_slot=slots[rule.address] if rule else None,
        valid_absent=_absent(rule.type) if rule else None,
        valid_above=rule.above if rule else 0,
    )


def _is_valid(plan: AnswerPlan, witness: int | Fraction | None) -> bool:
    return witness is not None and witness != plan.valid_absent and witness > plan.valid_above


def _step(register: Register, slots: dict[int, int]) -> _Step:
    return _Step(
        name=register.name,
        slot=slots[register.address],
        absent=_absent(register.type),
        offset=register.offset,
        numerator=register.scale.numerator,
        denominator=register.scale.denominator,
        low=-math.inf if register.low is None else register.low,
        high=math.inf if register.high is None else register.high,
    )


def _exact(raw: float) -> int | Fraction | None:
    """A raw value for exact arithmetic; None for NaN and infinity."""
    if isinstance(raw, int):
        return raw
    return Fraction(raw) if math.isfinite(raw) else None


def _absent(kind: RegisterType) -> int | None:
    """The raw value that says "not available"."""
    if kind == "f32":
        return None
    bits = int(kind[1:])
    return (1 << (bits - 1)) - 1 if kind[0] == "s" else (1 << bits) - 1
