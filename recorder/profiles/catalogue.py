"""Which device a request names.

Takes the profiles of the devices on a bus, gives the one whose registers a request asks for. Never
does I/O, and never tells two streams apart: any stream may carry any device.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import inf
from typing import NamedTuple

from recorder.profiles.model import Profile
from recorder.profiles.readings import AnswerPlan, plan_answer


class Overlap(NamedTuple):
    """Two devices that claim the register at `address` of the same unit and function."""

    first: int
    second: int
    address: int


class Catalogue:
    """The devices that can be told apart by unit, function and address.

    `plan(unit, function, address, count)` gives the first profile that has a register wholly inside
    the `count` registers from `address`, with the plan of such an answer, which is None where no
    answer of this shape is valid; None where no profile has such a register. It remembers the latest
    1,024 shapes.
    """

    def __init__(self, profiles: Sequence[Profile]) -> None:
        self.profiles = tuple(profiles)
        self.plan = lru_cache(maxsize=1024)(self._plan)

    def narrowest_other(self, unit: int, function: int, address: int, count: int) -> float:
        """Return the words of the narrowest register that another poll of the device could read.

        Args:
            unit: of the request.
            function: of the request.
            address: the first register that it reads.
            count: how many it reads.

        Returns:
            The words of the narrowest register outside the request, infinity where it reads all registers of
            each profile that has one in it, and 0 where no profile has.
        """
        profiles = [
            profile
            for profile in self.profiles
            if (profile.unit, profile.function) == (unit, function)
            and any(register.lies_in(address, count) for register in profile.registers)
        ]
        others = (
            register.words
            for profile in profiles
            for register in profile.registers
            if not register.lies_in(address, count)
        )
        return min(others, default=inf) if profiles else 0

    def _plan(
        self, unit: int, function: int, address: int, count: int
    ) -> tuple[Profile, AnswerPlan | None] | None:
        for profile in self.profiles:
            if (profile.unit, profile.function) == (unit, function) and any(
                register.lies_in(address, count) for register in profile.registers
            ):
                return profile, plan_answer(profile, address, count)
        return None


def quantity_fields(profiles: Sequence[Profile]) -> dict[str, tuple[str, str]]:
    """Return the measurement and the field that hold each quantity: of the first device that knows it.

    What a submeter measures is no quantity of the site.
    """
    fields: dict[str, tuple[str, str]] = {}
    for profile in profiles:
        if profile.role != "submeter":
            for quantity, field in profile.quantities:
                fields.setdefault(quantity, (profile.measurement, field))
    return fields


def find_overlaps(profiles: Sequence[Profile]) -> list[Overlap]:
    """Pairs of devices, by index, whose answers could not be told apart."""
    claimed = [_claimed(profile) for profile in profiles]
    return [
        Overlap(first, second, min(common)[2])
        for first, second in combinations(range(len(profiles)), 2)
        if (common := claimed[first] & claimed[second])
    ]


def _claimed(profile: Profile) -> set[tuple[int, int, int]]:
    return {
        (profile.unit, profile.function, address)
        for register in profile.registers
        for address in range(register.address, register.address + register.words)
    }
