"""What a test needs of the machine that `make test` cannot install."""

import os

import pytest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may trace, make users, and give files to them"
)
