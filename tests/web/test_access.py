"""The token: who brings it may read, everybody else is told how, and nobody is shown it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import Service
from tests.web.rig import get

TOKEN = "correct-horse-battery-staple"
PATHS = (
    "/", "/metrics", "/api/v1/latest", "/api/v1/history", "/api/v1/events", "/api/v1/health",
    "/api/v1/openapi.json", "/lgess", "/lgessgen1", "/json/all", "/static/page.css", "/nothing",
)  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \xff"},
        {"Cookie": f"ess_recorder={TOKEN}"},
        {"Cookie": "ess_recorder="},
    ],
)
def test_without_the_token_nothing_is_read(guarded: Service, headers: dict[str, str]) -> None:
    """Each path but /healthz is 401, whatever else is brought."""
    for path in (*PATHS, f"/?token={TOKEN}x", f"/api/v1/latest?token={TOKEN}", f"/?token={TOKEN}&token=x"):
        answer = get(guarded.http_port, path, headers)
        assert (answer.status, answer.headers["www-authenticate"][:6]) == (401, "Bearer")
        assert TOKEN.encode() not in answer.body
    health = get(guarded.http_port, "/healthz", headers)
    assert (health.status, health.json) == (200, {"healthy": True})


def test_token_in_a_header_opens_every_path(guarded: Service) -> None:
    """With `Authorization: Bearer` a program reads everything."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/", "/metrics", "/api/v1/latest", "/api/v1/history", "/api/v1/health"):
        assert get(guarded.http_port, path, headers).status == 200
    assert "sources" in get(guarded.http_port, "/healthz", headers).json


def test_browser_gets_a_cookie_once(guarded: Service) -> None:
    """`/?token=` leads to the page without it, with a cookie that opens all, and that is not the token."""
    answer = get(guarded.http_port, f"/?token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, "./")
    assert answer.headers["referrer-policy"] == "no-referrer"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert get(guarded.http_port, "/api/v1/latest", {"Cookie": cookie.partition(";")[0]}).status == 200


def test_browser_with_a_wrong_token_gets_a_page_that_helps(guarded: Service) -> None:
    """Who asks for HTML reads what to do, still with 401, and finds nothing of what was sent in it."""
    for path in ("/", f"/?token={TOKEN}x"):
        answer = get(guarded.http_port, path, {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert (answer.status, answer.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["cache-control"] == "no-store"
        assert b"/?token=" in answer.body
        assert TOKEN.encode() not in answer.body


def test_files_of_the_page_are_asked_for_again_and_come_once(shared: Service) -> None:
    """A file may be kept but not used unasked, and comes again only when it changed; figures are not kept."""
    for path in ("/", "/static/page.css", "/static/main.js"):
        first = get(shared.http_port, path)
        assert (first.status, first.headers["cache-control"]) == (200, "no-cache")
        again = get(shared.http_port, path, {"If-None-Match": first.headers["etag"]})
        assert (again.status, again.headers["cache-control"], again.body) == (304, "no-cache", b"")
    for path in ("/api/v1/latest", "/api/v1/health", "/metrics", "/nothing"):
        assert get(shared.http_port, path).headers["cache-control"] == "no-store", path


def test_token_is_never_logged(guarded: Service) -> None:
    """The log of a recorder that was asked with right and wrong tokens has none of them."""
    get(guarded.http_port, f"/?token={TOKEN}")
    get(guarded.http_port, "/?token=wrong-but-secret", {"Authorization": f"Bearer {TOKEN}"})
    log = guarded.log.read_text()
    assert TOKEN not in log
    assert "wrong-but-secret" not in log


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a recorder whose token is in a file."""
    directory: Path = tmp_path_factory.mktemp("guarded")
    (directory / "token").write_text(TOKEN + "\n")
    with Service(directory, "", ESS_HTTP_TOKEN_FILE=str(directory / "token")) as service:
        yield service
