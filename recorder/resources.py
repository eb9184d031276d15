"""Where the shipped configuration is.

Takes nothing, gives directories. Never reads or writes a file.
"""

from importlib.resources import files
from pathlib import Path


def shipped_config_dir() -> Path:
    """The directory with the shipped `recorder.yaml` and `profiles/`.

    An installed package holds it inside; in a checkout it stands beside the package.

    Raises:
        FileNotFoundError: when neither is there, which means a broken installation.
    """
    package = Path(str(files("recorder")))
    for candidate in (package / "config", package.parent / "config"):
        if (candidate / "recorder.yaml").is_file():
            return candidate
    raise FileNotFoundError("the shipped configuration is missing; install ess-recorder again")
