"""`ess-recorder check` beside what runs already."""

import json
import socket
from pathlib import Path

import pytest

from tests.support.service import ess_recorder


@pytest.mark.parametrize("is_shared", [True, False])
def test_port_of_a_sibling_is_free_where_it_is_shared(tmp_path: Path, is_shared: bool) -> None:
    """With `reuse_port` a port on which a sibling listens is ready to be used, and without it is taken."""
    with socket.socket() as sibling:
        sibling.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sibling.bind(("127.0.0.1", 0))
        sibling.listen()
        listener = {"name": "fleet", "bind": "127.0.0.1", "port": sibling.getsockname()[1]}
        settings = {
            "site": "home",
            "data_dir": str(tmp_path / "data"),
            "listeners": [{**listener, "reuse_port": is_shared}],
            "http": {"port": 0},
            "devices": [{"profile": "abb-b2x"}],
        }
        (tmp_path / "recorder.yaml").write_text(json.dumps(settings))
        done = ess_recorder("check", "--config", str(tmp_path / "recorder.yaml"))
    assert (done.returncode, b"fleet: 127.0.0.1 port" in done.stdout) == (not is_shared, True)
