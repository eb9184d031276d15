"""Modbus RTU frames: built and checked as pymodbus builds and checks them."""

from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU

from recorder.modbus.frames import (
    answer_length,
    exception_response,
    has_valid_crc,
    read_request,
    read_response,
    request_length,
    with_crc,
)


def test_pcs_request_is_built_as_the_controller_sends_it() -> None:
    """The request for the PCS's 92 registers has the CRC that was seen on the wire."""
    assert read_request(1, 3, 0x9C72, 92) == bytes.fromhex("01039c72005ccbb8")


@given(st.binary(min_size=2, max_size=254))
def test_crc_is_that_of_pymodbus(body: bytes) -> None:
    """Two independent implementations give one checksum."""
    assert int.from_bytes(with_crc(body)[-2:]) == FramerRTU.compute_CRC(body)


@given(st.binary(min_size=2, max_size=254), st.integers(0, 255), st.integers(1, 255))
def test_a_changed_byte_breaks_the_crc(body: bytes, position: int, change: int) -> None:
    """No single byte of a frame can differ unnoticed."""
    frame = bytearray(with_crc(body))
    frame[position % len(frame)] ^= change
    assert not has_valid_crc(bytes(frame))


def test_short_bytes_are_no_frame() -> None:
    """Three bytes cannot hold unit, function and CRC, even where their remainder is 0."""
    assert not has_valid_crc(b"\x00\x00\x00")


@given(st.integers(1, 247), st.sampled_from([3, 4]), st.integers(0, 65535), st.integers(1, 125))
def test_answer_to_a_read_has_the_length_that_its_request_tells(
    unit: int, function: int, address: int, count: int
) -> None:
    """The request alone says how long its answer is."""
    request = read_request(unit, function, address, count)
    assert answer_length(request) == len(read_response(unit, function, bytes(2 * count)))


def test_length_of_a_request_is_known_from_its_start() -> None:
    """Each function's request has its own way to tell its length."""
    write_two_registers = bytes.fromhex("01100001000204000a0102")
    assert request_length(write_two_registers) == len(with_crc(write_two_registers))
    assert request_length(read_request(1, 3, 0, 1)) == 8
    assert request_length(b"\x01\x10\x00\x01") == 0
    assert request_length(b"\x01") == 0
    assert request_length(b"\x01\x41\x00") is None


def test_refusal_has_its_flag_and_code() -> None:
    """An exception answer is five bytes with the flag in its function."""
    frame = exception_response(1, 3, 2)
    assert (frame[1], frame[2], len(frame), has_valid_crc(frame)) == (0x83, 2, 5, True)
