"""How captured text is decoded: by the owner's settings."""

from dataclasses import replace

from recorder.commands.configuration import load_configuration
from recorder.commands.decoding import pipeline_of, site_of
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream

NOON_S = 1_781_780_400
HOUR_NS = 3600 * 10**9


def test_stamps_are_believed_within_the_tolerance_of_the_settings() -> None:
    """An hour between the stamps and the pace of a file is corrected only where that is not tolerated."""
    shipped = load_configuration(None, {})
    second = next(SiteStream(Plant(1, NOON_S), DIALECTS["ttt"])).texts[0]
    times = []
    for seconds in (2.0, 7200.0):
        clock = shipped.settings.clock.model_copy(update={"tolerance_seconds": seconds})
        settings = shipped.settings.model_copy(update={"clock": clock})
        pipeline = pipeline_of(replace(shipped, settings=settings), site_of(shipped, "home"))
        (point, *_) = pipeline.feed_paced(second, lambda _: NOON_S * 10**9 - HOUR_NS)
        assert point.time_ns is not None
        times.append(point.time_ns)
    corrected_ns, believed_ns = times
    assert believed_ns >= NOON_S * 10**9
    assert corrected_ns < believed_ns - HOUR_NS // 2
