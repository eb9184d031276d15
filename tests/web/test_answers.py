"""The JSON of a real recorder: what was read, when it was read, and nothing made up."""

import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recorder.simulator.stream import ExpectedSample
from tests.support.influxd import wait_until
from tests.support.service import Service
from tests.web.rig import fresh, get, recent, recording

SITE = '<script>alert("1")</script>'


def last(truth: list[ExpectedSample], device: str) -> ExpectedSample:
    return next(sample for sample in reversed(truth) if sample.device == device)


def test_latest_is_the_newest_sample_of_each_device(tmp_path: Path) -> None:
    """`/api/v1/latest` has the last sample of each device, with its fields and the time it was read."""
    with recording(tmp_path) as (service, truth):
        answer = fresh(service, truth, "/api/v1/latest", b'"stale":false')[0].json
    points = {point["measurement"]: point for point in answer["points"]}
    assert points.keys() == {"flow", "pcs", "powermeter"}
    for device in ("pcs", "powermeter"):
        expected = last(truth, device)
        assert points[device]["fields"] == pytest.approx(expected.fields)
        assert points[device]["time"] == pytest.approx(expected.at_ns / 1e9, abs=0.001)
    assert not points["pcs"]["stale"]
    assert (answer["site"], answer["sites"]) == ("home", ["home"])


def test_older_scripts_names_carry_the_samples_own_time(tmp_path: Path) -> None:
    """`/lgessgen1`, `/lgess` and `/json/all` have the old names, and the time of the sample."""
    with recording(tmp_path) as (service, truth):
        flat, grouped, raw = (get(service.http_port, p).json for p in ("/lgessgen1", "/lgess", "/json/all"))
    pcs, meter = last(truth, "pcs"), last(truth, "powermeter")
    oldest = datetime.fromtimestamp(min(pcs.at_ns, meter.at_ns) / 1e9, UTC)
    assert datetime.fromisoformat(flat["time"]) == oldest.replace(
        microsecond=oldest.microsecond // 1000 * 1000
    )
    assert flat["gridpower"] == meter.fields["active_power"]
    assert flat["gridimport"] == meter.fields["active_import"]
    assert flat["batterypower"] == flat["batterypowern"] == pcs.fields["battery_power"]
    assert flat["batterysoc"] == pytest.approx(pcs.fields["battery_soc"], abs=0.05)
    wh = round(60 * pcs.fields["battery_soc"])
    assert flat["batterykwh"] == grouped["battery"]["SocKW"] == grouped["battery"]["PvSocKW"] == wh
    assert flat["pvpower"] == pcs.fields["pv_power"]
    assert flat.keys() == {
        "time", "gridpower", "gridimport", "gridexport", "gridvoltage1", "gridvoltage2", "gridvoltage3",
        "batterysoc", "batterypower", "batterypowern", "batterykwh", "residualpower", "pvpower",
    }  # fmt: skip
    assert grouped["battery"]["PvBatPowerInv"] == -pcs.fields["battery_power"]
    assert grouped["grid"]["GridActivePower"] == grouped["grid"]["ActivePower"] == flat["gridpower"]
    assert grouped["load"]["HousePowerConsumption"] == flat["residualpower"]
    assert raw["pv"]["pvValue19.laden-entladen"] == pcs.fields["battery_power"]
    assert raw["pv"]["pvValue26.soc"] == round(pcs.fields["battery_soc_raw"] * 10)
    assert raw["pv"]["pvValue16.Frequenz"] == round(pcs.fields["frequency"] * 100)
    assert raw["grid"]["gridFrequency"] == meter.fields["frequency"]
    # Values that no profile reads are absent, not 0.
    assert "pvValue14" not in raw["pv"]


def test_nothing_is_made_up_before_the_first_sample(tmp_path: Path) -> None:
    """Without a sample the older scripts' paths say 503, and latest is empty."""
    with Service(tmp_path, "") as service:
        for path in ("/lgess", "/lgessgen1", "/json/all"):
            answer = get(service.http_port, path)
            assert (answer.status, answer.json["detail"]) == (503, "no sample has come yet")
        assert get(service.http_port, "/api/v1/latest").json["points"] == []


def test_history_has_what_was_recorded(tmp_path: Path) -> None:
    """Means and extremes are those of the samples up to now, energies those up to ten seconds ago."""
    with recording(tmp_path, 50) as (service, truth):
        answer = get(
            service.http_port, f"/api/v1/history?from={time.time() - 300:.0f}&fields=pcs.pv_power"
        ).json
    values = [sample.fields["pv_power"] for sample in truth if sample.device == "pcs"]
    column = answer["series"]["pcs.pv_power"]
    assert min(value for value in column["min"] if value is not None) == min(values)
    assert max(value for value in column["max"] if value is not None) == max(values)
    assert answer["time"] == list(range(answer["from"], answer["to"], 60))
    assert all(len(each) == len(answer["time"]) for each in (*column.values(), *answer["energy"].values()))
    assert None in column["mean"]
    cells = [sample.at_ns // 10**10 for sample in truth if sample.device == "pcs"]
    whole = [value for value, cell in zip(values, cells, strict=True) if cell < cells[-1]]
    kwh = sum(whole) / len(whole) * (len(whole) - 1) / 3.6e6
    assert answer["totals"]["energy"]["pv"] == pytest.approx(kwh, rel=0.05)
    assert 0 <= answer["totals"]["self_sufficiency"] <= 100


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [
        ("history?step=2m", 400, "step"),
        ("history?from=yesterday", 400, "from"),
        ("history?to=today", 400, "to"),
        ("history?from=-1", 400, "from"),
        ("history?from=1e9", 400, "from"),
        ("history?fields=flow", 400, "fields"),
        ("history?fields=flow.*", 400, "fields"),
        ("history?fields=" + ",".join(["a.b"] * 17), 400, "fields"),
        ("history?step=1m&step=1h", 400, "step"),
        ("history?sites=home", 400, "unknown parameter"),
        ("history?site=nobody", 404, "site"),
        ("latest?site=nobody", 404, "site"),
        ("latest?site=", 404, "site"),
        ("health?x=1", 400, "unknown parameter"),
        ("nothing", 404, ""),
    ],
)
def test_wrong_request_is_told_what_is_allowed(shared: Service, query: str, status: int, named: str) -> None:
    """A parameter that cannot be is a problem document that names it."""
    answer = get(shared.http_port, f"/api/v1/{query}")
    assert answer.status == answer.json["status"] == status
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert named in answer.json.get("detail", "")


@pytest.mark.parametrize(
    "query", ["from=0&step=1m", "from=0", "from=99999999998&to=99999999999", "from=9&to=5"]
)
def test_any_range_has_an_answer_of_bounded_size(shared: Service, query: str) -> None:
    """All of time in minutes is answered with its last 10,000 buckets."""
    answer = get(shared.http_port, f"/api/v1/history?{query}")
    assert answer.status == 200
    assert len(answer.json["time"]) <= 10_000


def test_healthz_fails_when_no_sample_comes(tmp_path: Path) -> None:
    """`/healthz` is 503 with the remedy while the newest sample is older than a minute."""
    env = {"ESS_CONFIG": str(tmp_path / "recorder.yaml")}
    shipped = (Path(__file__).parents[2] / "config/recorder.yaml").read_text()
    (tmp_path / "recorder.yaml").write_text(
        shipped.replace("tolerance_seconds: 2", "tolerance_seconds: 604800")
    )
    with Service(tmp_path, "", **env) as service:
        assert service.health()[0] == 200
        text, _ = recent(90)
        # The stream ended 80 s ago: only its first ten seconds come.
        service.send(text[: len(text) // 9])
        wait_until(lambda: service.health()[0] == 503)
        assert "does the controller's script run" in service.health()[1]["problems"][0]
        report = service.report()
    assert not report["healthy"]
    assert {device["stale"] for device in report["devices"]} == {True}


def test_script_in_a_site_name_stays_text(tmp_path: Path) -> None:
    """A site named like a script is JSON text everywhere, and no answer is HTML but the page itself."""
    with recording(tmp_path, 3, ESS_SITE=SITE) as (service, _):
        answers = {
            path: get(service.http_port, path)
            for path in ("/", "/api/v1/latest", "/api/v1/health", "/healthz", "/lgess", "/metrics")
        }
        missing = get(service.http_port, "/<script>alert(1)</script>")
    assert answers["/api/v1/latest"].json["site"] == SITE
    assert [p for p, a in answers.items() if a.headers["content-type"].startswith("text/html")] == ["/"]
    assert b"alert" not in answers["/"].body
    assert (missing.status, missing.headers["content-type"].split(";")[0]) == (
        404,
        "application/problem+json",
    )


def test_every_answer_has_the_security_headers(shared: Service) -> None:
    """The page, JSON, errors and files say: nothing from elsewhere, no sniffing, no referrer."""
    for path in ("/", "/static/page.css", "/api/v1/latest", "/metrics", "/nothing", "/healthz"):
        headers = get(shared.http_port, path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["server"] == "ess-recorder"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(shared: Service, method: str) -> None:
    """Any method but GET and HEAD is refused on any path."""
    for path in ("/", "/api/v1/latest", "/api/v1/events", "/metrics", "/static/page.css"):
        answer = get(shared.http_port, path, method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET,HEAD")


def test_head_is_get_without_a_body(shared: Service) -> None:
    """HEAD has the status of GET and ends, on the event stream too."""
    for path in ("/", "/api/v1/latest", "/api/v1/events", "/metrics"):
        answer = get(shared.http_port, path, method="HEAD")
        assert (answer.status, answer.body) == (200, b"")


def test_only_this_machine_reaches_it_unless_told_otherwise(shared: Service) -> None:
    """As shipped it listens on the loopback address and on no other."""
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", shared.http_port))
