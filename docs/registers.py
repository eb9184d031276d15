"""The table of registers in `registers.md`, from the shipped profiles.

Takes the shipped profiles, gives Markdown; `python -m docs.registers` writes it beside this file.
"""

from pathlib import Path

from recorder.commands.configuration import load_configuration
from recorder.profiles.model import Profile, Register

INTRODUCTION = """\
# Registers

What the recorder reads from each device, written by `python -m docs.registers` from `config/profiles/`.
A value is (raw + offset) * scale, in its unit; outside its range it is no reading. Values of several
registers have the high word first.
"""


def render() -> str:
    """The whole document."""
    return "\n".join([INTRODUCTION, *map(_section, load_configuration(None, {}).profiles)])


def _section(profile: Profile) -> str:
    place = f"measurement `{profile.measurement}`, device `{profile.device}`"
    request = f"unit {profile.unit}, function {profile.function}, one point per {profile.point_per}"
    lines = [f"## {profile.description}", "", f"Profile `{profile.name}`, {place}, {request}."]
    if profile.validity:
        rule = profile.validity
        lines.append(f"An answer counts only when {rule.address:04X} ({rule.type}) is above {rule.above}.")
    lines += [
        "",
        _row("address", "field", "type", "scale", "unit", "range", "kind", "meaning"),
        _row(*["---"] * 8),
    ]
    for register in profile.registers:
        value = (f"{register.address:04X}", f"`{register.name}`", register.type, _scale(register))
        lines.append(_row(*value, register.unit, _range(register), register.kind, register.description))
    for derived in profile.derived:
        total = " + ".join(derived.sum_of)
        lines.append(
            _row("", f"`{derived.name}`", "sum", total, derived.unit, "", derived.kind, derived.description)
        )
    return "\n".join([*lines, ""])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _scale(register: Register) -> str:
    return f"{register.scale}, offset {register.offset}" if register.offset else str(register.scale)


def _range(register: Register) -> str:
    return "" if register.low is None else f"{register.low:.10g} to {register.high:.10g}"


if __name__ == "__main__":
    Path(__file__).with_name("registers.md").write_text(render(), encoding="utf-8")
