"""The version of the distribution.

Takes nothing, gives `VERSION`, as pip knows it.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("ess-recorder")
except PackageNotFoundError:  # a checkout that was never installed
    VERSION = "0 (not installed)"
