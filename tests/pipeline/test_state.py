"""A pipeline that goes on from where another one stood."""

import pickle
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.pipeline import Pipeline
from recorder.points.point import Point
from recorder.points.site import Site
from tests.pipeline.test_pipeline import NOON_S, catalogue, new_pipeline, record

NS = 10**9


def fed(pipeline: Pipeline, text: bytes, received_at_ns: int | None) -> list[Point]:
    """Points of text in pieces of a thousand bytes, of which one a second is received."""
    points: list[Point] = []
    for number, start in enumerate(range(0, len(text), 1000)):
        at_ns = None if received_at_ns is None else received_at_ns + number * NS
        points += pipeline.feed(text[start : start + 1000], at_ns)
        points += [] if at_ns is None else pipeline.expire(at_ns)
    return points


@given(st.data())
def test_resumed_pipeline_gives_what_the_first_one_gives(data: st.DataObject) -> None:
    """Wherever a damaged stream is cut, points and counts are those of the pipeline that took all of it."""
    text, _ = record(data.draw(st.sampled_from(["ttt", "capture", "escapes"])), "all", 20, 7)
    hole = data.draw(st.integers(0, len(text)))
    noise = data.draw(st.binary(max_size=9) | st.just(b"a" * 6000))
    text = text[:hole] + noise + text[hole + data.draw(st.integers(0, 300)) :]
    at = data.draw(st.integers(0, len(text)) | st.integers(hole, hole + len(noise)))
    received_at_ns = data.draw(st.none() | st.integers(NOON_S - 100, NOON_S + 100).map(lambda s: s * NS))
    later_ns = None if received_at_ns is None else received_at_ns + data.draw(st.integers(-3, 200)) * NS
    first, resumed = (
        Pipeline(catalogue(), Site("home", catalogue().profiles), max_line_bytes=size)
        for size in [data.draw(st.sampled_from([65536, 250]))] * 2
    )
    fed(first, text[:at], received_at_ns)
    first.counts.clear()
    resumed.resume(pickle.loads(pickle.dumps(first.state)))
    resumed.site.resume(first.site.state)
    assert resumed.state == first.state
    for start, end in pairwise([at, (at + len(text)) // 2, len(text)]):
        assert fed(resumed, text[start:end], later_ns) == fed(first, text[start:end], later_ns)
        assert resumed.state == first.state
    assert resumed.finish() == first.finish()
    assert +resumed.counts == +first.counts
    assert resumed.clock_offset_seconds == first.clock_offset_seconds


def test_state_is_a_value_of_its_own() -> None:
    """What a pipeline takes later does not change a state that it gave."""
    text, _ = record("ttt", "none", 4, 1)
    pipeline = new_pipeline()
    pipeline.feed(text[: len(text) // 2], None)
    state = pipeline.state
    kept = pickle.dumps(state)
    pipeline.feed(text[len(text) // 2 :], None)
    assert pickle.loads(kept) == state
    assert pipeline.state != state


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_text_before_a_cut_makes_pipelines_stand_alike(share: float) -> None:
    """A pipeline that begins within a line stands, some seconds on, where one from the start does."""
    text, _ = record("ttt", "none", 160, 1)
    at = int(len(text) * share)
    first, late = new_pipeline(), new_pipeline()
    first.feed(text[:at], None)
    late.feed(text[at - 100_000 : at], None)
    assert late.state == first.state
