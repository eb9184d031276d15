"""Faults: named, at the asked rate, and each of them as it looks on a real bus."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.modbus.frames import has_valid_crc
from recorder.simulator.faults import FAULTS, FaultInjector, FaultRates, parse_faults
from recorder.simulator.noise import seeded
from recorder.simulator.plant import Plant, PlantSettings
from recorder.simulator.polls import Master, Poll, scan
from recorder.simulator.stream import SiteStream

START = 1_718_960_000


def _polls() -> list[Poll]:
    return scan(Plant(1, START).state, Master(28000, 4), Master(8000, 4), seeded("polls"))


def _only(name: str, rate: float = 1.0) -> FaultInjector:
    return FaultInjector(FaultRates({name: rate}), seeded("faults", name))


def _texts(name: str, seconds: int, rate: float, dialect_seed: int = 1) -> bytes:
    plant = Plant(1, START, PlantSettings(warm_up_seconds=0))
    stream = SiteStream(plant, faults=FaultRates({name: rate}), seed=dialect_seed)
    return b"".join(next(stream).texts[0] for _ in range(seconds))


def test_none_damages_nothing() -> None:
    """Without faults the polls are handed on as they are."""
    polls = _polls()
    assert FaultInjector(parse_faults("none"), seeded(1)).damage_polls(polls) == polls


def test_a_wrong_crc_is_one_flipped_byte() -> None:
    """Answers keep their length, differ in one byte, and fail the check."""
    for before, after in zip(_polls(), _only("crc").damage_polls(_polls()), strict=True):
        assert sum(a != b for a, b in zip(before.response, after.response, strict=True)) == 1
        assert not has_valid_crc(after.response)


def test_an_unanswered_request_has_no_answer() -> None:
    """The request stands, and nothing comes."""
    assert {poll.response for poll in _only("unanswered").damage_polls(_polls())} == {b""}


def test_an_exception_is_a_valid_refusal() -> None:
    """Five bytes, the function's high bit set, under a right CRC."""
    for poll in _only("exception").damage_polls(_polls()):
        assert (len(poll.response), poll.response[1]) == (5, 0x83)
        assert has_valid_crc(poll.response)


def test_an_implausible_charge_has_a_right_crc() -> None:
    """Only the PCS's answer changes, to 400 %."""
    for poll in _only("implausible").damage_polls(_polls()):
        assert has_valid_crc(poll.response)
        assert (poll.fault == "implausible") == (poll.device == "pcs")
        if poll.device == "pcs":
            raw = int.from_bytes(poll.response[3 + 26 * 4 : 7 + 26 * 4])
            assert (raw - 45) * 100 / 905 == 400


def test_stale_bytes_are_the_last_answers() -> None:
    """Several requests get 5 bytes each out of the answer before, then the bus is in step again."""
    injector = _only("stale")
    good = next(poll for poll in injector.damage_polls(_polls()) if poll.device == "pcs")
    injector._rates = FaultRates({"stale": 1.0})
    stale = [next(p for p in injector.damage_polls(_polls()) if p.device == "pcs")]
    injector._rates = FaultRates({"crc": 0.0})
    while stale[-1].fault == "stale":
        stale.append(next(p for p in injector.damage_polls(_polls()) if p.device == "pcs"))
    *short, last = stale
    assert 2 <= len(short) <= 5
    assert b"".join(poll.response for poll in short) in good.response
    assert last.response == good.response


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("cut", b'"...'),
        ("eagain", b" = -1 EAGAIN (Resource temporarily unavailable)\n"),
        ("foreign", b"read(7, "),
        ("foreign", b"--- SIGALRM {"),
        ("restart", b"+++ exited with 0 +++\n"),
    ],
)
def test_a_fault_of_text_shows_in_the_text(name: str, shape: bytes) -> None:
    """The shape is there with the fault, and not without it."""
    assert shape in _texts(name, 30, 1.0)
    assert shape not in _texts(name, 30, 0.0)


def test_a_restart_has_a_new_pid() -> None:
    """After `+++ exited` the old pid writes no line."""
    before, _, after = _texts("restart", 60, 0.1).partition(b" +++ exited with 0 +++\n")
    old = before.rsplit(b"\n", 1)[1]
    assert before.count(old) > 10
    assert old not in after


def test_a_lost_line_is_missing() -> None:
    """With one line of each answer lost, there are eight fewer in a second."""
    whole, thinned = _texts("lost", 1, 0.0), _texts("lost", 1, 1.0)
    # Not next to one another: whose the answer after a lost request is, nobody could tell.
    assert whole.count(b"\n") - thinned.count(b"\n") == 5


def test_a_torn_line_has_no_end() -> None:
    """The rest of the line is gone, and its offset is reported for the connection to break there."""
    stream = SiteStream(Plant(1, START), faults=FaultRates({"torn": 1.0}), seed=3)
    second = next(stream)
    ((tear,),) = second.tears
    torn = second.texts[0][:tear].rsplit(b"\n", 1)[-1]
    assert not torn.endswith(b"\n")
    assert second.texts[0][tear:].startswith(b"[pid ")


def test_garbage_is_not_a_line_of_strace() -> None:
    """A garbage line has no process in front."""
    lines = _texts("garbage", 30, 1.0).split(b"\n")[:-1]
    assert sum(not line.startswith(b"[pid ") for line in lines) == 30


@pytest.mark.parametrize("name", ["crc", "unanswered", "exception", "cut"])
def test_rates_are_kept(name: str) -> None:
    """Over many polls the share of damaged ones is the asked rate."""
    injector = _only(name, 0.1)
    polls = _polls()
    struck = sum(poll.fault == name for _ in range(1000) for poll in injector.damage_polls(polls))
    assert struck == injector.counts[name]
    assert struck / 8000 == pytest.approx(0.1, abs=0.015)


def test_all_faults_occur_together_and_are_counted() -> None:
    """With high rates of everything, every kind strikes within some minutes."""
    rates = FaultRates(dict.fromkeys(FAULTS, 0.05))
    stream = SiteStream(Plant(1, START), faults=rates, seed=5)
    for _ in range(600):
        next(stream)
    assert set(stream.fault_counts) == set(FAULTS)


def test_levels_name_all_faults() -> None:
    """`some` is milder than `all`, and `all` has no fault at rate 0."""
    some, everything = parse_faults("some"), parse_faults("all")
    for name in FAULTS:
        assert some.rate(name) < everything.rate(name)


def test_a_list_sets_single_rates() -> None:
    """Names that are not in the list stay at 0."""
    rates = parse_faults("crc=0.01, unanswered=0.005")
    assert (rates.rate("crc"), rates.rate("unanswered"), rates.rate("cut")) == (0.01, 0.005, 0.0)


@pytest.mark.parametrize(
    "text", ["crc=2", "crc=-0.1", "crc=", "crc", "crc=x", "crc=nan", "flood=0.1", "all,crc=1"]
)
def test_a_wrong_list_says_what_is_allowed(text: str) -> None:
    """The error names the fault, and either all the names or the range."""
    with pytest.raises(ValueError, match=r"crc, unanswered|from 0 to 1"):
        parse_faults(text)


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Whatever is typed gives rates from 0 to 1, or the error that says what is allowed."""
    try:
        rates = parse_faults(text)
    except ValueError as error:
        assert "use none" in str(error) or "rate from 0 to 1" in str(error)  # noqa: PT017
    else:
        assert all(0 <= rate <= 1 for rate in rates.rates.values())


def test_counts_start_empty() -> None:
    """A stream that did nothing yet has no faults."""
    assert SiteStream(Plant(1, START)).fault_counts == Counter()
