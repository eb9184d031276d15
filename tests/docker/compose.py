"""docker-compose.yml as Docker Compose reads it, and the password script as it runs it.

Takes the file and variables, gives services. Never starts a container.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::-(?P<default>[^}]*))?\}")


def load(variables: Mapping[str, str]) -> dict[str, Any]:
    """The file with its variables filled in; KeyError where one is neither set nor has a default."""

    def value_of(match: re.Match[str]) -> str:
        given = variables.get(match["name"], "")
        if given or match["default"] is not None:
            return given or match["default"]
        raise KeyError(match["name"])

    loaded: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value_of, TEXT))
    return loaded


SERVICES: dict[str, dict[str, Any]] = load({})["services"]


def run_passwords(recorder: Path, grafana: Path, *limits: str) -> subprocess.CompletedProcess[str]:
    """The one-shot service's script in busybox, with the capabilities that the service has.

    `limits` go to prlimit.
    """
    kept = ",".join(f"+{name.lower()}" for name in SERVICES["passwords"]["cap_add"])
    capabilities = [f"--bounding-set=-all,{kept}", f"--inh-caps=-all,{kept}", "--no-new-privs"]
    script = ROOT / "config/compose/passwords.sh"
    return subprocess.run(
        ["prlimit", *limits, "setpriv", *capabilities, "busybox", "sh", script, recorder, grafana],
        capture_output=True,
        text=True,
        check=False,
    )
