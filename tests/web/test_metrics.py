"""What Prometheus scrapes, judged by its own tools."""

import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from recorder.points.point import Point
from recorder.profiles.model import Profile, Register
from recorder.web.live import Live
from recorder.web.metrics import RecorderCollector, registry_of, text_of_metrics
from tests.support.influxd import TIMEOUT_SECONDS
from tests.web.rig import fresh, recording

REPORT = {
    "healthy": True,
    "version": "1",
    "started": 0.0,
    "devices": [],
    "clock": {"steps": 0, "last_step": None},
    "sources": [],
    "queue": {"points": 0, "bytes": 0, "oldest_age_seconds": 0.0, "dropped": 0, "damaged": 0},
    "influxdb": {
        "state": "none", "written": 0, "retries": 0, "rejected": 0, "dead_letters": 0, "late_seconds": 0.0,
        "backfills": 0,
    },
    "store": {"bytes": 0},
    "clients": {"events": 0, "dropped": 0},
}  # fmt: skip


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels, read with Prometheus' own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_carry_the_newest_samples(tmp_path: Path) -> None:
    """A real recorder's text is read by Prometheus' parser, in base units; promtool has no complaint."""
    with recording(tmp_path) as (service, truth):
        answer, times = fresh(service, truth, "/metrics", b"ess_pcs_battery_power_watts{")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(answer.body.decode())
    pcs = next(sample.fields for sample in reversed(truth) if sample.device == "pcs")
    labels = (("device", "pcs"), ("site", "home"))
    assert found["ess_pcs_battery_power_watts", labels] == pcs["battery_power"]
    assert found["ess_pcs_battery_soc_ratio", labels] == pytest.approx(pcs["battery_soc"] / 100)
    assert found["ess_pcs_battery_energy_charged_joules_total", labels] == pytest.approx(
        pcs["battery_energy_charged"] * 3.6e6
    )
    event = (("event", "frames"), ("site", "home"), ("source", "pcs"))
    assert found["ess_recorder_source_events_total", event] == 8 * 20 * times
    judged = subprocess.run(
        ["promtool", "check", "metrics"],
        input=answer.body,
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (judged.returncode, judged.stdout + judged.stderr) == (0, b"")


def metrics_at(now_s: float, live: Live, *profiles: Profile) -> str:
    collector = RecorderCollector(profiles, live, lambda: REPORT, lambda: now_s)
    return text_of_metrics(registry_of(collector)).decode()


def test_stale_sample_is_no_metric() -> None:
    """A sample is there for 5 s; afterwards its metric is absent, and not the old value."""
    live = Live("home")
    profile = Profile("p", "pcs", "pcs", 1, 3, (Register(1, "power", "s16", unit="W"),))
    live.observe([Point("pcs", (("device", "pcs"), ("site", "home")), {"power": 7.0}, 100 * 10**9)])
    assert "ess_pcs_power_watts{" in metrics_at(105.0, live, profile)
    assert "ess_pcs_power_watts{" not in metrics_at(105.1, live, profile)


def test_name_of_a_site_cannot_break_the_text() -> None:
    """Quotes, backslashes and umlauts in a site's name are read back as they are."""
    site = 'a"b\\c\nd{},= <script> ü'
    live = Live("home")
    profile = Profile("p", "pcs", "pcs", 1, 3, (Register(1, "power", "s16", unit="W"),))
    live.observe([Point("pcs", (("device", "pcs"), ("site", site)), {"power": 7.0}, 100 * 10**9)])
    found = samples(metrics_at(100.0, live, profile))
    assert found["ess_pcs_power_watts", (("device", "pcs"), ("site", site))] == 7.0
