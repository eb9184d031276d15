"""The OpenAPI document says what the recorder answers, and nothing else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from recorder.commands.configuration import load_configuration
from recorder.store.store import Store, StoreLimits
from recorder.web.service import Health, WebService
from tests.support.influxd import LONG_SECONDS, TIMEOUT_SECONDS
from tests.support.service import ROOT
from tests.web.rig import get, recording

DOCUMENT = ROOT / "recorder/web/openapi.json"
DOCS = ROOT / "docs/http-api.md"


def paths_of_the_document() -> set[str]:
    found: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return set(found["paths"])


def paths_of_the_server(directory: Path) -> set[str]:
    """What the server would answer, but for the page: it is no part of the interface for machines."""
    configuration = load_configuration(None, {})
    store = Store(directory, StoreLimits({}, 1), "UTC", ())
    health = Health((), {})
    web = WebService(configuration.settings, configuration.profiles, store, lambda: health, dict)
    routes = {route.resource.canonical for route in web.application().router.routes() if route.resource}
    return routes - {"/", "/static"}


def test_document_has_every_path_of_the_server(tmp_path: Path) -> None:
    """No path is served that the document does not have, and it has none that is not served."""
    assert paths_of_the_document() == paths_of_the_server(tmp_path)


def test_pages_of_documentation_name_every_path() -> None:
    """What machines read and what people read name the same paths."""
    text = DOCS.read_text()
    assert all(f"`{path}`" in text for path in paths_of_the_document())


def test_schemathesis_finds_no_failure(tmp_path: Path) -> None:
    """Requests made from the document, right and wrong ones, get the answers that it describes."""
    with recording(tmp_path) as (service, _):
        served = get(service.http_port, "/api/v1/openapi.json")
        assert served.body == DOCUMENT.read_bytes()
        done = subprocess.run(
            [
                Path(sys.executable).parent / "st", "run", DOCUMENT,
                "--url", f"http://127.0.0.1:{service.http_port}",
                # An answer without an end; tests/web/test_events.py has it.
                "--exclude-path", "/api/v1/events",
                "--max-examples", "25", "--no-color",
                "--request-timeout", f"{TIMEOUT_SECONDS:.0f}", "--suppress-health-check", "too_slow",
                # As Hypothesis itself: new cases each time by hand, the same ones in CI.
                *(["--generation-deterministic"] if os.environ.get("CI") else ["--generation-database=none"]),
            ],
            cwd=tmp_path, capture_output=True, text=True, timeout=LONG_SECONDS, check=False,
        )  # fmt: skip
        assert service.health()[0] in {200, 503}
    assert done.returncode == 0, done.stdout
    assert re.search(r"Operations: +9 selected / 10 total", done.stdout)
