"""`ess-recorder status`: what a running recorder sees and how it is, in a terminal.

Takes its answers over HTTP, gives a live picture, or one as text or JSON for scripts. Never changes
anything, and needs no access to the recorder's files but for the settings that tell its address.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
import urllib3
from rich.console import Console
from rich.live import Live

from recorder.commands.options import config_option, fail, load_or_exit
from recorder.commands.status_view import StatusView
from recorder.settings import Settings

_REFRESH_SECONDS: Final = 1.0
_TIMEOUT_SECONDS: Final = 5.0
_EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # what to ask instead

Answer = dict[str, Any]


class NoAnswerError(Exception):
    """The recorder could not be asked; the message says what to do."""


@click.command()
@config_option
@click.option("--url", help="Of the recorder. Default: http.bind and http.port of the settings.")
@click.option("--token", envvar="ESS_HTTP_TOKEN", help="Default: $ESS_HTTP_TOKEN, else that of the settings.")
@click.option("--site", default="", help="Which site. Default: the recorder's own.")
@click.option("--once", is_flag=True, help="Show it once, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print it once as JSON, and end.")
def status(
    config: Path | None, url: str | None, token: str | None, site: str, once: bool, as_json: bool
) -> None:
    """Show what a running recorder sees: flows, energies, sources, queue, InfluxDB, problems.

    Ends with 1 where no recorder answers.
    """
    if url is None:
        settings = load_or_exit(config).settings
        url = _url_of(settings)
        token = token or (settings.http.token.get_secret_value() if settings.http.token else None)
    elif not url.startswith(("http://", "https://")):
        raise click.UsageError(f"{url} is no address; give it as http://HOST:PORT")
    client = _Client(url.rstrip("/"), token, site)
    try:
        answers = client.ask()
    except NoAnswerError as error:
        fail(str(error))
    if as_json:
        click.echo(json.dumps(answers, ensure_ascii=False))
        return
    view = StatusView()
    view.take(answers)
    console = Console()
    if once or not console.is_terminal:
        console.print(view.picture())
        return
    _follow(client, view, console)


def _follow(client: "_Client", view: StatusView, console: Console) -> None:
    """Show the answers as they change, until Ctrl-C; a recorder that goes away is waited for."""
    with Live(view.picture(), console=console, auto_refresh=False, screen=True) as live:
        try:
            while True:
                time.sleep(_REFRESH_SECONDS)
                try:
                    view.take(client.ask())
                except NoAnswerError as error:
                    view.lose(str(error))
                live.update(view.picture(), refresh=True)
        except KeyboardInterrupt:
            return


class _Client:
    """Asks one recorder."""

    def __init__(self, url: str, token: str | None, site: str) -> None:
        self._url = url
        self._site = {"site": site} if site else {}
        self._http = urllib3.PoolManager(
            timeout=_TIMEOUT_SECONDS,
            retries=False,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    def ask(self) -> dict[str, Answer]:
        """Give the answers of `latest` and `health`, and today's `history`.

        Raises:
            NoAnswerError: nobody answers, or not as a recorder does.
        """
        today = {"from": "today", "step": "1h", "fields": "flow.home", **self._site}
        return {
            "latest": self._get("latest", self._site),
            "health": self._get("health", {}),
            "today": self._get("history", today),
        }

    def _get(self, path: str, parameters: Mapping[str, str]) -> Answer:
        try:
            answer = self._http.request("GET", f"{self._url}/api/v1/{path}", fields=dict(parameters))
        except urllib3.exceptions.HTTPError:
            raise NoAnswerError(
                f"no recorder answers at {self._url}; start one (ess-recorder run), or name another: --url"
            ) from None
        try:
            content = answer.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise NoAnswerError(f"{self._url} is no recorder, or an older one; name another: --url")
        if answer.status == 200:
            return content
        detail = content.get("detail", f"status {answer.status}")
        remedy = "; give it with --token" if answer.status == 401 else ""
        raise NoAnswerError(f"the recorder at {self._url} says: {detail}{remedy}")


def _url_of(settings: Settings) -> str:
    host = _EVERY_ADDRESS.get(settings.http.bind, settings.http.bind)
    return f"http://[{host}]:{settings.http.port}" if ":" in host else f"http://{host}:{settings.http.port}"
