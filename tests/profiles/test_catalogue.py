"""Which device a request names."""

from dataclasses import replace

import pytest

from recorder.commands.configuration import load_configuration
from recorder.profiles.catalogue import Catalogue, find_overlaps

PCS, METER = load_configuration(None, {}).profiles


@pytest.mark.parametrize(
    ("request_", "device"),
    [
        ((1, 3, 0x9C72, 92), "pcs"),
        ((1, 3, 0x5000, 4), "meter"),
        ((1, 3, 0x5B2C, 1), "meter"),
        ((1, 3, 0x5B00, 6), "meter"),
        ((2, 3, 0x5000, 4), None),
        ((1, 4, 0x5000, 4), None),
        ((1, 3, 0x5000, 3), None),
        ((1, 3, 0x5001, 4), None),
        ((1, 3, 0x0000, 0), None),
    ],
)
def test_request_names_the_device_whose_register_it_asks_for(
    request_: tuple[int, int, int, int], device: str | None
) -> None:
    """A request belongs to the device of its unit and function that has a register wholly inside it."""
    planned = Catalogue([PCS, METER]).plan(*request_)
    assert (planned and planned[0].device) == device


def test_second_meter_is_told_apart_by_its_unit() -> None:
    """Two devices with one profile on different units are found each by its unit."""
    second = replace(METER, unit=2, device="second")
    catalogue = Catalogue([METER, second])
    for unit, profile in ((1, METER), (2, second)):
        planned = catalogue.plan(unit, 3, 0x5000, 4)
        assert planned is not None
        assert planned[0] is profile


def test_memory_of_requests_is_bounded() -> None:
    """However many shapes of request a stream invents, the catalogue remembers 1,024 of them."""
    catalogue = Catalogue([PCS, METER])
    for address in range(3000):
        catalogue.plan(1, 3, address, 1)
    assert catalogue.plan.cache_info().currsize == 1024


def test_devices_overlap_only_on_one_unit_and_function() -> None:
    """The same registers on another unit or function are no overlap; on the same they are."""
    assert find_overlaps([PCS, METER, replace(METER, unit=2), replace(METER, function=4)]) == []
    assert find_overlaps([PCS, METER, METER]) == [(1, 2, 0x5000)]
