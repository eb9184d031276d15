"""Requests joined to answers: dialogues on a tapped bus, as lists of what was written and read."""

from collections import Counter
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.modbus.exchange import MAX_BUSES, Bus, Buses, Exchange
from recorder.modbus.frames import exception_response, read_request, read_response, with_crc
from recorder.modbus.sync import MAX_REQUESTS, MAX_WITHHELD, Start

PCS = read_request(1, 3, 0x9C72, 92)
PCS_REGISTERS = bytes(range(184))
PCS_ANSWER = read_response(1, 3, PCS_REGISTERS)

L1, L2, L3 = (read_request(1, 3, address, 2) for address in (0x5B00, 0x5B02, 0x5B04))
FREQUENCY = read_request(1, 3, 0x5B2C, 1)


def voltage(value: int) -> bytes:
    return read_response(1, 3, value.to_bytes(4))


HERTZ = read_response(1, 3, b"\x13\x88")

Step = tuple[str, bytes]


def narrowest_other(_unit: int, _function: int, address: int, _count: int) -> float:
    """Say what a profile of the PCS, and one of the meter, say of other polls."""
    return {0x9C72: inf, 0x5B2C: 2}.get(address, 1)


def listen(*steps: Step, start: Start = Start.UNKNOWN) -> tuple[list[tuple[int, bytes]], Counter[str]]:
    """Play a dialogue: ("w", bytes) is written by the master, ("r", bytes) read, ("cut", bytes) cut."""
    counts: Counter[str] = Counter()
    bus = Bus(counts, narrowest_other, start)
    exchanges: list[Exchange] = []
    for kind, data in steps:
        if kind == "w":
            exchanges += bus.wrote(data, complete=True)
        else:
            exchanges += bus.read(data, complete=kind == "r", captured_at_ns=None)
    exchanges += bus.finish()
    return [(exchange.address, exchange.register_bytes) for exchange in exchanges], +counts


def test_answer_in_one_piece() -> None:
    """A request and its answer are an exchange."""
    exchanges, counts = listen(("w", PCS), ("r", PCS_ANSWER))
    assert exchanges == [(0x9C72, PCS_REGISTERS)]
    assert counts == Counter(requests=1, frames=1)


def test_answer_byte_by_byte() -> None:
    """The answer may come in pieces of any size."""
    exchanges, counts = listen(("w", PCS), *(("r", bytes((byte,))) for byte in PCS_ANSWER))
    assert exchanges == [(0x9C72, PCS_REGISTERS)]
    assert counts == Counter(requests=1, frames=1)


def test_answer_with_garbage_behind() -> None:
    """Bytes behind the answer are counted, and do not reach the next exchange."""
    exchanges, counts = listen(("w", PCS), ("r", PCS_ANSWER + b"\x01\x03\xb8"), ("w", PCS), ("r", PCS_ANSWER))
    assert exchanges == [(0x9C72, PCS_REGISTERS)] * 2
    assert counts == Counter(requests=2, frames=2, resyncs=1, stray_bytes=3)


def test_request_in_two_writes() -> None:
    """A partial write is completed by the next one."""
    exchanges, _ = listen(("w", PCS[:3]), ("w", PCS[3:]), ("r", PCS_ANSWER))
    assert exchanges == [(0x9C72, PCS_REGISTERS)]


def test_two_requests_in_one_write_are_two() -> None:
    """The answer that follows is that of the second, and the first has none."""
    exchanges, counts = listen(("w", L1 + PCS), ("r", PCS_ANSWER))
    assert exchanges == [(0x9C72, PCS_REGISTERS)]
    assert counts == Counter(requests=2, unanswered=1, frames=1)


def test_stale_bytes_before_the_answer_are_passed_over() -> None:
    """Where bytes of an older answer come first, the right frame is found behind them."""
    exchanges, counts = listen(("w", PCS), ("r", b"\x00\x01\x03\x00"), ("r", PCS_ANSWER))
    assert exchanges == [(0x9C72, PCS_REGISTERS)]
    assert counts == Counter(requests=1, frames=1, resyncs=1, stray_bytes=4)


def test_stale_bytes_over_several_requests_make_no_exchange() -> None:
    """Short reads of a stale answer across requests give nothing, and the bus is back in step after them."""
    stale = [
        step for start in range(40, 60, 5) for step in (("w", PCS), ("r", PCS_ANSWER[start : start + 5]))
    ]
    exchanges, counts = listen(*stale, ("w", PCS), ("r", PCS_ANSWER))
    assert exchanges == [(0x9C72, PCS_REGISTERS)]
    assert counts == Counter(requests=5, frames=1, incomplete_answers=4, stray_bytes=20)


@pytest.mark.parametrize("position", range(len(PCS_ANSWER)))
def test_wrong_byte_makes_no_exchange(position: int) -> None:
    """A wrong byte at any position of the answer is noticed."""
    wrong = bytearray(PCS_ANSWER)
    wrong[position] ^= 0x10
    exchanges, _ = listen(("w", PCS), ("r", bytes(wrong)))
    assert exchanges == []


def test_wrong_crc_is_counted() -> None:
    """An answer of full length with a wrong CRC is a CRC error."""
    _, counts = listen(("w", PCS), ("r", PCS_ANSWER[:-1] + b"\x00"), ("w", PCS), ("r", PCS_ANSWER))
    assert (counts["crc_errors"], counts["frames"]) == (1, 1)


def test_request_without_answer_is_counted() -> None:
    """A request that is followed by another one was not answered."""
    exchanges, counts = listen(("w", PCS), ("w", PCS), ("r", PCS_ANSWER))
    assert exchanges == [(0x9C72, PCS_REGISTERS)]
    assert counts == Counter(requests=2, unanswered=1, frames=1)


def test_answer_of_another_unit_is_not_taken() -> None:
    """A frame with a right CRC from another unit answers nothing."""
    exchanges, _ = listen(("w", PCS), ("r", read_response(2, 3, PCS_REGISTERS)))
    assert exchanges == []


def test_answer_with_another_byte_count_is_not_taken() -> None:
    """A frame with a right CRC and too few registers answers nothing."""
    exchanges, _ = listen(("w", PCS), ("r", read_response(1, 3, PCS_REGISTERS[:-2])))
    assert exchanges == []


def test_refusal_is_counted() -> None:
    """An exception answer closes the request without an exchange."""
    exchanges, counts = listen(("w", PCS), ("r", exception_response(1, 3, 2)), ("w", PCS), ("r", PCS_ANSWER))
    assert exchanges == [(0x9C72, PCS_REGISTERS)]
    assert counts == Counter(requests=2, exceptions=1, frames=1)


OTHER_EXCHANGES = {
    "read coils": (with_crc(b"\x01\x01\x00\x00\x00\x0a"), with_crc(b"\x01\x01\x02\xff\x03")),
    "write one register": (with_crc(b"\x01\x06\x00\x01\x00\x03"), with_crc(b"\x01\x06\x00\x01\x00\x03")),
    "write registers": (
        with_crc(b"\x01\x10\x00\x01\x00\x02\x04\x00\x0a\x01\x02"),
        with_crc(b"\x01\x10\x00\x01\x00\x02"),
    ),
    "vendor function": (with_crc(b"\x01\x41\x07"), with_crc(b"\x01\x41\x00\x01")),
    "report server id": (with_crc(b"\x01\x11"), with_crc(b"\x01\x11\x02\x0a\xff")),
}


@pytest.mark.parametrize("name", OTHER_EXCHANGES)
def test_other_function_is_recognised_and_counted(name: str) -> None:
    """Exchanges that are no reads of registers keep the bus in step and are counted."""
    request, answer = OTHER_EXCHANGES[name]
    exchanges, counts = listen(("w", request), ("r", answer), ("w", PCS), ("r", PCS_ANSWER))
    assert exchanges == [(0x9C72, PCS_REGISTERS)]
    assert counts == Counter(requests=2, other_functions=1, frames=1)


def test_cut_answer_is_no_exchange() -> None:
    """What strace cut cannot be joined, even where the rest would fit."""
    exchanges, _ = listen(("w", PCS), ("cut", PCS_ANSWER[:10]), ("r", PCS_ANSWER[10:]))
    assert exchanges == []


def test_bytes_before_the_first_request_are_dropped() -> None:
    """A tap that is attached in the middle of an answer waits for the next request."""
    exchanges, counts = listen(("r", PCS_ANSWER), ("w", PCS), ("r", PCS_ANSWER))
    assert len(exchanges) == 1
    assert counts["stray_bytes"] == len(PCS_ANSWER)


def test_wrong_request_takes_no_answer() -> None:
    """After a write that is no request, an answer that fits the request before it is not its answer."""
    exchanges, _ = listen(("w", L1), ("w", L2[:-1] + b"\x00"), ("r", voltage(2)))
    assert exchanges == []


def scan(*, without: str = "") -> list[Step]:
    """A scan of four polls; the response to the one named is missing."""
    steps: list[Step] = []
    for name, request, response in (
        ("L1", L1, voltage(1)), ("L2", L2, voltage(2)), ("L3", L3, voltage(3)), ("F", FREQUENCY, HERTZ)
    ):  # fmt: skip
        steps += [("w", request)] if name == without else [("w", request), ("r", response)]
    return steps


SCAN = [(0x5B00, b"\0\0\0\1"), (0x5B02, b"\0\0\0\2"), (0x5B04, b"\0\0\0\3"), (0x5B2C, b"\x13\x88")]
IN_SYNC = Start.IN_SYNC


def test_one_whole_scan_is_given() -> None:
    """A capture of one scan has nothing before or behind it, and its last response could be no other's."""
    exchanges, counts = listen(*scan())
    assert exchanges == SCAN
    assert counts == Counter(requests=4, frames=4)


def test_scan_without_a_proof_is_withheld() -> None:
    """Of responses that all look alike nobody can tell whether they are those of the requests before."""
    exchanges, counts = listen(*scan()[:6])
    assert exchanges == []
    assert counts["withheld_at_start"] == counts["ambiguous_answers"] == 3


def test_start_is_held_until_a_cycle_is_complete() -> None:
    """While the stream runs, nothing is given before it is known what looks alike, and then all is."""
    bus = Bus(Counter(), narrowest_other)
    given: list[int] = []
    for _ in range(8):
        for kind, data in scan():
            if kind == "w":
                bus.wrote(data, complete=True)
            else:
                given.append(len(bus.read(data, complete=True, captured_at_ns=None)))
    assert given[:4] == [0, 0, 0, 0]
    assert sum(given) == 32
    assert given[-3:] == [1, 1, 1]


def test_lost_response_costs_what_looks_like_it() -> None:
    """After a missing response only those like it are dropped; the next one may be the late one."""
    exchanges, counts = listen(*scan(without="L1"), start=IN_SYNC)
    assert exchanges == SCAN[3:]
    assert counts == Counter(
        requests=4, frames=3, unanswered=1, withheld_after_failure=2, ambiguous_answers=2
    )


def test_lost_response_does_not_cost_what_looks_different() -> None:
    """No response of another length is in question."""
    exchanges, counts = listen(*scan(without="F"), *scan(), start=IN_SYNC)
    assert exchanges == SCAN[:3] + SCAN
    assert counts["ambiguous_answers"] == 0


def test_response_with_a_wrong_byte_costs_itself_only() -> None:
    """It came, with its header and its length: no other one is late."""
    steps = scan()
    steps[1] = ("r", voltage(1)[:-1] + b"\0")
    exchanges, counts = listen(*steps, start=IN_SYNC)
    assert exchanges == SCAN[1:]
    assert (counts["crc_errors"], counts["ambiguous_answers"]) == (1, 0)


def test_piece_of_another_response_is_not_taken_for_the_own_one() -> None:
    """As many bytes as the own response has, of one that is longer: the own one is still to come."""
    longer = read_response(1, 3, bytes(8))
    exchanges, _ = listen(("w", L1), ("r", longer[:9]), ("w", L2), ("r", voltage(1)), start=IN_SYNC)
    assert exchanges == []


def test_late_responses_make_no_exchange() -> None:
    """Responses that each come one request late are never taken for those of the later requests."""
    exchanges, _ = listen(
        ("w", L1), ("w", L2), ("r", voltage(1)), ("w", L3), ("r", voltage(2)),
        ("w", FREQUENCY), ("r", voltage(3)), ("w", L1), ("r", HERTZ), start=IN_SYNC,
    )  # fmt: skip
    assert exchanges == []


def test_stale_response_before_the_right_one_proves_nothing_of_those_before() -> None:
    """A frame that stood before the right one in one read shows that those before were shifted."""
    exchanges, _ = listen(
        ("w", L1), ("w", L2), ("r", voltage(1)), ("w", L3), ("r", voltage(2)),
        ("w", FREQUENCY), ("r", voltage(3) + HERTZ), *scan(), start=IN_SYNC,
    )  # fmt: skip
    assert exchanges == [SCAN[3], *SCAN]


def test_seen_late_response_ends_the_question() -> None:
    """Once the missing response was seen where none was asked for, nothing more can come."""
    exchanges, counts = listen(
        ("w", L1),
        ("w", L2),
        ("r", voltage(1)),
        ("r", voltage(2)),
        ("w", L3),
        ("r", voltage(3)),
        start=IN_SYNC,
    )
    assert exchanges == SCAN[2:3]
    assert counts["withheld_after_failure"] == 1


def test_request_that_is_sent_again_may_be_answered_twice() -> None:
    """Both responses belong to its address; the second one comes under the next request."""
    exchanges, _ = listen(
        ("w", L1), ("w", L1), ("r", voltage(1)), ("w", L2), ("r", voltage(1)), ("w", L3), ("r", voltage(2)),
        start=IN_SYNC,
    )  # fmt: skip
    assert exchanges == SCAN[:1]


def test_late_exception_does_not_end_the_next_request() -> None:
    """The exception may be that to the request before; then the next response is that of the refused one."""
    refusal = exception_response(1, 3, 6)
    exchanges, _ = listen(
        ("w", FREQUENCY), ("w", L1), ("r", refusal), ("w", L2), ("r", voltage(1)), start=IN_SYNC
    )
    assert exchanges == []


def test_refused_register_costs_nothing() -> None:
    """A device that refuses one register in each scan is in sync all the same."""
    refused = [("w", PCS), ("r", exception_response(1, 3, 2))]
    exchanges, counts = listen(*[*scan(), *refused] * 10)
    assert exchanges == SCAN * 10
    assert counts["ambiguous_answers"] == 0


def test_two_responses_in_one_read_are_not_believed() -> None:
    """One of them is another's, and nobody can tell which."""
    exchanges, counts = listen(("w", L1), ("r", voltage(1) + voltage(2)), start=IN_SYNC)
    assert exchanges == []
    assert counts["withheld_out_of_sync"] == 1


def test_unasked_response_ends_sync() -> None:
    """A response that no request explains puts every one in question that has its like on this bus."""
    exchanges, counts = listen(*scan() * 8, ("r", voltage(9)), *scan())
    assert exchanges == [*SCAN * 8, SCAN[3]]
    assert counts["withheld_out_of_sync"] == 3


def test_lost_line_ends_sync() -> None:
    """What follows an unreadable line is withheld until the bus is proven in sync."""
    exchanges, counts = listen(*scan() * 8, ("cut", b""), *scan())
    assert exchanges == [*SCAN * 8, SCAN[3]]
    assert counts["withheld_unreadable"] == 3


def test_bus_settles_behind_a_failure() -> None:
    """Some cycles behind a failure everything is given again; fifteen where lines have no stamps."""
    exchanges, counts = listen(*scan() * 8, *scan(without="L1"), *scan() * 20)
    assert exchanges[:33] == [*SCAN * 8, SCAN[3]]
    assert exchanges[-16:] == SCAN * 4
    assert counts["ambiguous_answers"] == 2 + 3 * 15


def test_event_drops_what_is_withheld() -> None:
    """Before the bus has settled a second failure may hide what would have shown the first one."""
    exchanges, _ = listen(
        *scan() * 8, *scan(without="L1"), *scan() * 2, ("w", L1), ("w", L2), ("r", voltage(2)), *scan()[4:]
    )
    assert [exchange for exchange in exchanges[33:] if exchange[0] != 0x5B2C] == []


def test_certain_exchange_waits_for_those_before_it() -> None:
    """Exchanges come in the order of the bus, and what is certain also where others are dropped."""
    bus = Bus(Counter(), narrowest_other)
    for kind, data in scan():
        if kind == "w":
            bus.wrote(data, complete=True)
        else:
            assert bus.read(data, complete=True, captured_at_ns=None) == []
    bus.wrote(PCS, complete=True)
    assert bus.read(PCS_ANSWER, complete=True, captured_at_ns=None) == []
    bus.wrote(L1, complete=True)
    assert [exchange.address for exchange in bus.wrote(L2, complete=True)] == [0x9C72]


def test_polls_that_all_look_alike_are_undecidable() -> None:
    """No response of such a bus proves anything: it is withheld, counted and told."""
    counts: Counter[str] = Counter()
    bus = Bus(counts, narrowest_other)
    for _ in range(10):
        for kind, data in scan()[:6]:
            if kind == "w":
                bus.wrote(data, complete=True)
            else:
                assert bus.read(data, complete=True, captured_at_ns=None) == []
    assert bus.undecidable
    assert counts["withheld_undecidable"] == counts["ambiguous_answers"] == 30


def test_bus_that_is_said_to_be_in_sync_is_believed_until_an_event() -> None:
    """Then polls that all look alike are undecidable again."""
    alike = scan()[:6]
    exchanges, counts = listen(*alike * 3, ("w", L1), *alike * 3, start=IN_SYNC)
    assert exchanges == [*SCAN[:3] * 3, SCAN[0]]
    assert counts["withheld_undecidable"] > 0


def test_withheld_exchanges_are_bounded() -> None:
    """A bus that never proves in sync keeps no more than so many exchanges and requests."""
    counts: Counter[str] = Counter()
    bus = Bus(counts, narrowest_other)
    for address in range(4 * MAX_WITHHELD):
        bus.wrote(read_request(1, 3, address, 2), complete=True)
        assert bus.read(voltage(1), complete=True, captured_at_ns=None) == []
        state = bus.state.sync
        assert len(state.seen) <= MAX_REQUESTS
        assert state.loss is not None
        assert len(state.loss.withheld) <= MAX_WITHHELD
    assert bus.finish() == []
    assert counts["ambiguous_answers"] == 4 * MAX_WITHHELD


@pytest.mark.parametrize("before", [0, 8193])
def test_bus_that_appears_under_another_name_is_not_believed(before: int) -> None:
    """Where `[pid N]` begins or ends, what was under way may have failed: a proof is needed."""
    counts: Counter[str] = Counter()
    buses = Buses(counts, narrowest_other)
    after = 8193 - before
    for process in (before, after):
        for kind, data in scan():
            bus = buses.bus((process, 4))
            if kind == "w":
                bus.wrote(data, complete=True)
            else:
                assert bus.read(data, complete=True, captured_at_ns=None) == []
    assert list(buses._buses) == [(after, 4)]
    assert buses.finish() == []
    assert counts["ambiguous_answers"] == 8


def test_buses_do_not_mix() -> None:
    """Each process and descriptor is a bus of its own."""
    counts: Counter[str] = Counter()
    buses = Buses(counts, narrowest_other)
    buses.bus((1, 4)).wrote(PCS, complete=True)
    assert buses.bus((1, 5)).read(PCS_ANSWER, complete=True, captured_at_ns=1) == []
    assert buses.bus((2, 4)).read(PCS_ANSWER, complete=True, captured_at_ns=1) == []
    assert len(buses.bus((1, 4)).read(PCS_ANSWER, complete=True, captured_at_ns=1)) == 1


def test_buses_are_bounded() -> None:
    """A stream that names ever new descriptors keeps the latest ones only."""
    counts: Counter[str] = Counter()
    buses = Buses(counts)
    for descriptor in range(10 * MAX_BUSES):
        buses.bus((1, descriptor))
    assert len(buses._buses) == MAX_BUSES
    assert counts["dropped_buses"] == 9 * MAX_BUSES


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=400), st.booleans()), max_size=40))
def test_arbitrary_transfers_never_raise_and_stay_bounded(transfers: list[tuple[bool, bytes, bool]]) -> None:
    """Nothing that a process moves can raise, grow the bus, or make an exchange by chance."""
    bus = Bus(Counter(), narrowest_other)
    for written, data, complete in transfers:
        if written:
            assert bus.wrote(data, complete=complete) == []
        else:
            assert bus.read(data, complete=complete, captured_at_ns=0) == []
        assert len(bus._written) <= 512
        assert len(bus._read) <= 512
    assert bus.finish() == []


@given(
    st.lists(
        st.tuples(st.sampled_from([L1, L2, L3, FREQUENCY, PCS]), st.sampled_from(["answer", "lost", "wrong"]))
    ),
    st.data(),
)
def test_only_true_values_come_out(dialogue: list[tuple[bytes, str]], data: st.DataObject) -> None:
    """With answers lost and broken at random, each exchange still holds its own address's bytes."""
    bus = Bus(Counter(), narrowest_other)
    exchanges: list[Exchange] = []
    for request, fate in dialogue:
        address, count = int.from_bytes(request[2:4]), int.from_bytes(request[4:6])
        registers = (address.to_bytes(2) * count)[: 2 * count]
        answer = bytearray(read_response(1, 3, registers))
        exchanges += bus.wrote(request, complete=True)
        if fate == "lost":
            continue
        if fate == "wrong":
            answer[data.draw(st.integers(0, len(answer) - 1))] ^= data.draw(st.integers(1, 255))
        exchanges += bus.read(bytes(answer), complete=True, captured_at_ns=None)
    for exchange in [*exchanges, *bus.finish()]:
        assert exchange.register_bytes[:2] == exchange.address.to_bytes(2)


# Bytes that look like the beginning of an answer, a whole one, a refusal, or nothing.
PIECES = st.sampled_from(
    [
        *(PCS_ANSWER[:3], PCS_ANSWER[3:90], PCS_ANSWER[90:], PCS_ANSWER),
        *(voltage(1), voltage(2)[:4], voltage(2)[4:], exception_response(1, 3, 2)),
        *(b"\x01\x83", b"\x01\x03", b"\x04", b"\x00" * 60, b"\x07"),
    ]
)
REQUESTS = st.sampled_from([PCS, L1, L2, FREQUENCY, with_crc(b"\x01\x41\x07"), read_request(1, 3, 0, 60_000)])


@given(
    st.lists(
        st.tuples(st.booleans(), REQUESTS, st.lists(PIECES | st.binary(max_size=9), min_size=1)), max_size=6
    )
)
def test_reads_taken_at_once_are_as_if_one_by_one(dialogue: list[tuple[bool, bytes, list[bytes]]]) -> None:
    """Where a bus says that it takes reads at once, exchanges, times and counts are the same."""
    one: Counter[str] = Counter()
    other: Counter[str] = Counter()
    singly, at_once = Bus(one, narrowest_other), Bus(other, narrowest_other)
    expected: list[Exchange] = []
    found: list[Exchange] = []
    for asked, request, pieces in dialogue:
        if asked:
            expected += singly.wrote(request, complete=True)
            found += at_once.wrote(request, complete=True)
        for at_ns, piece in enumerate(pieces):
            expected += singly.read(piece, complete=True, captured_at_ns=at_ns)
        joined = at_once.read_at_once(b"".join(pieces), len(pieces) - 1)
        if joined is None:
            for at_ns, piece in enumerate(pieces):
                found += at_once.read(piece, complete=True, captured_at_ns=at_ns)
        else:
            found += joined
    expected += singly.finish()
    found += at_once.finish()
    assert (found, +other) == (expected, +one)


def test_only_pieces_of_one_answer_are_read_at_once() -> None:
    """All or a part of the answer that a master waits for, and nothing else."""
    bus = Bus(Counter(), narrowest_other)
    assert bus.read_at_once(PCS_ANSWER, 1) is None
    bus.wrote(PCS, complete=True)
    assert bus.read_at_once(PCS_ANSWER + b"\x00", 1) is None
    assert bus.read_at_once(exception_response(1, 3, 2), 1) is None
    assert bus.read_at_once(PCS_ANSWER[:20], 1) == []
    assert bus.read_at_once(PCS_ANSWER, 2) is None
    (exchange,) = bus.read_at_once(PCS_ANSWER[20:], 3) or []
    assert exchange.captured_at_ns == 3
    bus.wrote(read_request(1, 3, 0, 60_000), complete=True)
    assert bus.read_at_once(bytes(600), 4) is None
