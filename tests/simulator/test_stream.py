"""Streams: what is sent, and that the truth about it is what a receiver finds."""

from itertools import pairwise

import pytest

from recorder.simulator.faults import parse_faults
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS, Dialect
from recorder.simulator.stream import ExpectedSample, SiteStream, StreamSecond
from tests.simulator.decoding import Decoder

START = 1_718_960_000
# Dialects whose stamps give each sample its time.
STAMPED = [name for name, dialect in DIALECTS.items() if dialect.stamp == "ttt"]


def _site(dialect: str = "ttt", faults: str = "none", seed: int = 1, *, both: bool = True) -> SiteStream:
    return SiteStream(Plant(seed, START), DIALECTS[dialect], parse_faults(faults), seed, both=both)


def _found(seconds: list[StreamSecond]) -> dict[str, dict[int, dict[str, float]]]:
    """Decode all streams: the fields of each answer by measurement and time."""
    found: dict[str, dict[int, dict[str, float]]] = {"pcs": {}, "powermeter": {}}
    decoders = [Decoder() for _ in seconds[0].texts]
    for second in seconds:
        for decoder, text in zip(decoders, second.texts, strict=True):
            for measurement, at_ns, fields in decoder.feed(text):
                assert at_ns is not None
                assert at_ns not in found[measurement]
                found[measurement][at_ns] = fields
    return found


def _scan_before(answers: dict[int, dict[str, float]], at_ns: int) -> dict[str, float]:
    """Join the meter's answers of the second that ends with the sample at `at_ns`."""
    second = at_ns // 10**9
    joined: dict[str, float] = {}
    for answered_ns, fields in answers.items():
        if answered_ns // 10**9 == second:
            joined |= fields
    return joined


def _fields_at(
    found: dict[str, dict[int, dict[str, float]]], sample: ExpectedSample
) -> dict[str, float] | None:
    answers = found[sample.device]
    if sample.at_ns not in answers:
        return None
    return answers[sample.at_ns] if sample.device == "pcs" else _scan_before(answers, sample.at_ns)


@pytest.mark.parametrize("dialect", STAMPED)
@pytest.mark.parametrize("both", [True, False], ids=["both", "separate"])
def test_without_faults_every_sample_is_found_exactly(dialect: str, both: bool) -> None:
    """Each sample of the truth has its time and all its fields, and nothing else is found."""
    site = _site(dialect, both=both)
    seconds = [next(site) for _ in range(60)]
    truth = [sample for second in seconds for sample in second.truth]
    assert len(truth) == 120
    found = _found(seconds)
    for sample in truth:
        assert sample.certain
        assert _fields_at(found, sample) == sample.fields
    assert len(found["pcs"]) == 60
    assert len(found["powermeter"]) == 7 * 60


@pytest.mark.parametrize("both", [True, False], ids=["both", "separate"])
@pytest.mark.parametrize("seed", range(3))
def test_among_faults_every_certain_sample_is_found_exactly(seed: int, both: bool) -> None:
    """With all faults, what the truth calls certain still has its time and exactly its fields."""
    site = _site("ttt", "all", seed, both=both)
    seconds = [next(site) for _ in range(3000)]
    found = _found(seconds)
    certain = [sample for second in seconds for sample in second.truth if sample.certain]
    assert sum(sample.device == "pcs" for sample in certain) > 2500
    # With so many faults, few scans of a meter are without one, and behind eight others.
    assert 5 < sum(sample.device == "powermeter" for sample in certain) < 2500
    for sample in certain:
        assert _fields_at(found, sample) == sample.fields


def test_a_damaged_answer_is_not_in_the_truth() -> None:
    """Where every answer has a wrong CRC, there is no sample to find, and none is found."""
    site = _site(faults="crc=1")
    seconds = [next(site) for _ in range(20)]
    assert not any(second.truth for second in seconds)
    assert _found(seconds) == {"pcs": {}, "powermeter": {}}


def test_an_implausible_charge_is_not_in_the_truth() -> None:
    """The sample is there without the two fields that show 400 %."""
    second = next(_site(faults="implausible=1"))
    pcs = next(sample for sample in second.truth if sample.device == "pcs")
    assert not {"battery_soc", "battery_soc_raw"} & set(pcs.fields)
    assert pcs.fields["battery_soc_max"] > 90


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_renders_with_all_faults(dialect: str) -> None:
    """No dialect breaks the stream, and each gives some lines a second."""
    site = _site(dialect, "all")
    for _ in range(30):
        assert next(site).texts[0].count(b"\n") > 20


def test_a_second_is_as_large_as_in_reality() -> None:
    """One home is about 70 lines and 3.8 KB a second, within a quarter."""
    site = _site("capture")
    text = b"".join(next(site).texts[0] for _ in range(100))
    assert 53 <= text.count(b"\n") / 100 <= 88
    assert 2850 <= len(text) / 100 <= 4750


def test_stamps_never_go_back() -> None:
    """In the order of the lines time stands or runs on, halves of calls included."""
    site = _site("ttt")
    text = b"".join(next(site).texts[0] for _ in range(100)).decode()
    assert "unfinished" in text
    stamps = [line.split("] ")[1].split(" ")[0] for line in text.splitlines()]
    assert all(before <= after for before, after in pairwise(stamps))


def test_two_processes_share_a_stream_or_have_one_each() -> None:
    """Separate streams carry the PCS and then the meter, without the prefix that strace then leaves out."""
    (text,) = next(_site("capture")).texts
    assert text.count(b"[pid") == text.count(b"\n")
    pcs, meter = next(_site("capture", both=False)).texts
    assert b"[pid" not in pcs + meter
    assert b"\\x9c\\x72" in pcs
    assert b"\\x9c\\x72" not in meter


def test_a_shared_stream_needs_a_dialect_with_pids() -> None:
    """Without names of processes a receiver could not tell the two apart."""
    with pytest.raises(ValueError, match="--separate"):
        SiteStream(Plant(1, START), Dialect(prefix="none"))


def test_processes_are_announced_once() -> None:
    """Where the dialect announces processes, the stream begins with both."""
    site = _site("modern")
    lines = next(site).texts[0].splitlines()
    assert all(line.startswith(b"strace: Process ") and line.endswith(b" attached") for line in lines[:2])
    assert b"attached" not in next(site).texts[0]


def test_one_seed_gives_one_stream() -> None:
    """The same seed gives the same text, faults included; another seed gives another."""
    streams = [_site(faults="all", seed=seed) for seed in (5, 5, 6)]
    first, again, other = ([next(stream) for _ in range(50)] for stream in streams)
    assert first == again
    assert first != other


def test_seconds_follow_the_plant() -> None:
    """The first second is the one after the plant's start, and none is left out."""
    site = _site()
    assert [next(site).at_ns // 10**9 - START for _ in range(5)] == [1, 2, 3, 4, 5]
