"""Who may read, and the headers of every answer.

Takes requests, gives them on or refuses them, by their host and by the token. Never changes anything, never
shows or logs the token.

With a token set, a request brings it as `Authorization: Bearer`, or brings the cookie that `/?token=`
gives to a browser once. The cookie holds a hash, so that a browser does not store the token.
"""

import hmac
from collections.abc import Container
from hashlib import sha256
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from recorder.web.hosts import REMEDY, is_ours
from recorder.web.live import text_of

_COOKIE: Final = "ess_recorder"
_OPEN_PATH: Final = "/healthz"
_YEAR_SECONDS: Final = 366 * 86400

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "ess-recorder",
}

_SIGN_IN_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ess-recorder: a token is needed</title>
<h1>A token is needed</h1>
<p>This recorder shows its page to those who have its token. Open the address of this page once more, with
<code>/?token=</code> and the token behind it. This browser then remembers it for a year.</p>
<p>If you did that, the token was not the right one: it is <code>http.token</code> in the recorder's settings,
or the content of the file that <code>http.token_file</code> names.</p>
</html>
"""

_log = structlog.get_logger(__name__)


class Access:
    """Compares what a request brings with the token.

    Args:
        token: the secret; empty lets everybody read.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._cookie = hmac.new(self._token, b"ess-recorder reader", sha256).hexdigest()

    def allows(self, request: web.Request) -> bool:
        """Whether the request may read."""
        if not self._token:
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return True
        return hmac.compare_digest(request.cookies.get(_COOKIE, "").encode(), self._cookie.encode())

    def sign_in(self, request: web.Request) -> web.Response | None:
        """Give a cookie and the way to the page, where its address holds the token; None elsewhere."""
        given = request.query.getall("token", [])
        if request.path != "/" or not self._token or len(given) != 1 or not self._is_token(given[0]):
            return None
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "./"})
        response.set_cookie(_COOKIE, self._cookie, max_age=_YEAR_SECONDS, httponly=True, samesite="Strict")
        return response

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="surrogateescape"), self._token)


def guard(access: Access, hosts: Container[str]) -> Middleware:
    """Give what stands before every handler: the host's name, the token, and errors as `problem+json`.

    `hosts` are the names of the public DNS that the owner gave to the recorder.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            # What names no host is no browser.
            if not is_ours(request.headers.get("Host", "localhost"), hosts):
                return problem(HTTPStatus.MISDIRECTED_REQUEST, REMEDY)
            signed_in = access.sign_in(request)
            if signed_in is not None:
                return signed_in
            if request.path != _OPEN_PATH and not access.allows(request):
                return _unauthorized(request)
            return await handler(request)
        except web.HTTPException as error:
            if error.status < HTTPStatus.BAD_REQUEST:
                raise
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            text = error.text or ""
            detail = "" if text.startswith(f"{error.status}:") else text
            # A directory of files is nothing to be told about.
            status = HTTPStatus.NOT_FOUND if error.status == HTTPStatus.FORBIDDEN else error.status
            return problem(status, detail, headers)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001  # one request must not end the others
            _log.error("a request could not be answered", path=request.path, exc_info=error)
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "please report it with the log")

    return answer


def _unauthorized(request: web.Request) -> web.Response:
    """Tell how to bring the token: a browser gets a page to read, a program JSON."""
    headers = {"WWW-Authenticate": 'Bearer realm="ess-recorder"'}
    status = HTTPStatus.UNAUTHORIZED
    if "text/html" in request.headers.get("Accept", ""):
        return web.Response(status=status, text=_SIGN_IN_PAGE, content_type="text/html", headers=headers)
    detail = "this recorder has a token: open /?token=... once, or send Authorization: Bearer ..."
    return problem(status, detail, headers)


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Put the security headers on an answer; a signal of aiohttp, so that streams and files get them too."""
    response.headers.update(SECURITY_HEADERS)
    # A file is asked for again each time, and comes again only when it changed.
    kept = "no-cache" if isinstance(response, web.FileResponse) else "no-store"
    response.headers.setdefault("Cache-Control", kept)


def problem(status: int, detail: str = "", headers: dict[str, str] | None = None) -> web.Response:
    """Give an error as RFC 9457 has it."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": int(status)}
    if detail:
        body["detail"] = detail
    return web.Response(
        status=status, text=text_of(body), content_type="application/problem+json", headers=headers
    )
